"""Blocking code in virtual time: threads of which one runs at a time, and only while the event loop waits for it.

So a handler that sleeps for five seconds is set aside until they have passed, and what several handlers do is in the same order
in every run.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")

_local = threading.local()


class Ended(BaseException):
    """Raised in blocking code that still waits when its simulation is over."""


def current_fiber() -> Fiber | None:
    """The fiber whose thread this is."""
    return getattr(_local, "fiber", None)


class Fiber:
    """One thread, and the turns that it and the event loop take."""

    def __init__(self, fibers: Fibers) -> None:
        self.fibers = fibers
        self._turn = threading.Semaphore(0)  # the thread may go on
        self._back = threading.Semaphore(0)  # the loop may go on
        self._job: Callable[[], None] | None = None
        self._asked: Callable[[], None] | None = None  # what the loop is to do once it goes on
        self._ended = False
        self._thread = threading.Thread(target=self._main, name="meshlib-fiber", daemon=True)
        self._thread.start()

    # --- on the loop

    def start(self, job: Callable[[], None]) -> None:
        """Run `job`, which does not raise, until it waits or ends."""
        self._job = job
        self.resume()

    def resume(self) -> None:
        """Let the thread go on until it waits again, or its job is done."""
        if self._ended:
            return
        self._turn.release()
        self._back.acquire()
        asked, self._asked = self._asked, None
        if asked is not None:
            asked()

    @property
    def is_idle(self) -> bool:
        return self._job is None

    def end(self) -> None:
        """Wherever it waits."""
        self._ended = True
        self._turn.release()
        self._thread.join()

    # --- in the thread

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which runs on the loop; this thread is set aside meanwhile."""
        context = copy_context()
        done: list[asyncio.Task[T]] = []

        def begin() -> None:
            task = self.fibers.loop.create_task(work, context=context)
            done.append(task)
            task.add_done_callback(lambda _: self.resume())

        self.then(begin)
        self._back.release()
        self._wait()
        return done[0].result()

    def then(self, asked: Callable[[], None]) -> None:
        """What the loop does once this thread waits again."""
        self._asked = asked

    def _wait(self) -> None:
        self._turn.acquire()
        if self._ended:
            raise Ended

    def _main(self) -> None:
        _local.fiber = self
        try:
            self._wait()
            while True:
                assert self._job is not None
                self._job()
                self._job = None
                self._back.release()
                self._wait()
        except Ended:
            pass


class Fibers:
    """The fibers of one loop.  Idle ones are used again."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._all: list[Fiber] = []

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """The result of a blocking function, called in the context of the running task.

        Cancelled, it runs on by itself, as the thread of a server does whose client has gone.
        """
        future: asyncio.Future[T] = self.loop.create_future()
        context = copy_context()

        def job() -> None:
            try:
                outcome: Callable[[], None] = _result(future, context.run(function, *args))
            except Ended:
                raise
            except BaseException as error:
                outcome = _failure(future, error)
            fiber.then(outcome)

        fiber = self._free()
        fiber.start(job)
        return await future

    def _free(self) -> Fiber:
        for fiber in self._all:
            if fiber.is_idle:
                return fiber
        fiber = Fiber(self)
        self._all.append(fiber)
        return fiber

    def close(self) -> None:
        """End all threads; in one that waits, `Ended` is raised."""
        for fiber in self._all:
            fiber.end()
        self._all.clear()


def _result(future: asyncio.Future[T], value: T) -> Callable[[], None]:
    return lambda: None if future.done() else future.set_result(value)


def _failure(future: asyncio.Future[Any], error: BaseException) -> Callable[[], None]:
    # No future takes a StopIteration.
    raised = RuntimeError(f"a blocking function raised {error!r}") if isinstance(error, StopIteration) else error
    return lambda: None if future.done() else future.set_exception(raised)
