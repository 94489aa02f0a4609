"""Several attempts of one call at the same time, for the two kinds of callers: tasks on the caller's loop, or threads.

What is launched runs by itself; whoever waits gets the first that is decided.  An attempt that is abandoned is cut off: its
task is cancelled, its connection shut down, its response closed if there is one already.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from queue import Empty, SimpleQueue
from typing import Any

from meshlib.flow.commands import Abandon, Attempt, Command, Decided, Launch, Race
from meshlib.model.outcome import Outcome

Clock = Callable[[], float]


class AsyncRace:
    """On the running loop.  `drop` gives up a response that an outcome has brought."""

    def __init__(
        self,
        send: Callable[[Attempt], Awaitable[Outcome]],
        drop: Callable[[Outcome], None],
        *,
        sleep: Callable[[float], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._send = send
        self._drop = drop
        self._sleep = sleep
        self._clock = clock
        self._tasks: dict[asyncio.Future[Outcome], Attempt] = {}
        self._outcomes: dict[Attempt, Outcome] = {}

    async def perform(self, command: Command) -> Decided | float:
        """What a flow asks for."""
        if isinstance(command, Race):
            return await self.wait(command.until)
        if isinstance(command, Launch):
            self.launch(command.attempt)
        elif isinstance(command, Abandon):
            self.abandon(command.attempt)
        return self._clock()

    def launch(self, attempt: Attempt) -> None:
        """Start it, and go on."""
        self._tasks[asyncio.ensure_future(self._send(attempt))] = attempt

    async def wait(self, until: float | None) -> Decided | float:
        """The first attempt that is decided; the time, if that is `until` before any is.  Raises what an attempt raises."""
        alarm = None if until is None else asyncio.ensure_future(self._sleep(max(until - self._clock(), 0.0)))
        waited: set[asyncio.Future[Any]] = {*self._tasks, alarm} if alarm is not None else {*self._tasks}
        try:
            done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if alarm is not None and not alarm.done():
                alarm.cancel()
        for task, attempt in self._tasks.items():  # in the order of their launch
            if task in done:
                del self._tasks[task]
                outcome = self._outcomes[attempt] = task.result()
                return Decided(attempt, outcome)
        return self._clock()

    def abandon(self, attempt: Attempt) -> None:
        """Its answer is not wanted."""
        outcome = self._outcomes.pop(attempt, None)
        if outcome is not None:
            self._drop(outcome)
            return
        for task, running in list(self._tasks.items()):
            if running is attempt:
                del self._tasks[task]
                self._cut_off(task)

    def close(self, winner: Outcome | None) -> None:
        """The call is over: everything but the winner's response is given up."""
        for task in self._tasks:
            self._cut_off(task)
        self._tasks.clear()
        for outcome in self._outcomes.values():
            if outcome is not winner:
                self._drop(outcome)

    def _cut_off(self, task: asyncio.Future[Outcome]) -> None:
        task.add_done_callback(self._drop_late)
        task.cancel()

    def _drop_late(self, task: asyncio.Future[Outcome]) -> None:
        """It was decided before the cancellation reached it, or failed: nobody asks for either."""
        if not task.cancelled() and task.exception() is None:
            self._drop(task.result())


class Abort:
    """Cuts an exchange off from another thread.  `begun` is told what it runs on."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._shut: Callable[[], None] | None = None
        self.done = False

    def begun(self, shut: Callable[[], None]) -> None:
        """The exchange runs on a connection now that `shut` ends, whoever waits for it."""
        with self.lock:
            self._shut = shut
            late = self.done
        if late:
            shut()

    def __call__(self) -> None:
        with self.lock:
            self.done = True
            shut = self._shut
        if shut is not None:
            shut()


class BlockingRace:
    """For a caller that blocks its thread: each attempt has a thread of its own, for as long as it takes."""

    def __init__(
        self,
        send: Callable[[Attempt, Abort], Outcome],
        drop: Callable[[Outcome], None],
        *,
        clock: Clock,
    ) -> None:
        self._send = send
        self._drop = drop
        self._clock = clock
        self._running: dict[Attempt, Abort] = {}
        self._outcomes: dict[Attempt, Outcome] = {}
        self._decided: SimpleQueue[tuple[Attempt, Outcome | BaseException]] = SimpleQueue()

    def perform(self, command: Command) -> Decided | float:
        """What a flow asks for."""
        if isinstance(command, Race):
            return self.wait(command.until)
        if isinstance(command, Launch):
            self.launch(command.attempt)
        elif isinstance(command, Abandon):
            self.abandon(command.attempt)
        return self._clock()

    def launch(self, attempt: Attempt) -> None:
        """Start it, and go on."""
        abort = self._running[attempt] = Abort()
        threading.Thread(target=self._run, args=(attempt, abort), name="meshlib-attempt", daemon=True).start()

    def wait(self, until: float | None) -> Decided | float:
        """The first attempt that is decided; the time, if that is `until` before any is.  Raises what an attempt raises."""
        while True:
            try:
                seconds = None if until is None else max(until - self._clock(), 0.0)
                attempt, result = self._decided.get(timeout=seconds)
            except Empty:
                return self._clock()
            if self._running.pop(attempt, None) is None:  # abandoned in the very moment in which it was decided
                self._drop_result(result)
                continue
            if isinstance(result, BaseException):
                raise result
            self._outcomes[attempt] = result
            return Decided(attempt, result)

    def abandon(self, attempt: Attempt) -> None:
        """Its answer is not wanted."""
        outcome = self._outcomes.pop(attempt, None)
        if outcome is not None:
            self._drop(outcome)
            return
        abort = self._running.pop(attempt, None)
        if abort is not None:
            abort()

    def close(self, winner: Outcome | None) -> None:
        """The call is over: everything but the winner's response is given up."""
        for attempt in list(self._running):
            self.abandon(attempt)
        for outcome in self._outcomes.values():
            if outcome is not winner:
                self._drop(outcome)
        while not self._decided.empty():  # decided, and asked for by nobody
            self._drop_result(self._decided.get()[1])

    def _drop_result(self, result: Outcome | BaseException) -> None:
        if isinstance(result, Outcome):
            self._drop(result)

    def _run(self, attempt: Attempt, abort: Abort) -> None:
        result: Outcome | BaseException
        try:
            result = self._send(attempt, abort)
        except BaseException as error:  # the caller's own body failed: it is raised where he waits
            result = error
        with abort.lock:  # whoever aborts it later finds it in the queue
            if not abort.done:
                self._decided.put((attempt, result))
                return
        self._drop_result(result)
