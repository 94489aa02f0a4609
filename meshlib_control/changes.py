"""Tells those who wait that something in this process has changed.  For one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Changes:
    """Counts changes.  Who remembers the count that he has seen misses none, and may skip some."""

    def __init__(self) -> None:
        self.count = 0
        self._next = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    def notify(self) -> None:
        self.count += 1
        woken, self._next = self._next, asyncio.Event()
        woken.set()
        for listener in self._listeners:
            listener()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Called at each change, for as long as this object lives; must not raise."""
        self._listeners.append(listener)

    async def after(self, seen: int, timeout: float | None = None) -> None:
        """Return once the count is beyond `seen`, or after `timeout` seconds."""
        if self.count > seen:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._next.wait()
        except TimeoutError:
            pass
