"""ResiliencePolicies → clusters, routes and inbound listeners.

What Envoy has too goes into its own fields, for all who execute them: retry budgets and timeouts.  What only meshlib's data
plane executes goes to it alone: circuit breakers by failure rate, adaptive concurrency, hedging, load shedding.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from meshlib.xds.proto import cluster_pb2, core_pb2, listener_pb2, resilience_pb2, route_pb2
from meshlib.xds.types import pack
from meshlib_control.catalog.model import Service
from meshlib_control.compile.authz_matchers import string
from meshlib_control.compile.matches import route_match
from meshlib_control.compile.names import parse_cluster_name
from meshlib_control.compile.node import Scope
from meshlib_control.compile.retry_policy import duration
from meshlib_control.compile.world import World
from meshlib_control.config.kinds import HTTPMatchRequest, ResiliencePolicy
from meshlib_control.config.kinds.resilience_policy import (
    AdaptiveConcurrency,
    CircuitBreaker,
    Hedging,
    LoadShedding,
    LoadSheddingMatch,
)

CLUSTER_OPTIONS: Final = "meshlib.resilience"
"""Key of ``Cluster.typed_extension_protocol_options``."""

FILTER: Final = "meshlib.filters.http.resilience"
"""Name of the filter of inbound listeners."""

_Shedding = resilience_pb2.LoadShedding


def set_resilience(result: cluster_pb2.Cluster, world: World, scope: Scope, service: Service) -> None:
    """What a policy says of calls to a service, on the cluster of one of its ports or subsets."""
    policy = world.resilience_policies.holding_for(service, scope.namespace)
    if policy is None:
        return
    if policy.retry_budget is not None:
        for thresholds in result.circuit_breakers.thresholds:
            thresholds.retry_budget.budget_percent.value = policy.retry_budget.percent
            thresholds.retry_budget.min_retry_concurrency.value = policy.retry_budget.min_retry_concurrency
    if scope.flavour == "meshlib" and result.type != cluster_pb2.Cluster.ORIGINAL_DST:
        message = _cluster_resilience(policy)
        if message.ByteSize():
            result.typed_extension_protocol_options[CLUSTER_OPTIONS].CopyFrom(pack(message))


def set_time_limits(action: route_pb2.RouteAction, world: World, scope: Scope) -> None:
    """The policies of the hosts that a route leads to bound its timeouts; the tightest holds.

    Not for grpcio, whose timers from xDS fire too early to be of use.
    """
    if scope.flavour == "grpc":
        return
    held = list(_policies(action, world, scope))
    timeouts = [policy.timeout for policy in held if policy.timeout is not None]
    tries = [policy.per_try_timeout for policy in held if policy.per_try_timeout is not None]
    if not action.HasField("retry_policy"):
        timeouts += tries  # the only try is the call
    elif tries:
        own = action.retry_policy.per_try_timeout
        if not own.ToTimedelta() or own.ToTimedelta().total_seconds() > min(tries):
            own.CopyFrom(duration(min(tries)))
    if timeouts:
        written = action.timeout.ToTimedelta().total_seconds()
        if not written or min(timeouts) < written:
            action.timeout.CopyFrom(duration(min(timeouts)))
            action.max_grpc_timeout.CopyFrom(duration(min(timeouts)))


def inbound_resilience(world: World, scope: Scope) -> list[listener_pb2.HttpFilter]:
    """The filter of the ports that workloads of this scope serve; none without a policy."""
    if scope.flavour != "meshlib":
        return []
    policy = world.resilience_policies.for_workload(scope.namespace, dict(scope.labels))
    if policy is None:
        return []
    message = resilience_pb2.ServerResilience()
    if policy.adaptive_concurrency is not None:
        _set_adaptive(message.adaptive_concurrency, policy.adaptive_concurrency)
    if policy.load_shedding is not None:
        _set_shedding(message.load_shedding, policy.load_shedding)
    return [listener_pb2.HttpFilter(name=FILTER, typed_config=pack(message))]


def _policies(action: route_pb2.RouteAction, world: World, scope: Scope) -> Iterable[ResiliencePolicy]:
    names = [action.cluster] if action.cluster else [share.name for share in action.weighted_clusters.clusters]
    for name in names:
        parsed = parse_cluster_name(name)
        service = world.services.find(parsed.host, scope.namespace) if parsed is not None else None
        policy = world.resilience_policies.holding_for(service, scope.namespace) if service is not None else None
        if policy is not None:
            yield policy


def _cluster_resilience(policy: ResiliencePolicy) -> resilience_pb2.ClusterResilience:
    message = resilience_pb2.ClusterResilience()
    if policy.circuit_breaker is not None:
        message.circuit_breaker.CopyFrom(_breaker(policy.circuit_breaker))
    if policy.adaptive_concurrency is not None:
        _set_adaptive(message.adaptive_concurrency, policy.adaptive_concurrency)
    if policy.hedging is not None:
        message.hedging.CopyFrom(_hedging(policy.hedging))
    return message


def _breaker(breaker: CircuitBreaker) -> resilience_pb2.CircuitBreaker:
    return resilience_pb2.CircuitBreaker(
        failure_percent=breaker.failure_percent,
        min_requests=breaker.min_requests,
        window=duration(breaker.window),
        open_duration=duration(breaker.open_duration),
        max_open_duration=duration(breaker.max_open_duration),
        half_open_requests=breaker.half_open_requests,
    )


def _hedging(hedging: Hedging) -> resilience_pb2.Hedging:
    message = resilience_pb2.Hedging(max_requests=hedging.max_requests, budget_percent=hedging.budget_percent)
    if hedging.delay is not None:
        message.delay.CopyFrom(duration(hedging.delay))
    elif hedging.percentile is not None:
        message.percentile = hedging.percentile
    return message


def _set_adaptive(message: resilience_pb2.AdaptiveConcurrency, adaptive: AdaptiveConcurrency) -> None:
    message.sample_aggregate_percentile = adaptive.sample_aggregate_percentile
    message.max_concurrency_limit = adaptive.max_concurrency_limit
    message.concurrency_update_interval.CopyFrom(duration(adaptive.concurrency_update_interval))
    minimum = adaptive.min_rtt
    message.min_rtt.interval.CopyFrom(duration(minimum.interval))
    if minimum.fixed_value is not None:
        message.min_rtt.fixed_value.CopyFrom(duration(minimum.fixed_value))
    message.min_rtt.request_count = minimum.request_count
    message.min_rtt.jitter = minimum.jitter
    message.min_rtt.min_concurrency = minimum.min_concurrency
    message.min_rtt.buffer = minimum.buffer


def _set_shedding(message: _Shedding, shedding: LoadShedding) -> None:
    if shedding.max_concurrency is not None:
        message.max_concurrency.value = shedding.max_concurrency
    for rule in shedding.priorities:
        message.priorities.add(urgency=rule.urgency, matches=map(_match, rule.match))
    if shedding.trusted_claims is not None:
        message.trusted_principals.extend(_callers(shedding.trusted_claims.principals))
        message.trusted_namespaces.extend(_callers(shedding.trusted_claims.namespaces))
    message.retry_after.CopyFrom(duration(shedding.retry_after))


def _match(match: LoadSheddingMatch) -> _Shedding.Match:
    message = _Shedding.Match(principals=_callers(match.principals), namespaces=_callers(match.namespaces))
    if match.uri is not None or match.method is not None or match.headers:
        request = HTTPMatchRequest(uri=match.uri, method=match.method, headers=match.headers)
        message.request.CopyFrom(route_match(request))
    return message


def _callers(patterns: Iterable[str]) -> list[core_pb2.StringMatcher]:
    return [string(pattern) for pattern in patterns]
