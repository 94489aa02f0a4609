"""What changed by itself while calls went on: an endpoint ejected, a breaker opened, a limit reached, a quota assigned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Event:
    """`name` in dotted words: ``outlier_detection.ejected``, ``circuit_breaker.opened``, ``health_check.failed`` ...

    `at`: seconds on the clock that flows are driven with.  `reason`: Envoy's word for it where there is one
    (``consecutive_5xx``), else a few words for people.
    """

    name: str
    at: float
    cluster: str = ""
    endpoint: str = ""
    reason: str = ""

    def __str__(self) -> str:
        """One line for people: ``outlier_detection.ejected 10.0.0.1:80 of outbound|80||reviews (consecutive_5xx)``."""
        what = " of ".join(part for part in (self.endpoint, self.cluster) if part)
        return " ".join(part for part in (self.name, what, f"({self.reason})" if self.reason else "") if part)


Emit = Callable[[Event], None]
"""Called under the lock of the mesh's policy state: it only takes note, and never waits."""

EVENTS: Final[Mapping[str, str]] = {
    "outlier_detection.ejected": "an endpoint stands out by its failures and is left out for a while",
    "outlier_detection.detected": "it does, but its kind of detection is not enforced (this time)",
    "outlier_detection.unejected": "it is back",
    "health_check.failed": "an active health check went wrong",
    "health_check.passed": "the first one, or one that begins a change, went well",
    "health_check.unhealthy": "an endpoint counts as unhealthy by its health checks from now on",
    "health_check.healthy": "it counts as healthy again",
    "circuit_breaker.opened": "too large a share of attempts failed: the next ones are refused at once",
    "circuit_breaker.half_opened": "its time is over, probes are let through",
    "circuit_breaker.closed": "they went well",
    "retry_budget.exhausted": "a retry that its policy wants is not made: too many are under way",
    "connection_pool.overflow": "a request is refused: maxRequests, maxConnections or the pending requests are at their limit",
    "rate_limit.limited": "a rate limit refuses again after a while without a refusal",
    "quota.assigned": "the control service has given this process a share of a limit, or a grant of a quota",
    "quota.abandoned": "a limit is not shared any more: its policy has changed",
    "load_shedding.started": "this process has more to do than it can, and refuses what is less urgent",
    "load_shedding.ended": "it has not had to for some seconds",
    "mirroring.dropped": "a copy for a mirror is not sent: too many are under way",
}
"""All names that there are, and what they mean."""

ALARMING: Final = frozenset(
    {
        "outlier_detection.ejected",
        "health_check.unhealthy",
        "circuit_breaker.opened",
        "retry_budget.exhausted",
        "connection_pool.overflow",
        "load_shedding.started",
        "mirroring.dropped",
    }
)
"""Those that somebody might want to look into."""

FREQUENT: Final = frozenset({"health_check.failed", "health_check.passed", "outlier_detection.detected", "quota.assigned"})
"""Those that come in the normal course of things."""


class Throttle:
    """At most one event of a kind within `interval` seconds: what happens once may happen a thousand times a second."""

    __slots__ = ("_interval", "_last")

    def __init__(self, interval: float = 1.0) -> None:
        self._interval = interval
        self._last: float | None = None

    def lets(self, now: float) -> bool:
        """Whether to speak of it now; counts as having done so."""
        if self._last is not None and now - self._last < self._interval:
            return False
        self._last = now
        return True
