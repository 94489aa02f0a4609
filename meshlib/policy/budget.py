"""Retry budget: how many retries a cluster may have under way (Envoy ``CircuitBreakers.Thresholds.RetryBudget``).

A share of what is in flight is no bound where little is in flight: then Envoy's floor of three retries at the same time lets
every failure be tried again, three attempts for each call while everything fails.  So the floor has a price here, as the whole
budget has one in Finagle and gRPC (gRFC A6): `FloorCredit`.
"""

from __future__ import annotations

from meshlib.model.cluster import CircuitBreakers

FLOOR_RETRIES = 10
"""Retries that each place of the floor is good for when nothing is known yet, and the most that it saves up."""

FLOOR_RATE = 0.1
"""Retries a second that each place of the floor is good for at any time: who calls once in a while is no storm."""


def allowed_retries(breakers: CircuitBreakers, active_requests: int) -> int:
    """A share of the requests in flight, but always `min_retry_concurrency`; and never more than `max_retries`.

    Against Istio, which ships two retries and no budget: with everything failing, amplification stays near 1.2, not 3.
    """
    share = int(breakers.retry_budget_percent / 100.0 * active_requests)
    return min(max(share, breakers.min_retry_concurrency), breakers.max_retries)


def may_retry(breakers: CircuitBreakers, active_requests: int, active_retries: int) -> bool:
    """Whether there is room for one more."""
    return active_retries < allowed_retries(breakers, active_requests)


def within_share(breakers: CircuitBreakers, active_requests: int, active_retries: int) -> bool:
    """Whether there is room for one more without the floor."""
    share = int(breakers.retry_budget_percent / 100.0 * active_requests)
    return active_retries < min(share, breakers.max_retries)


class FloorCredit:
    """Retries that may be made within `min_retry_concurrency` of one cluster.

    Attempts that went well earn them, just so many that each failure can be tried again while the budget's percentage of all
    attempts fails.  When everything fails, hardly any are left after the first `FLOOR_RETRIES` for each place of the floor.
    Nothing is counted while all goes well: successes are what was attempted and did not fail since somebody last asked.
    """

    __slots__ = ("_asked", "_attempted", "_left", "failed")

    def __init__(self, breakers: CircuitBreakers, now: float) -> None:
        self.failed = 0  # attempts, since somebody last asked
        self._left = float(FLOOR_RETRIES * breakers.min_retry_concurrency)
        self._attempted = 0
        self._asked = now

    def spend(self, breakers: CircuitBreakers, attempted: int, now: float) -> bool:
        """Take one retry, if there is one.  `attempted`: attempts of the cluster so far."""
        floor, share = breakers.min_retry_concurrency, min(breakers.retry_budget_percent / 100.0, 0.99)
        succeeded = max(attempted - self._attempted - self.failed, 0)
        earned = succeeded * share / (1.0 - share * share) + (now - self._asked) * FLOOR_RATE * floor
        self._left = min(self._left + earned, float(FLOOR_RETRIES * floor))
        self._attempted, self._asked, self.failed = attempted, now, 0
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
