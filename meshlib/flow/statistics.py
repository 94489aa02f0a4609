"""What is known of clusters, limits and ports, as samples of metrics.  Called under the lock that their state has."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from meshlib.flow.guarding import breaker_of, concurrency_of
from meshlib.flow.limiting import Limiting
from meshlib.flow.shedding import Shedding
from meshlib.flow.upstream import Upstream
from meshlib.model.cluster import UNLIMITED
from meshlib.model.endpoint import Health
from meshlib.policy.circuit_breaker import State
from meshlib.policy.health_checking import is_known_healthy
from meshlib.policy.quota import SharedLimit
from meshlib.telemetry import catalogue as known
from meshlib.telemetry.metrics import Sample


def upstream_samples(upstream: Upstream, now: float) -> Iterator[Sample]:
    """Of one cluster."""
    yield from _membership(upstream, now)
    yield from _requests(upstream)
    name = upstream.name
    if upstream.detector is not None:
        for statistic, value in upstream.detector.stats.items():
            yield known.EJECTIONS[statistic].of(value, name)
    checks = upstream.checks
    if upstream.cluster.health_checks:
        yield known.CHECKS_ATTEMPTED.of(checks.attempt, name)
        yield known.CHECKS_PASSED.of(checks.success, name)
        yield known.CHECKS_FAILED.of(checks.failure, name)
        yield known.CHECKS_UNANSWERED.of(checks.network_failure, name)
        yield known.CHECKS_HEALTHY.of(sum(map(is_known_healthy, upstream.hosts.values())), name)
    yield from _guards(upstream)
    if upstream.hedger is not None:
        yield known.HEDGES.of(upstream.hedger.hedged, name)
        yield known.HEDGES_REFUSED.of(upstream.hedger.refused, name)


def _membership(upstream: Upstream, now: float) -> Iterator[Sample]:
    name, hosts = upstream.name, upstream.hosts.values()
    health = [host.health for host in hosts]
    yield known.MEMBERSHIP_TOTAL.of(len(health), name)
    yield known.MEMBERSHIP_HEALTHY.of(health.count(Health.HEALTHY), name)
    yield known.MEMBERSHIP_DEGRADED.of(health.count(Health.DEGRADED), name)
    excluded = sum(host.failed_check and host.checking is not None and host.checking.first for host in hosts)
    yield known.MEMBERSHIP_EXCLUDED.of(excluded, name)
    refusing = upstream.reachability.refused_by
    yield known.UNREACHABLE.of(sum(upstream.reachability.avoids(host, now) for host in refusing), name)


def _requests(upstream: Upstream) -> Iterator[Sample]:
    name, counts, breakers = upstream.name, upstream.counts, upstream.cluster.circuit_breakers
    remaining = max(upstream.allowed_retries - upstream.active_retries, 0)
    yield known.REQUESTS_ACTIVE.of(upstream.active, name)
    yield known.RETRIES.of(counts.retry, name)
    yield known.RETRY_OVERFLOW.of(counts.retry_overflow, name)
    yield known.PENDING_OVERFLOW.of(counts.pending_overflow, name)
    if breakers.max_requests < UNLIMITED:
        yield known.REQUESTS_OPEN.of(upstream.active >= breakers.max_requests, name)
    yield known.RETRIES_OPEN.of(not remaining, name)
    yield known.REMAINING_RETRIES.of(remaining, name)


def _guards(upstream: Upstream) -> Iterator[Sample]:
    name, breaker, limit = upstream.name, breaker_of(upstream), concurrency_of(upstream)
    if breaker is not None:
        for state in State:
            yield known.BREAKER_STATE.of(breaker.state is state, name, state.value)
        yield known.BREAKER_OPENED.of(breaker.opened, name)
        yield known.BREAKER_REJECTED.of(breaker.rejected, name)
        yield known.BREAKER_FAILURES.of(breaker.failure_percent, name)
    if limit is not None:
        yield known.CONCURRENCY_LIMIT.of(limit.controller.limit, name)
        yield known.CONCURRENCY_ACTIVE.of(limit.controller.active, name)
        yield known.CONCURRENCY_REJECTED.of(limit.rejected, name)
        yield known.CONCURRENCY_MIN_RTT.of(limit.controller.min_rtt, name)


def limit_samples(limiting: Limiting, side: str, now: float) -> Iterator[Sample]:
    """Of the rate limits of one side of a process: ``client`` or ``server``."""
    for limiter in limiting.limiters.all:
        labels = (limiter.id, side)
        yield known.LIMIT_ALLOWED.of(limiter.allowed, *labels)
        yield known.LIMIT_LIMITED.of(limiter.limited, *labels)
        yield known.LIMIT_WOULD.of(limiter.would_limit, *labels)
        counter = limiter.counter
        if not isinstance(counter, SharedLimit):
            yield known.LIMIT_OVERFLOWED.of(limiter.overflowed, *labels)
            continue
        yield known.LIMIT_OVERFLOWED.of(counter.overflowed, *labels)
        shares = counter.shares(now)
        yield known.QUOTA_BUCKETS.of(shares.assigned, *labels, "assigned")
        yield known.QUOTA_BUCKETS.of(shares.unassigned, *labels, "unassigned")
        if limiter.limit.quota is None:
            yield known.QUOTA_SHARE.of(shares.per_second, *labels)
        else:
            yield known.QUOTA_GRANTED.of(shares.granted, *labels)


def shedding_samples(shedding: Shedding, port: int) -> Iterator[Sample]:
    """Of one served port."""
    shedder, label = shedding.shedder, str(port)
    for urgency, count in enumerate(shedder.shed):
        yield known.SHED.of(count, label, str(urgency))
    yield known.SHEDDING.of(shedder.shedding > 0.0, label)
    yield known.SERVED_ACTIVE.of(shedder.active, label)
    if shedder.limit != sys.maxsize:
        yield known.SERVED_LIMIT.of(shedder.limit, label)
