"""Token buckets of one limit, by key, in bounded memory.

A bucket is one number: when it would be full again if nothing were taken from now on (GCRA's theoretical arrival time).  It
refills continuously, as Envoy's local rate limit does.

Memory is bounded in a way that nobody can use to get his tokens back: a bucket is forgotten only once it is full, where
forgetting makes no difference.  When there are as many as there may be, requests with further keys share one bucket of the
same size.  So all keys together get at most ``(max_buckets + 1) * (burst + rate * time)``, and no key more than its own.
"""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from meshlib.model.rate_limit import TokenBucket

_LOOKS = 64
"""Entries that are looked at when room is needed: keeps the worst call short; the next call goes on."""

_ROUNDING = 1e-6
"""Of a token: ten steps of 0.1 s have to make a second."""


class Standing(NamedTuple):
    """How a key stands.  Seconds; `wait` 0: a request may pass now.  `left` whole requests; `reset`: until there are more."""

    wait: float
    left: int
    reset: float


class TokenBuckets:
    """Times are monotonic seconds.  Not thread-safe: the owner's lock is around every call."""

    __slots__ = ("_by_time", "_full_at", "_max", "_most", "_shared_full_at", "_slack", "_step", "_window", "overflowed", "size")

    def __init__(self, size: TokenBucket, max_buckets: int) -> None:
        self.overflowed = 0  # requests with a key beyond max_buckets
        self._full_at: dict[Hashable, float] = {}
        self._by_time: list[tuple[float, int, Hashable]] = []  # a heap; times may be too early, never too late
        self._most = 0  # orders keys of the same time
        self._shared_full_at = 0.0
        self._max = max_buckets
        self._measure(size)

    def __len__(self) -> int:
        return len(self._full_at)

    def standing(self, key: Hashable, now: float) -> Standing:
        """Takes nothing."""
        full_at = self._full_at.get(key)
        if full_at is None:
            full_at = now if self._has_room(now) else self._shared_full_at
        behind = full_at - now if full_at > now else 0.0  # seconds until the key's bucket is full
        room = self._window - behind
        wait = self._step - room
        if wait <= self._slack:
            return Standing(0.0, int(room / self._step + _ROUNDING), behind)
        return Standing(wait, 0, wait)

    def take(self, key: Hashable, now: float) -> None:
        """Use a token up; `standing` has said that there is one."""
        full_at = self._full_at.get(key)
        if full_at is not None:
            self._full_at[key] = max(full_at, now) + self._step
        elif self._has_room(now):
            self._full_at[key] = now + self._step
            self._most += 1
            heappush(self._by_time, (now + self._step, self._most, key))
        else:
            self.overflowed += 1
            self._shared_full_at = max(self._shared_full_at, now) + self._step

    def resize(self, size: TokenBucket, max_buckets: int, now: float) -> None:
        """Another limit from now on: each key keeps its share of tokens, as in Envoy when an assignment changes."""
        self._max = max_buckets
        if size == self.size:
            return
        before = self._window
        self._measure(size)
        scale = self._window / before
        self._full_at = {key: now + (at - now) * scale for key, at in self._full_at.items() if at > now}
        self._shared_full_at = now + max(self._shared_full_at - now, 0.0) * scale
        self._by_time = [(at, index, key) for index, (key, at) in enumerate(self._full_at.items())]
        self._most = len(self._by_time)
        heapify(self._by_time)

    def _measure(self, size: TokenBucket) -> None:
        self.size = size
        self._step = size.interval / size.tokens
        self._slack = self._step * _ROUNDING
        self._window = size.burst * self._step

    def _has_room(self, now: float) -> bool:
        """Whether one more key can be told apart; forgets some buckets that are full."""
        due = self._by_time
        for _ in range(_LOOKS):
            if not due or due[0][0] > now:
                break
            _, order, key = heappop(due)
            full_at = self._full_at[key]
            if full_at <= now:
                del self._full_at[key]
            else:
                heappush(due, (full_at, order, key))
        return len(self._full_at) < self._max
