"""Resilience: what keeps a failing or overloaded service from being called too much.  Seconds, shares in percent."""

from __future__ import annotations

from dataclasses import dataclass

from meshlib.model.route import RouteMatch, StringMatch

DEFAULT_URGENCY = 3
"""RFC 9218, section 4.1: of requests that say nothing.  0 is the most urgent, 7 the least."""

LEAST_URGENT = 7


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """Of one process towards one cluster.

    It opens when at least `failure_percent` of no fewer than `min_requests` attempts in the last `window` seconds failed.
    After `open_duration`, twice as long each time that the probes fail but never longer than `max_open_duration`, it lets
    `half_open_requests` attempts through, and closes when all of them succeed.
    """

    failure_percent: float = 50.0
    min_requests: int = 20
    window: float = 10.0
    open_duration: float = 5.0
    max_open_duration: float = 60.0
    half_open_requests: int = 3


@dataclass(frozen=True, slots=True)
class AdaptiveConcurrency:
    """A limit that follows the latency (Envoy ``GradientControllerConfig``, its defaults)."""

    percentile: float = 50.0  # of the latencies, both of a window and of the minimum
    max_limit: int = 1000
    update_interval: float = 0.1
    min_rtt_interval: float = 60.0  # between measurements of the latency without a queue
    min_rtt_requests: int = 50  # of one measurement
    min_rtt_jitter: float = 15.0  # a random part on top of the interval
    min_concurrency: int = 3  # while it is measured, and the smallest limit
    buffer: float = 25.0  # latency above the minimum that is still fine
    fixed_min_rtt: float = 0.0  # 0: it is measured


@dataclass(frozen=True, slots=True)
class Hedging:
    """Another request when the first takes long: after `delay`, or (if not 0) after the `percentile` of recent answers."""

    delay: float = 0.0
    percentile: float = 0.0
    max_requests: int = 2  # at the same time, the first included
    budget_percent: float = 10.0  # additional requests as a share of all


@dataclass(frozen=True, slots=True)
class Resilience:
    """Of calls to one cluster."""

    circuit_breaker: CircuitBreaker | None = None
    adaptive_concurrency: AdaptiveConcurrency | None = None
    hedging: Hedging | None = None


@dataclass(frozen=True, slots=True)
class Callers:
    """Verified callers, by SPIFFE ID without its scheme (``cluster.local/ns/default/sa/web``) or by its namespace."""

    principals: tuple[StringMatch, ...] = ()
    namespaces: tuple[StringMatch, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.principals or self.namespaces)


@dataclass(frozen=True, slots=True)
class PriorityMatch:
    """All that is given must hold: the request, one of the principals, one of the namespaces."""

    request: RouteMatch | None = None
    callers: Callers = Callers()


@dataclass(frozen=True, slots=True)
class PriorityRule:
    """`matches`: any one of them; none: all requests."""

    urgency: int
    matches: tuple[PriorityMatch, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadShedding:
    """Which requests are refused when there is too much to do.

    `priorities`: the first that matches gives the urgency.  The ``priority`` header (RFC 9218) of anybody can lower it, that of
    `trusted` callers raise it, too.  `max_concurrency` 0: no other limit than that of adaptive concurrency.
    """

    max_concurrency: int = 0
    priorities: tuple[PriorityRule, ...] = ()
    trusted: Callers = Callers()
    retry_after: float = 1.0


@dataclass(frozen=True, slots=True)
class ServerResilience:
    """Of requests that a workload serves."""

    name: str  # of the filter
    load_shedding: LoadShedding = LoadShedding()
    adaptive_concurrency: AdaptiveConcurrency | None = None
