"""meshlib's own resilience messages: what is missing, out of range or unknown refuses the resource."""

from __future__ import annotations

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.json_format import ParseDict

from meshlib.model.resilience import CircuitBreaker, LoadShedding, Resilience
from meshlib.xds.decode import decode
from meshlib.xds.invalid import Problems, ResourceInvalid
from meshlib.xds.proto import cluster_pb2, resilience_pb2
from meshlib.xds.resilience import CLUSTER_OPTIONS, decode_cluster_resilience, decode_server_resilience
from meshlib.xds.types import CLUSTER, pack

BREAKER = {
    "failure_percent": 50,
    "min_requests": 20,
    "window": "10s",
    "open_duration": "5s",
    "max_open_duration": "60s",
    "half_open_requests": 3,
}
ADAPTIVE = {
    "sample_aggregate_percentile": 50,
    "max_concurrency_limit": 1000,
    "concurrency_update_interval": "0.1s",
    "min_rtt": {"interval": "60s", "request_count": 50, "jitter": 15, "min_concurrency": 3, "buffer": 25},
}
SHEDDING = {"max_concurrency": 5, "retry_after": "1s"}


def cluster_problems(**fields: object) -> list[str]:
    message = ParseDict(fields, resilience_pb2.ClusterResilience())
    problems = Problems()
    decode_cluster_resilience(pack(message), problems, field="r")
    return [str(problem) for problem in problems.found]


def server_problems(**fields: object) -> list[str]:
    message = ParseDict(fields, resilience_pb2.ServerResilience())
    problems = Problems()
    decode_server_resilience(message, "f", problems, field="r")
    return [str(problem) for problem in problems.found]


def test_a_complete_message_has_no_problems() -> None:
    assert cluster_problems(circuit_breaker=BREAKER, adaptive_concurrency=ADAPTIVE) == []
    assert cluster_problems(hedging={"delay": "1s", "max_requests": 2, "budget_percent": 10}) == []
    assert server_problems(adaptive_concurrency=ADAPTIVE, load_shedding=SHEDDING) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("failure_percent", 0),
        ("failure_percent", 101),
        ("failure_percent", "NaN"),
        ("min_requests", 0),
        ("window", "0s"),
        ("open_duration", "-1s"),
        ("max_open_duration", "1s"),
        ("half_open_requests", 0),
        ("half_open_requests", 101),
    ],
)
def test_bad_breakers(field: str, value: object) -> None:
    (problem,) = cluster_problems(circuit_breaker={**BREAKER, field: value})[:1]
    assert "circuit_breaker" in problem


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("", "sample_aggregate_percentile", 0),
        ("", "max_concurrency_limit", 0),
        ("", "max_concurrency_limit", 2),
        ("", "concurrency_update_interval", "0s"),
        ("min_rtt", "interval", "0s"),
        ("min_rtt", "request_count", 0),
        ("min_rtt", "buffer", 101),
    ],
)
def test_bad_limits(part: str, field: str, value: object) -> None:
    changed = {**ADAPTIVE, field: value} if not part else {**ADAPTIVE, part: {**ADAPTIVE[part], field: value}}  # type: ignore[dict-item]
    assert cluster_problems(adaptive_concurrency=changed)
    assert server_problems(adaptive_concurrency=changed)


def test_an_interval_of_zero_is_fine_where_nothing_is_measured() -> None:
    fixed = {**ADAPTIVE, "min_rtt": {"fixed_value": "0.01s", "request_count": 1, "min_concurrency": 1}}
    assert cluster_problems(adaptive_concurrency=fixed) == []


@pytest.mark.parametrize(
    "hedging",
    [
        {"max_requests": 2, "budget_percent": 10},
        {"delay": "0s", "max_requests": 2},
        {"percentile": 0, "max_requests": 2},
        {"percentile": 95, "max_requests": 1},
        {"percentile": 95, "max_requests": 6},
        {"percentile": 95, "max_requests": 2, "budget_percent": -1},
    ],
)
def test_bad_hedging(hedging: dict[str, object]) -> None:
    assert cluster_problems(hedging=hedging)


@pytest.mark.parametrize(
    "shedding",
    [
        {},
        {"retry_after": "1s"},
        {"max_concurrency": 0, "retry_after": "1s"},
        {"max_concurrency": 1},
        {**SHEDDING, "priorities": [{"urgency": 8}]},
        {**SHEDDING, "priorities": [{"urgency": 1, "matches": [{}]}]},
        {**SHEDDING, "priorities": [{"urgency": 1, "matches": [{"principals": [{}]}]}]},
        {**SHEDDING, "priorities": [{"urgency": 1, "matches": [{"request": {}}]}]},
        {**SHEDDING, "priorities": [{"urgency": 1, "matches": [{"request": {"safe_regex": {"regex": "("}}}]}]},
        {**SHEDDING, "trusted_principals": [{"prefix": ""}]},
    ],
)
def test_bad_load_shedding(shedding: dict[str, object]) -> None:
    assert server_problems(load_shedding=shedding)


def cluster(options: dict[str, Any]) -> bytes:
    made = cluster_pb2.Cluster(name="c", type=cluster_pb2.Cluster.STATIC)
    for key, packed in options.items():
        made.typed_extension_protocol_options[key].CopyFrom(packed)
    return made.SerializeToString()


def test_in_its_cluster() -> None:
    message = ParseDict({"circuit_breaker": BREAKER}, resilience_pb2.ClusterResilience())
    _, value = decode(CLUSTER, cluster({CLUSTER_OPTIONS: pack(message)}))
    assert getattr(value, "resilience", None) == Resilience(CircuitBreaker())


def test_other_options_and_fields_that_nobody_knows_refuse_the_cluster() -> None:
    message = resilience_pb2.ClusterResilience()
    unknown = Any(type_url=pack(message).type_url, value=b"\x98\x06\x01")
    for options in ({"other": pack(message)}, {CLUSTER_OPTIONS: pack(LOAD)}, {CLUSTER_OPTIONS: unknown}):
        with pytest.raises(ResourceInvalid):
            decode(CLUSTER, cluster(options))


LOAD = resilience_pb2.ServerResilience()


def test_a_policy_without_shedding_sheds_by_the_defaults() -> None:
    message = ParseDict({"adaptive_concurrency": ADAPTIVE}, resilience_pb2.ServerResilience())
    assert decode_server_resilience(message, "f", Problems(), field="r").load_shedding == LoadShedding()
