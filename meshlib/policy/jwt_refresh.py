"""When a key set is fetched again, and for how long one that cannot be refreshed is believed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from meshlib.policy.backoff import Backoff
from meshlib.policy.rng import Rng

COOL_DOWN: Final = 60.0
"""Seconds between attempts that are made because a token named an unknown key: anybody can send such tokens."""

MAX_AGE: Final = 7 * 86400.0
"""Seconds for which the last good keys hold while fetching them fails; Istio's limit."""

RETRY: Final = Backoff(initial=1.0, multiplier=2.0, jitter=0.1, cap=60.0)
"""Between attempts that fail; begins with Envoy's ``failed_refetch_duration``."""

_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Freshness:
    """What happened to one key set so far.  Times in seconds of a monotonic clock; None: never."""

    refresh: float
    fetched: float | None = None
    attempted: float | None = None
    failures: int = 0
    due: float = float("-inf")

    def succeeded(self, now: float, rng: Rng) -> Freshness:
        return replace(
            self, fetched=now, attempted=now, failures=0, due=now + self.refresh * (1 - _JITTER + 2 * _JITTER * rng.random())
        )

    def failed(self, now: float, rng: Rng) -> Freshness:
        failures = self.failures + 1
        return replace(self, attempted=now, failures=failures, due=now + RETRY.delay(failures, rng))

    def hurried(self, now: float) -> Freshness:
        """A key was missing: due at once, unless the last attempt was a moment ago."""
        if self.attempted is None or now - self.attempted < COOL_DOWN:
            return self
        return replace(self, due=now)

    def is_stale(self, now: float) -> bool:
        """Too old to be believed."""
        return self.fetched is None or now - self.fetched > MAX_AGE
