"""What is worth telling the control service: what is out of order now, and what was refused a moment ago."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Final

from meshlib.flow.guarding import breaker_of, concurrency_of
from meshlib.flow.limiting import Limiting
from meshlib.flow.upstream import Upstream
from meshlib.model.report import ClusterReport, EndpointReport, LimitReport, Report
from meshlib.policy.balancing import Host
from meshlib.policy.circuit_breaker import State
from meshlib.policy.rng import Rng

MAX_CLUSTERS: Final = 200
MAX_ENDPOINTS: Final = 1000
"""Of one report, in all its clusters."""

MAX_LIMITS: Final = 200

LINGER: Final = 10.0
"""Seconds that a cluster or limit stays in reports after the last refusal."""


class Noteworthy:
    """Of one process.  Each part is looked at under its own lock; `report` puts together what was found.

    Without anything wrong, a look at a cluster is a handful of comparisons.
    """

    def __init__(self) -> None:
        self._refusals: dict[str, tuple[int, float]] = {}  # how many, and when that has changed
        self._clusters: list[ClusterReport] = []
        self._limits: list[LimitReport] = []
        self._endpoints = 0
        self._truncated = False

    def look_at(self, upstream: Upstream, rng: Rng, now: float) -> None:
        """A cluster.  Under the lock of policy state."""
        upstream.catch_up(rng, now)
        endpoints = list(_endpoints(upstream, now))
        breaker = breaker_of(upstream)
        broken = breaker is not None and breaker.state is not State.CLOSED
        recent = self._is_recent(f"cluster {upstream.name}", _refused(upstream), now)
        if not endpoints and not broken and not recent:
            return
        room = MAX_ENDPOINTS - self._endpoints
        if len(self._clusters) >= MAX_CLUSTERS:
            self._truncated = True
            return
        self._truncated = self._truncated or len(endpoints) > room
        self._endpoints += min(len(endpoints), room)
        self._clusters.append(_cluster(upstream, tuple(endpoints[:room]), now))

    def look_at_limits(self, limiting: Limiting, side: str, now: float) -> None:
        """The rate limits of one side.  Under their lock."""
        for limiter in limiting.limiters.all:
            if not self._is_recent(f"{side} limit {limiter.id}", limiter.limited + limiter.would_limit, now):
                continue
            if len(self._limits) >= MAX_LIMITS:
                self._truncated = True
                return
            self._limits.append(LimitReport(limiter.id, side, limiter.allowed, limiter.limited, limiter.would_limit))

    def report(self) -> Report:
        """What was found since the last report; the next one begins anew."""
        made = Report(tuple(self._clusters), tuple(self._limits), self._truncated)
        self._clusters, self._limits, self._endpoints, self._truncated = [], [], 0, False
        return made

    def keep(self, clusters: frozenset[str]) -> None:
        """Forget what is no cluster any more."""
        gone = [key for key in self._refusals if key.startswith("cluster ") and key.removeprefix("cluster ") not in clusters]
        for key in gone:
            del self._refusals[key]

    def _is_recent(self, key: str, count: int, now: float) -> bool:
        if not count:
            return False
        known = self._refusals.get(key)
        if known is None or known[0] != count:
            known = self._refusals[key] = count, now
        return now - known[1] < LINGER


def outline(report: Report) -> object:
    """What makes two reports say the same to people, whatever the counts: a change of it is told at once."""
    clusters = [
        (each.name, each.circuit_breaker, [(endpoint.address, endpoint.state, endpoint.reason) for endpoint in each.endpoints])
        for each in report.clusters
    ]
    return clusters, [(each.id, each.side) for each in report.limits]


def _endpoints(upstream: Upstream, now: float) -> Iterator[EndpointReport]:
    detector, reachability = upstream.detector, upstream.reachability
    ejections = detector is not None and detector.ejections_active
    if not ejections and not reachability.refused_by and not upstream.cluster.health_checks:
        return
    for host in upstream.hosts.values():
        if host.ejected and detector is not None:
            cause = host.detection.cause
            yield EndpointReport(host.key, "ejected", cause.value if cause is not None else "", detector.remaining(host, now))
        elif host.failed_check and not _is_new(host):
            yield EndpointReport(host.key, "failed check")
        elif reachability.avoids(host, now):
            refusals, until = reachability.refused_by[host]
            yield EndpointReport(host.key, "refusing", f"refused {refusals} in a row", min(until - now, inf))


def _is_new(host: Host) -> bool:
    """Not checked yet: nothing is known against it."""
    return host.checking is not None and bool(host.checking.first)


def _refused(upstream: Upstream) -> int:
    """A number that grows with everything that is refused.  That requests are tried again is no news."""
    counts = upstream.counts
    refused = sum(guard.rejected for guard in (breaker_of(upstream), concurrency_of(upstream)) if guard is not None)
    return counts.retry_overflow + counts.pending_overflow + refused


def _cluster(upstream: Upstream, endpoints: tuple[EndpointReport, ...], now: float) -> ClusterReport:
    breaker, limit, counts, hedger = breaker_of(upstream), concurrency_of(upstream), upstream.counts, upstream.hedger
    return ClusterReport(
        upstream.name,
        endpoints,
        circuit_breaker=breaker.state.value if breaker is not None else "",
        circuit_breaker_left=breaker.retry_after(now) if breaker is not None else 0.0,
        circuit_breaker_rejected=breaker.rejected if breaker is not None else 0,
        concurrency_limit=limit.controller.limit if limit is not None else 0,
        concurrency_rejected=limit.rejected if limit is not None else 0,
        active_requests=upstream.active,
        active_retries=upstream.active_retries,
        allowed_retries=upstream.allowed_retries,
        retries=counts.retry,
        retry_overflow=counts.retry_overflow,
        pending_overflow=counts.pending_overflow,
        hedges=hedger.hedged if hedger is not None else 0,
        hedges_refused=hedger.refused if hedger is not None else 0,
    )
