"""When a second copy of a request is worth sending: after a delay, or when it takes longer than most do.

Hedging buys latency with load, so it has a budget of its own: each call earns a share of a copy, each copy spends one.  When
everything is slow, nearly all calls would want a copy; the budget is then what keeps hedging from doubling the load (gRFC A6
throttles hedges for the same reason).
"""

from __future__ import annotations

from bisect import bisect_left

from meshlib.model.outcome import Outcome
from meshlib.model.resilience import Hedging, Resilience

_GROWTH = 1.1
_LEAST = 0.0005
_BOUNDS = tuple(_LEAST * _GROWTH**step for step in range(160))
"""Upper bounds in seconds of the classes that times are counted in: half a millisecond to half an hour, each 10 % wider."""

MINIMUM_SAMPLES = 20
"""Fewer say nothing about a percentile; until then nothing is hedged by it."""

WINDOW = 10.0
"""Seconds after which the older half of the samples is forgotten."""

_SAVINGS = 10.0
"""Copies that a quiet cluster can save up for."""


class Latencies:
    """Times to the response head of one cluster's attempts, in two windows: the one that fills, and the one before it."""

    __slots__ = ("_before", "_before_total", "_known", "_now", "_since", "_total")

    def __init__(self, now: float) -> None:
        self._now = [0] * (len(_BOUNDS) + 1)
        self._total = 0
        self._before: list[int] = [0] * (len(_BOUNDS) + 1)
        self._before_total = 0
        self._since = now
        self._known: tuple[float, float, float] | None = None  # percent, seconds, and the samples up to which that holds

    def add(self, seconds: float, now: float) -> None:
        """An attempt was answered after `seconds`."""
        if now - self._since >= WINDOW:
            stale = now - self._since >= 2 * WINDOW
            self._before, self._before_total = ([0] * len(self._now), 0) if stale else (self._now, self._total)
            self._now, self._total, self._since = [0] * len(self._now), 0, now
            self._known = None
        self._now[bisect_left(_BOUNDS, seconds)] += 1
        self._total += 1

    def percentile(self, percent: float) -> float | None:
        """Seconds within which `percent` of the attempts were answered, to a tenth; None: too few are known.

        Counted anew when there are 2 % more samples than at the last time: every call asks.
        """
        total = self._total + self._before_total
        if total < MINIMUM_SAMPLES:
            return None
        known = self._known
        if known is None or known[0] != percent or total >= known[2]:
            self._known = known = percent, self._counted(percent, total), total * 1.02
        return known[1]

    def _counted(self, percent: float, total: int) -> float:
        rank = percent / 100.0 * total
        seen = 0
        for place, bound in enumerate(_BOUNDS):
            seen += self._now[place] + self._before[place]
            if seen >= rank:
                return bound
        return _BOUNDS[-1]


class Hedger:
    """Of one cluster; outlives snapshots.  ``hedged`` counts copies, ``refused`` those that the budget did not allow."""

    __slots__ = ("_latencies", "_saved", "hedged", "policy", "refused")

    def __init__(self, policy: Hedging, now: float) -> None:
        self.policy = policy
        self.hedged = 0
        self.refused = 0
        self._saved = 1.0
        self._latencies = Latencies(now)

    def begin(self) -> float | None:
        """A call begins, and earns its share of a copy.  Seconds to wait before one is sent; None: none is."""
        self._saved = min(self._saved + self.policy.budget_percent / 100.0, _SAVINGS)
        if self.policy.percentile:
            return self._latencies.percentile(self.policy.percentile)
        return self.policy.delay

    def may_send(self) -> bool:
        """Spend the budget of one copy, if there is any left."""
        if self._saved < 1.0:
            self.refused += 1
            return False
        self._saved -= 1.0
        self.hedged += 1
        return True

    def learn(self, outcome: Outcome, began: float) -> None:
        """How long an attempt took that was answered.  One that failed says nothing about how long answers take."""
        if outcome.reset is None:
            self._latencies.add(outcome.at - began, outcome.at)

    def outrun(self, began: float, now: float) -> None:
        """An attempt was given up because another one was faster: it has taken at least so long.

        Without it the slow ones, which are those that are hedged, would be missing among the times, and the percentile would
        sink until nearly all calls were hedged.
        """
        self._latencies.add(now - began, now)


def hedger_for(before: Hedger | None, resilience: Resilience | None, now: float) -> Hedger | None:
    """The hedger that a cluster asks for: the one before it while the policy is the same."""
    policy = resilience.hedging if resilience is not None else None
    if policy is None:
        return None
    return before if before is not None and before.policy == policy else Hedger(policy, now)
