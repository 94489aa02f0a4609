"""Grants of one bucket of a durable quota to the streams of one replica.  Pure.

What a stream is told is how many requests it may let pass in all, so that grants and reports may cross on their way.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from math import ceil, inf

AHEAD = 10.0
"""Seconds of its present traffic that a stream is granted in advance."""

_LEAST = 10  # requests, granted to one of whom nothing is known yet
_SMOOTHING = 0.5
_MEASURABLE = 0.02  # seconds: a process that runs out reports at once


@dataclass(slots=True)
class Taker:
    """One stream.  `granted` and `used` in all since it began; `rate`: requests per second."""

    granted: int = 0
    used: int = 0
    rate: float = 0.0
    told: float = -inf
    uncharged: int = 0  # passed before anything was granted

    @property
    def left(self) -> int:
        return max(self.granted - self.used, 0)


class Grants:
    """Of one bucket in one period."""

    def __init__(self) -> None:
        self.takers: dict[Hashable, Taker] = {}
        self.period = ""
        self.exhausted = False

    def begin(self, period: str) -> bool:
        """Whether this is another period: what is left of the last one's grants is void."""
        if period == self.period:
            return False
        self.period = period
        self.exhausted = False
        for taker in self.takers.values():
            taker.granted = taker.used
        return True

    def heard(self, stream: Hashable, allowed: int, denied: int, elapsed: float, *, known: bool) -> None:
        """A report.  `known`: the stream's process had grants before it, so that what passed is charged already."""
        taker = self.takers.get(stream)
        if taker is None:
            taker = self.takers[stream] = Taker()
            if not known:
                taker.uncharged = allowed
        else:
            taker.used += allowed
        if elapsed >= _MEASURABLE:
            taker.rate += _SMOOTHING * ((allowed + denied) / elapsed - taker.rate)

    def left(self, stream: Hashable) -> int:
        """The stream has ended in good order; what it was granted and has not used."""
        taker = self.takers.pop(stream, None)
        return taker.left if taker is not None else 0

    def wanted(self, remaining: int) -> dict[Hashable, int]:
        """What to grant now, at most, to those who have used half of what they had.  `remaining` of the quota."""
        if not self.takers:
            return {}
        fair = max(remaining // (2 * len(self.takers)), 1)
        wanted = {}
        for stream, taker in self.takers.items():
            ahead = min(max(ceil(taker.rate * AHEAD), _LEAST), fair)
            if taker.left < ahead / 2:
                wanted[stream] = ahead - taker.left
        return wanted

    def grant(self, wanted: dict[Hashable, int], charged: int) -> None:
        """`charged` for all of them together."""
        for stream, number in wanted.items():
            part = min(number, charged)
            charged -= part
            self.takers[stream].granted += part
            if part:
                self.takers[stream].told = -inf
