"""Wakes those who watch a store that lives in this process."""

from __future__ import annotations

import asyncio


class Changes:
    """Counts changes.  A watcher that remembers the count it has seen misses none."""

    def __init__(self) -> None:
        self.count = 0
        self._next = asyncio.Event()

    def notify(self) -> None:
        self.count += 1
        woken, self._next = self._next, asyncio.Event()
        woken.set()

    async def after(self, seen: int, timeout: float | None = None) -> None:
        """Return once the count is beyond `seen`, or after `timeout` seconds."""
        if self.count > seen:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._next.wait()
        except TimeoutError:
            pass
