"""Requests that wait for a place in the application: in threads and on event loops, first come, first served."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from meshlib.flow.admission import Place
from meshlib.model.inbound_limits import InboundLimits
from meshlib.runtime.fork import forget_in_child


class _Place:
    """`wake` is set by whoever waits, under the lock."""

    __slots__ = ("_lock", "admitted", "multiplexed", "wake")

    def __init__(self, lock: threading.Lock, *, admitted: bool, multiplexed: bool = False) -> None:
        self._lock = lock
        self.admitted = admitted
        self.multiplexed = multiplexed
        self.wake: Callable[[], object] | None = None

    def wait(self, timeout: float | None) -> bool:
        event = threading.Event()
        if not self._sleeps(event.set):
            event.wait(timeout)
        return self.admitted

    async def await_(self, timeout: float | None) -> bool:
        loop, event = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop has been closed, with the request in it, which gives its place back
                loop.call_soon_threadsafe(event.set)

        if not self._sleeps(wake):
            try:
                async with asyncio.timeout(timeout):
                    await event.wait()
            except TimeoutError:
                pass
        return self.admitted

    def _sleeps(self, wake: Callable[[], object]) -> bool:
        """Whether it is admitted already; else `wake` is called when it is."""
        with self._lock:
            self.wake = wake
            return self.admitted


class RequestLimits:
    """The limits of one port (`flow.admission.Admission`).  They may be changed while requests are under way.

    `active`: requests in the application that have a connection each; `streams`: those that share some; `pending`: those that
    wait; `overflow`: how many were sent away, ever
    (Envoy: ``upstream_rq_active``, ``upstream_rq_pending_active``, ``upstream_rq_pending_overflow`` of an inbound cluster).
    """

    def __init__(self, limits: InboundLimits) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[_Place] = deque()
        self.active = 0
        self.streams = 0
        self.overflow = 0
        self.apply(limits)
        forget_in_child(self)

    @property
    def pending(self) -> int:
        return len(self._waiting)

    def apply(self, limits: InboundLimits) -> None:
        """From now on.  Who is in stays in; who waits is let in if there is room now."""
        with self._lock:
            self._max_requests = _bound(limits.max_requests)
            self._max_active = _bound(limits.max_active)
            self._max_pending = _bound(limits.max_pending)
            self._let_in()

    def enter(self, *, multiplexed: bool = False) -> Place | None:
        with self._lock:
            pending = len(self._waiting)
            if self.active + self.streams + pending < self._max_requests:
                if multiplexed:
                    self.streams += 1
                    return _Place(self._lock, admitted=True, multiplexed=True)
                if self.active < self._max_active and not pending:
                    self.active += 1
                    return _Place(self._lock, admitted=True)
                if pending < self._max_pending:
                    place = _Place(self._lock, admitted=False)
                    self._waiting.append(place)
                    return place
            self.overflow += 1
            return None

    def leave(self, place: Place) -> None:
        assert isinstance(place, _Place)
        with self._lock:
            if place.multiplexed:
                self.streams -= 1
            elif place.admitted:
                self.active -= 1
                self._let_in()
            elif place in self._waiting:
                self._waiting.remove(place)

    def forget(self) -> None:
        """In a forked child: what is in flight is in flight in the parent."""
        self._lock = threading.Lock()
        self._waiting.clear()
        self.active = self.streams = 0

    def _let_in(self) -> None:
        while self._waiting and self.active < self._max_active:
            place = self._waiting.popleft()
            place.admitted = True
            self.active += 1
            if place.wake is not None:
                place.wake()


def _bound(limit: int | None) -> int:
    return sys.maxsize if limit is None else limit
