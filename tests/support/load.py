"""Open-loop load: each request starts when its time has come, whatever became of those before it.

A closed loop would slow down together with what it measures, and see a fault of a second as one slow request.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.polling import eventually


@dataclass(frozen=True)
class Result:
    """What became of one request.  ``seconds`` count from when it was due."""

    number: int
    seconds: float
    answer: Any = None
    error: Exception | None = None


class Load:
    """``send(number)`` is called `rate` times a second, from the beginning of the block to its end.

    At the end, what is under way is waited for.
    """

    def __init__(self, send: Callable[[int], Awaitable[Any]], rate: float) -> None:
        self.results: list[Result] = []
        self.sent = 0
        self._send = send
        self._rate = rate
        self._under_way: set[asyncio.Task[None]] = set()
        self._pacing: asyncio.Task[None] | None = None

    @property
    def errors(self) -> list[Exception]:
        return [result.error for result in self.results if result.error is not None]

    async def __aenter__(self) -> Load:
        self._pacing = asyncio.create_task(self._pace())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._pacing is not None
        self._pacing.cancel()
        await asyncio.gather(self._pacing, return_exceptions=True)
        await asyncio.gather(*self._under_way)

    async def more(self, count: int) -> None:
        """Return when `count` further requests, begun from now on, have ended."""
        first = self.sent
        await eventually(lambda: sum(result.number >= first for result in self.results) >= count)

    async def _pace(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            due = began + self.sent / self._rate
            await asyncio.sleep(max(0.0, due - loop.time()))
            task = asyncio.create_task(self._one(self.sent, due))
            self.sent += 1
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _one(self, number: int, due: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            answer = await self._send(number)
        except Exception as error:
            self.results.append(Result(number, loop.time() - due, error=error))
        else:
            self.results.append(Result(number, loop.time() - due, answer))


@asynccontextmanager
async def leaking_nothing() -> AsyncIterator[None]:
    """At the end there are no more files, threads and tasks than there were before; what takes its time is waited for."""
    before = resources()
    yield

    def gone() -> bool:
        now = resources()
        return all(now[kind] <= before[kind] for kind in before)

    try:
        await eventually(gone, seconds=30.0)
    except AssertionError:
        raise AssertionError(f"leaked: {resources()} now, {before} before") from None


def resources() -> dict[str, int]:
    gc.collect()
    return {
        "files": len(list(Path("/proc/self/fd").iterdir())),
        # Those of the loop's own executor come with the first uses of it, and stay.
        "threads": sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate()),
        "tasks": len(asyncio.all_tasks()),
    }
