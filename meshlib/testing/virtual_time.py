"""Time that passes only when everybody waits: an event loop whose timers cost nothing, for coroutines and blocking code alike.

Everything of a simulation runs on one `VirtualLoop`.  When nothing on it is ready, the clock jumps to its next timer.  Who is
not on that loop asks `VirtualTime.run` (blocking callers, any thread) or `VirtualTime.arun` (coroutines of other loops); it is
driven by whoever needs something of it, one at a time, and has no thread of its own.

Time waits for real work: threads of executors, and of AnyIO (endpoints of Starlette and FastAPI that are no coroutines).  While
an application has sockets of its own open, time passes as it really does.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor, Future
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar, TypeVarTuple, Unpack

from meshlib.testing.fibers import Fibers, current_fiber
from meshlib.testing.static import FakeClock

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SILENCE = 5.0
"""Real seconds without anything to do or to wait for, after which nothing is expected to come."""

QUIET_TURNS = 16
"""Turns of another event loop in which nothing new was asked for, after which its coroutines are all taken to be waiting."""

_POLL = 0.0005  # real seconds between two looks at work that other threads do

_SERVED: ContextVar[object] = ContextVar("meshlib_served_in_virtual_time", default=None)
"""Set in what a simulation runs, and in the threads that it hands work to."""


class Stalled(RuntimeError):
    """Somebody waits, and nothing is left that could happen."""


class _Limiter(Protocol):
    """AnyIO's limiter of threads."""

    @property
    def borrowed_tokens(self) -> float: ...


class _Waiting(selectors.BaseSelector):
    """Where the loop waits: for real events if there are any to come, else by moving the clock."""

    def __init__(self, clock: FakeClock) -> None:
        self.loop: VirtualLoop | None = None
        self._clock = clock
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = self._real.select(0)
        loop = self.loop
        assert loop is not None
        ready = bool(events) or (timeout is not None and timeout <= 0)
        if loop.stepping:
            loop.stop()
            loop.progressed = ready
            if not ready and timeout is not None and loop.may_jump:
                loop.progressed = True
                self._jump(timeout)
            return events
        if ready:
            return events
        if loop.working:
            return self._real.select(None)
        if self._has_sockets():
            return self._really(timeout)
        if timeout is None:
            events = self._real.select(SILENCE)
            if not events:
                raise Stalled(
                    "somebody waits for something that nobody is going to do: no call, timer, thread or socket of this "
                    "simulation is left; look for an event or a queue that is never filled"
                )
            return events
        self._jump(timeout)
        return []

    def _jump(self, seconds: float) -> None:
        self._clock.now = round(self._clock.now + seconds, 9)

    def _really(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        began = time.monotonic()
        events = self._real.select(timeout)
        self._jump(time.monotonic() - began if events or timeout is None else timeout)
        return events

    def _has_sockets(self) -> bool:
        return len(self._real.get_map()) > 1  # one is the loop's own, by which threads wake it

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on `clock`."""

    def __init__(self, clock: FakeClock) -> None:
        self._waiting = _Waiting(clock)
        self._clock = clock
        self._executing = 0
        self._limiters: list[_Limiter] = []
        self.waiters = 0  # threads among those at work that wait for this loop themselves
        self.stepping = False  # one turn at a time
        self.may_jump = False  # of a step: the clock may move
        self.progressed = False  # the last step had something to do
        super().__init__(self._waiting)
        self._waiting.loop = self

    def time(self) -> float:
        return self._clock.now

    def run_in_executor(self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        """As always; the clock stands still until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self._executing += 1
        future.add_done_callback(self._executed)
        return future

    def _executed(self, _: object) -> None:
        self._executing -= 1

    def know_threads(self) -> None:
        """Called in a task that runs an application: from now on the clock waits for AnyIO's threads, if it has any."""
        if "anyio" in sys.modules and not self._limiters:
            from anyio import to_thread

            self._limiters.append(to_thread.current_default_thread_limiter())

    @property
    def working(self) -> bool:
        """Whether a thread is at work, from which something may come."""
        threads = self._executing + sum(limiter.borrowed_tokens for limiter in self._limiters)
        return threads > self.waiters


class VirtualTime:
    """A clock, its loop, and the ways to them.  `close` it."""

    def __init__(self, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.loop = VirtualLoop(self.clock)
        self.fibers = Fibers(self.loop)
        self._changed = threading.Condition()
        self._driving = False
        self._quiet = 0  # turns of another loop without anything new
        self._elsewhere: dict[asyncio.AbstractEventLoop, int] = {}  # how many calls are awaited on other loops

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which runs on the loop; blocks the calling thread meanwhile."""
        fiber = current_fiber()
        if fiber is not None and fiber.fibers is self.fibers:
            return fiber.run(work)
        running = asyncio._get_running_loop()
        if running is self.loop:
            work.close()
            raise RuntimeError(
                "a blocking call in a coroutine would stop the event loop that everybody in the simulation shares: "
                "use an asynchronous client there, or make the function a plain `def`"
            )
        if running is not None:
            return self._beside(work)
        return self._until(asyncio.run_coroutine_threadsafe(work, self.loop))

    async def arun(self, work: Coroutine[Any, Any, T]) -> T:
        """`run` for coroutines, on whatever event loop they are."""
        running = asyncio.get_running_loop()
        if running is self.loop:
            return await work
        fiber = current_fiber()
        if fiber is not None and fiber.fibers is self.fibers:
            return fiber.run(work)
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        self.attend(running)
        try:
            return await asyncio.wrap_future(future)
        finally:
            self.leave(running)

    def attend(self, running: asyncio.AbstractEventLoop) -> None:
        """On `running`: something is awaited there, so drive the loop until as many `leave`."""
        self._quiet = 0
        awaited = self._elsewhere.get(running)
        self._elsewhere[running] = (awaited or 0) + 1
        if awaited is None:
            running.call_soon(self._step, running)

    def leave(self, running: asyncio.AbstractEventLoop) -> None:
        """It has come, or was given up."""
        self._elsewhere[running] -= 1

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass, and everything happen that is due meanwhile."""
        self.run(asyncio.sleep(seconds))

    async def asleep(self, seconds: float) -> None:
        """`sleep` for coroutines."""
        await self.arun(asyncio.sleep(seconds))

    def settle(self) -> None:
        """Let everything happen that can without time passing.  Does nothing in the midst of what happens."""
        if asyncio._get_running_loop() is not None or current_fiber() is not None or self.loop.is_closed():
            return
        with self._changed:
            if self._driving:
                return
            self._driving = True
        loop = self.loop
        loop.stepping, loop.may_jump = True, False
        try:
            loop.run_forever()
            while loop.progressed:
                loop.run_forever()
        finally:
            loop.stepping = False
            with self._changed:
                self._driving = False
                self._changed.notify_all()

    def close(self) -> None:
        """End what still runs, and its threads."""
        if self.loop.is_closed():
            return
        self.fibers.close()
        self._finish(self._cancel_all())
        self._finish(self.loop.shutdown_asyncgens())
        self._finish(self.loop.shutdown_default_executor())
        self.loop.close()

    # --- driving the loop

    def _until(self, future: Future[T]) -> T:
        """Drive the loop, or wait for whoever drives it, until `future` is done."""
        loop, changed = self.loop, self._changed
        with changed:
            if self._driving:
                if _SERVED.get() is not None:
                    loop.waiters += 1
                    future.add_done_callback(self._back_at_work)
                    loop.call_soon_threadsafe(_look_again)
                future.add_done_callback(self._tell)
                changed.wait_for(lambda: future.done() or not self._driving)
            if future.done():
                return future.result()
            self._driving = True
        try:
            future.add_done_callback(lambda _: loop.stop())
            while not future.done():
                loop.run_forever()
        except BaseException:
            future.cancel()
            raise
        finally:
            with changed:
                self._driving = False
                changed.notify_all()
        return future.result()

    def _back_at_work(self, _: object) -> None:
        # On the loop, before it may move the clock again: the thread itself may take a while to notice.
        with self._changed:
            self.loop.waiters -= 1

    def _tell(self, _: object) -> None:
        with self._changed:
            self._changed.notify_all()

    def _beside(self, work: Coroutine[Any, Any, T]) -> T:
        """Blocking, in a thread where another event loop runs: that one is stopped by it, as by every blocking call."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        thread = threading.Thread(target=self._attend, args=(future,), name="meshlib-virtual-time")
        thread.start()
        thread.join()
        return future.result()

    def _attend(self, future: Future[Any]) -> None:
        try:
            self._until(future)
        except BaseException:
            if not future.done():
                raise
            # It is the caller's to see.

    def _step(self, running: asyncio.AbstractEventLoop) -> None:
        """One turn of our loop in a callback of another one, which comes back as long as something is awaited there."""
        if not self._elsewhere[running]:
            del self._elsewhere[running]
            return
        with self._changed:
            mine = not self._driving
            self._driving = True
        if not mine:
            running.call_later(_POLL, self._step, running)
            return
        loop = self.loop
        loop.stepping = True
        loop.may_jump = self._quiet >= QUIET_TURNS and not loop.working
        asyncio._set_running_loop(None)
        try:
            loop.run_forever()
        finally:
            asyncio._set_running_loop(running)
            loop.stepping = False
            with self._changed:
                self._driving = False
                self._changed.notify_all()
        self._quiet = 0 if loop.progressed else self._quiet + 1
        if self._quiet > QUIET_TURNS:  # no timer is left: somebody else has to do something
            running.call_later(_POLL, self._step, running)
        else:
            running.call_soon(self._step, running)

    def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        self.run(work)

    async def _cancel_all(self) -> None:
        current = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _look_again() -> None:
    """What the loop does who waits for a thread that, it turns out, waits for the loop."""


def serving() -> None:
    """Mark what runs from here on as part of a simulation (in the context of the running task)."""
    _SERVED.set(True)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.know_threads()
