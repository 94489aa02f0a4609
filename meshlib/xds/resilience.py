"""meshlib's own resilience messages → model.  Nothing in them is passed over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration

from meshlib.model.resilience import (
    LEAST_URGENT,
    AdaptiveConcurrency,
    Callers,
    CircuitBreaker,
    Hedging,
    LoadShedding,
    PriorityMatch,
    PriorityRule,
    Resilience,
    ServerResilience,
)
from meshlib.model.route import StringMatch
from meshlib.xds.fields import seconds, unpack
from meshlib.xds.invalid import Problems
from meshlib.xds.matchers import decode_route_match, decode_string_match
from meshlib.xds.proto import core_pb2, resilience_pb2

CLUSTER_OPTIONS: Final = "meshlib.resilience"
"""Key of ``Cluster.typed_extension_protocol_options``."""

_MAX_COUNT: Final = 1_000_000
_MAX_HEDGES: Final = 5
_MAX_PROBES: Final = 100


def decode_cluster_resilience(packed: Any, problems: Problems, *, field: str) -> Resilience | None:
    """Of calls to one cluster."""
    message = unpack(packed, resilience_pb2.ClusterResilience, field=field, problems=problems)
    if message is None:
        return None
    return Resilience(
        circuit_breaker=_breaker(message.circuit_breaker, problems, f"{field}.circuit_breaker")
        if message.HasField("circuit_breaker")
        else None,
        adaptive_concurrency=_adaptive(message.adaptive_concurrency, problems, f"{field}.adaptive_concurrency")
        if message.HasField("adaptive_concurrency")
        else None,
        hedging=_hedging(message.hedging, problems, f"{field}.hedging") if message.HasField("hedging") else None,
    )


def decode_server_resilience(
    message: resilience_pb2.ServerResilience, name: str, problems: Problems, *, field: str
) -> ServerResilience:
    """Of requests that this process serves."""
    adaptive = (
        _adaptive(message.adaptive_concurrency, problems, f"{field}.adaptive_concurrency")
        if message.HasField("adaptive_concurrency")
        else None
    )
    shedding = (
        _shedding(message.load_shedding, problems, f"{field}.load_shedding")
        if message.HasField("load_shedding")
        else LoadShedding()
    )
    if adaptive is None and not shedding.max_concurrency:
        problems.describe(field, "no limit", "adaptive_concurrency, or load_shedding with max_concurrency")
    return ServerResilience(name, shedding, adaptive)


def _breaker(message: resilience_pb2.CircuitBreaker, problems: Problems, field: str) -> CircuitBreaker:
    breaker = CircuitBreaker(
        failure_percent=_percent(message.failure_percent, problems, f"{field}.failure_percent", least=1.0),
        min_requests=_count(message.min_requests, problems, f"{field}.min_requests"),
        window=_time(message.window, problems, f"{field}.window"),
        open_duration=_time(message.open_duration, problems, f"{field}.open_duration"),
        max_open_duration=_time(message.max_open_duration, problems, f"{field}.max_open_duration"),
        half_open_requests=_count(message.half_open_requests, problems, f"{field}.half_open_requests", most=_MAX_PROBES),
    )
    if breaker.max_open_duration < breaker.open_duration:
        problems.add(f"{field}.max_open_duration", breaker.max_open_duration, "no less than open_duration")
    return breaker


def _adaptive(message: resilience_pb2.AdaptiveConcurrency, problems: Problems, field: str) -> AdaptiveConcurrency:
    minimum, where = message.min_rtt, f"{field}.min_rtt"
    fixed = seconds(minimum.fixed_value, field=f"{where}.fixed_value", problems=problems)
    interval = f"{where}.interval"
    adaptive = AdaptiveConcurrency(
        percentile=_percent(message.sample_aggregate_percentile, problems, f"{field}.sample_aggregate_percentile", least=1.0),
        max_limit=_count(message.max_concurrency_limit, problems, f"{field}.max_concurrency_limit"),
        update_interval=_time(message.concurrency_update_interval, problems, f"{field}.concurrency_update_interval"),
        min_rtt_interval=seconds(minimum.interval, field=interval, problems=problems)
        if fixed
        else _time(minimum.interval, problems, interval),
        min_rtt_requests=_count(minimum.request_count, problems, f"{where}.request_count"),
        min_rtt_jitter=_percent(minimum.jitter, problems, f"{where}.jitter"),
        min_concurrency=_count(minimum.min_concurrency, problems, f"{where}.min_concurrency"),
        buffer=_percent(minimum.buffer, problems, f"{where}.buffer"),
        fixed_min_rtt=fixed,
    )
    if adaptive.min_concurrency > adaptive.max_limit:
        problems.add(f"{where}.min_concurrency", adaptive.min_concurrency, "no more than max_concurrency_limit")
    return adaptive


def _hedging(message: resilience_pb2.Hedging, problems: Problems, field: str) -> Hedging:
    percentile = message.WhichOneof("after") == "percentile"
    if not 2 <= message.max_requests <= _MAX_HEDGES:
        problems.add(f"{field}.max_requests", message.max_requests, f"2 to {_MAX_HEDGES}")
    return Hedging(
        delay=0.0 if percentile else _time(message.delay, problems, f"{field}.delay"),
        percentile=_percent(message.percentile, problems, f"{field}.percentile", least=1.0) if percentile else 0.0,
        max_requests=message.max_requests,
        budget_percent=_percent(message.budget_percent, problems, f"{field}.budget_percent"),
    )


def _shedding(message: resilience_pb2.LoadShedding, problems: Problems, field: str) -> LoadShedding:
    limited = message.HasField("max_concurrency")
    return LoadShedding(
        max_concurrency=_count(message.max_concurrency.value, problems, f"{field}.max_concurrency") if limited else 0,
        priorities=tuple(
            _priority(item, problems, f"{field}.priorities[{index}]") for index, item in enumerate(message.priorities)
        ),
        trusted=Callers(
            principals=_matches(message.trusted_principals, problems, f"{field}.trusted_principals"),
            namespaces=_matches(message.trusted_namespaces, problems, f"{field}.trusted_namespaces"),
        ),
        retry_after=_time(message.retry_after, problems, f"{field}.retry_after"),
    )


def _priority(message: resilience_pb2.LoadShedding.Priority, problems: Problems, field: str) -> PriorityRule:
    if message.urgency > LEAST_URGENT:
        problems.add(f"{field}.urgency", message.urgency, f"0 to {LEAST_URGENT}")
    matches = tuple(_match(item, problems, f"{field}.matches[{index}]") for index, item in enumerate(message.matches))
    return PriorityRule(min(message.urgency, LEAST_URGENT), matches)


def _match(message: resilience_pb2.LoadShedding.Match, problems: Problems, field: str) -> PriorityMatch:
    request = decode_route_match(message.request, problems, field=f"{field}.request") if message.HasField("request") else None
    if request is not None and request.fraction is not None:
        problems.describe(f"{field}.request.runtime_fraction", "set", "unset: how urgent a request is is no matter of chance")
    callers = Callers(
        principals=_matches(message.principals, problems, f"{field}.principals"),
        namespaces=_matches(message.namespaces, problems, f"{field}.namespaces"),
    )
    if request is None and not callers:
        problems.describe(field, "no condition", "request, principals or namespaces")
    return PriorityMatch(request, callers)


def _matches(messages: Sequence[core_pb2.StringMatcher], problems: Problems, field: str) -> tuple[StringMatch, ...]:
    return tuple(decode_string_match(message, problems, field=f"{field}[{index}]") for index, message in enumerate(messages))


def _percent(value: float, problems: Problems, field: str, *, least: float = 0.0) -> float:
    if not least <= value <= 100.0:
        problems.add(field, value, f"{least:g} to 100")
        return 100.0
    return float(value)


def _count(value: int, problems: Problems, field: str, *, most: int = _MAX_COUNT) -> int:
    if not 1 <= value <= most:
        problems.add(field, value, f"1 to {most}")
        return 1
    return int(value)


def _time(message: Duration, problems: Problems, field: str) -> float:
    """More than zero."""
    value = seconds(message, field=field, problems=problems)
    if value <= 0.0:
        problems.add(field, value, "more than 0s")
        return 1.0
    return value
