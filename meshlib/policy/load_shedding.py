"""Load shedding: which requests a process refuses when it has as much to do as it can, the less urgent first.

Every urgency has its share of the limit.  The default one has nine tenths: the rest is kept for what is more urgent, so that a
flood of ordinary requests does not shut out health checks and payments.  The less urgent a request is, the sooner it is
refused.  Nothing waits here: a request that is refused at once can be made elsewhere, one that waits cannot.
"""

from __future__ import annotations

import sys
from math import ceil
from typing import NamedTuple

from meshlib.model.resilience import LEAST_URGENT, AdaptiveConcurrency, LoadShedding
from meshlib.policy.adaptive_concurrency import GradientController
from meshlib.policy.rng import Rng

SHARES = (1.0, 0.98, 0.95, 0.9, 0.75, 0.6, 0.45, 0.3)
"""Of the limit, by urgency."""

QUIET = 5.0
"""Seconds without a refusal after which an overload is over."""


class Entered(NamedTuple):
    """A request that was let in: when, and by which controller (None: there was none)."""

    at: float
    controller: GradientController | None


class LoadShedder:
    """Of one port.  `apply` changes its policy while requests are under way.

    ``active``: requests in the application; ``admitted`` and ``shed`` count them, the latter by urgency, ever; ``shedding``:
    since when requests have been refused, 0 while none are.
    """

    __slots__ = ("_last", "_limit", "active", "admitted", "controller", "shed", "shedding")

    def __init__(self) -> None:
        self.active = 0
        self.admitted = 0
        self.shed = [0] * (LEAST_URGENT + 1)
        self.shedding = 0.0
        self.controller: GradientController | None = None
        self._limit = sys.maxsize
        self._last = 0.0  # refusal

    @property
    def limit(self) -> int:
        """Requests at the same time, of the most urgent kind."""
        return self._limit if self.controller is None else min(self._limit, self.controller.limit)

    def apply(self, policy: LoadShedding, adaptive: AdaptiveConcurrency | None) -> None:
        """From now on.  What was learned about latency is kept unless its policy changed."""
        self._limit = policy.max_concurrency or sys.maxsize
        if adaptive is None:
            self.controller = None
        elif self.controller is None or self.controller.policy != adaptive:
            self.controller = GradientController(adaptive)

    def places(self, urgency: int) -> int:
        """How many requests there may be for one of this urgency to come in."""
        limit = self.limit
        return limit if limit == sys.maxsize else ceil(limit * SHARES[urgency])

    def enter(self, urgency: int, now: float) -> Entered | None:
        """None: there is no place for it."""
        controller, limit = self.controller, self._limit
        if controller is not None and controller.limit < limit:
            limit = controller.limit
        if self.active >= limit * SHARES[urgency]:  # as `places`: what is less than a share is less than its ceiling
            self.shed[urgency] += 1
            self._last = now
            if not self.shedding:
                self.shedding = now
            return None
        self.active += 1
        self.admitted += 1
        if controller is not None:
            controller.enter(now)
        return Entered(now, controller)

    def leave(self, entered: Entered, now: float, rng: Rng, *, sampled: bool = True) -> None:
        """A request has ended; not `sampled`: how long it took says nothing about the load."""
        self.active -= 1
        if entered.controller is not None:
            entered.controller.leave(now, entered.at, rng, sampled=sampled)

    def recovered(self, now: float) -> bool:
        """Whether an overload has just been found to be over."""
        if not self.shedding or now - self._last < QUIET:
            return False
        self.shedding = 0.0
        return True
