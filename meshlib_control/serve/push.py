"""From a new world to the clients that it concerns: wait for quiet, compile what is held, mark, write."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from meshlib_control.serve.cache import ResourceCache, ScopeResources

logger = logging.getLogger("meshlib_control")

W = TypeVar("W")


class Clients(Protocol):
    """Everybody who is connected."""

    def rebind(self) -> None:
        """Scopes may have changed: give each client the one that it belongs to now."""
        ...

    def mark(self, resources: ScopeResources, type_url: str, names: frozenset[str], /) -> None:
        """Take note that `names` changed; nothing is written yet."""
        ...

    def flush(self) -> None:
        """Begin to write to everyone who has something coming."""
        ...


class Debounce:
    """Istio's: a change is pushed after `quiet` seconds without another, at the latest `longest` after the first."""

    def __init__(self, quiet: float = 0.1, longest: float = 10.0) -> None:
        self._quiet = quiet
        self._longest = longest
        self._first: float | None = None
        self._last = 0.0

    def touch(self, now: float) -> None:
        """Something changed."""
        self._last = now
        if self._first is None:
            self._first = now

    @property
    def due(self) -> float | None:
        """When to push; None: nothing changed."""
        if self._first is None:
            return None
        return min(self._last + self._quiet, self._first + self._longest)

    def pushed(self) -> None:
        """What changed so far is on its way."""
        self._first = None


class PushLoop(Generic[W]):
    """One task.  `publish` may be called as often as the world changes; only the newest one counts."""

    def __init__(self, cache: ResourceCache[W], clients: Clients, debounce: Debounce, *, clock: Callable[[], float]) -> None:
        self._cache = cache
        self._clients = clients
        self._debounce = debounce
        self._clock = clock
        self._newest: tuple[W, str] | None = None
        self._changed = asyncio.Event()
        self.failures: tuple[str, ...] = ()  # what of the newest world could not be compiled
        self.pushed = cache.label  # of the newest world that all streams were marked for

    def publish(self, world: W, label: str = "") -> None:
        """Have `world` pushed, after the debounce; `label` names it to people."""
        self._newest = (world, label)
        self._debounce.touch(self._clock())
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._changed.wait()
            await self._quiet()
            newest, self._newest = self._newest, None
            self._changed.clear()
            self._debounce.pushed()
            if newest is not None:
                await self._push(*newest)

    async def _quiet(self) -> None:
        left = self._left()
        while left > 0:
            await asyncio.sleep(left)
            left = self._left()  # more may have come meanwhile

    def _left(self) -> float:
        due = self._debounce.due
        return 0.0 if due is None else due - self._clock()

    async def _push(self, world: W, label: str) -> None:
        failures: list[str] = []
        update = self._cache.update(world, label)
        if update.everything:
            self._clients.rebind()
        for step in update.steps:
            try:
                self._clients.mark(*step())
            except Exception as error:
                # What cannot be compiled stays as it was; everything else goes on.
                logger.exception("a part of the mesh cannot be compiled, its clients keep what they have")
                failures.append(f"cannot be compiled, clients keep what they have: {type(error).__name__}: {error}")
            await asyncio.sleep(0)
        self.failures = tuple(failures)
        self.pushed = label
        self._clients.flush()
