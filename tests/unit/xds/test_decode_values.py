"""What well-formed resources come to, and that an unset field means what it means to Envoy."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.model.cluster import Balancing, CircuitBreakers, Cluster, Discovery, LbPolicy, TcpKeepalive
from meshlib.model.endpoint import Assignment, Endpoint, Health, Locality
from meshlib.model.listener import Listener, PathNormalization
from meshlib.model.route import (
    DirectResponse,
    Forward,
    HeaderMatch,
    NonForwarding,
    PathMatch,
    QueryMatch,
    RetryPolicy,
    Route,
    RouteConfig,
    RouteMatch,
    StringMatch,
    VirtualHost,
    WeightedCluster,
)
from meshlib.xds.decode import decode, name_of
from meshlib.xds.json import from_json
from meshlib.xds.proto import core_pb2
from meshlib.xds.types import ENVOY_NAMES
from tests.unit.xds.test_decode_strictly import ADS, assignment, cluster, endpoint, listener, route, routes, typed


def decoded(document: dict[str, Any]) -> Any:
    message = from_json(document)
    name, value = decode(document["@type"], message.SerializeToString())
    assert name == name_of(message)
    return value


def only_route(document: dict[str, Any]) -> Route:
    config = decoded(document)
    assert isinstance(config, RouteConfig)
    (host,) = config.virtual_hosts
    (found,) = host.routes
    return found


def test_listener_with_a_name_of_routes() -> None:
    assert decoded(listener()) == Listener("l", route_config_name="r")


def test_listener_says_how_called_paths_are_normalized() -> None:
    assert decoded(listener(normalize_path=True)).normalization is PathNormalization.BASE
    assert decoded(listener(normalize_path=False)).normalization is PathNormalization.NONE
    merged = listener(normalize_path=True, merge_slashes=True)
    assert decoded(merged).normalization is PathNormalization.MERGE_SLASHES


def test_listener_with_routes_inside() -> None:
    document = listener(rds=None, route_config={"name": "in", "virtual_hosts": [{"name": "v", "domains": ["*"]}]})
    assert decoded(document) == Listener("l", route_config=RouteConfig("in", (VirtualHost("v", ("*",), ()),)))


def test_virtual_host_is_lower_case() -> None:
    config = decoded(
        typed(
            "RouteConfiguration",
            name="r",
            ignore_port_in_host_matching=True,
            virtual_hosts=[{"name": "V", "domains": ["A.test", "*.B"], "include_request_attempt_count": True}],
        )
    )
    assert config == RouteConfig("r", (VirtualHost("V", ("a.test", "*.b"), (), attempt_count_header=True),), ignore_port=True)


def test_unset_timeout_is_envoys_15_seconds() -> None:
    action = only_route(routes(route())).action
    assert action == Forward((WeightedCluster("c"),), timeout=15.0, retry=None)


def test_zero_timeout_is_none() -> None:
    action = only_route(routes(route(timeout="0s", max_grpc_timeout="0s"))).action
    assert isinstance(action, Forward)
    assert action.timeout == 0.0


def test_weighted_clusters_keep_their_order() -> None:
    shares = {"clusters": [{"name": "b", "weight": 9}, {"name": "a", "weight": 1}]}
    action = only_route(routes({"match": {"prefix": "/"}, "route": {"weighted_clusters": shares}})).action
    assert isinstance(action, Forward)
    assert action.clusters == (WeightedCluster("b", 9), WeightedCluster("a", 1))


@pytest.mark.parametrize(
    ("match", "path"),
    [
        ({"prefix": "/a"}, PathMatch("prefix", "/a")),
        ({"path": "/a", "case_sensitive": False}, PathMatch("exact", "/a", case_sensitive=False)),
        ({"safe_regex": {"regex": "/a+"}}, PathMatch("regex", "/a+")),
        ({"path_separated_prefix": "/a"}, PathMatch("separated", "/a")),
    ],
)
def test_paths(match: dict[str, Any], path: PathMatch) -> None:
    assert only_route(routes(route(match))).match == RouteMatch(path)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"name": "X"}, HeaderMatch("x", present=True)),
        ({"name": "x", "present_match": False}, HeaderMatch("x", present=False)),
        ({"name": "x", "range_match": {"start": -1, "end": 5}}, HeaderMatch("x", range=(-1, 5))),
        (
            {"name": ":method", "string_match": {"exact": "get", "ignore_case": True}},
            HeaderMatch(":method", StringMatch("exact", "get", ignore_case=True)),
        ),
        (
            {"name": "x", "string_match": {"suffix": "s"}, "invert_match": True, "treat_missing_header_as_empty": True},
            HeaderMatch("x", StringMatch("suffix", "s"), invert=True, treat_missing_as_empty=True),
        ),
        ({"name": "x", "string_match": {"safe_regex": {"regex": "a|b"}}}, HeaderMatch("x", StringMatch("regex", "a|b"))),
        ({"name": "x", "string_match": {"exact": ""}}, HeaderMatch("x", StringMatch("exact", ""))),
    ],
)
def test_headers(header: dict[str, Any], expected: HeaderMatch) -> None:
    assert only_route(routes(route({"prefix": "/", "headers": [header]}))).match.headers == (expected,)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"name": "q"}, QueryMatch("q")),
        ({"name": "q", "present_match": False}, QueryMatch("q", present=False)),
        ({"name": "q", "string_match": {"prefix": "p"}}, QueryMatch("q", StringMatch("prefix", "p"))),
    ],
)
def test_query_parameters(query: dict[str, Any], expected: QueryMatch) -> None:
    assert only_route(routes(route({"prefix": "/", "query_parameters": [query]}))).match.query == (expected,)


@pytest.mark.parametrize(
    ("numerator", "denominator", "expected"),
    [(20, "HUNDRED", 0.2), (5, "TEN_THOUSAND", 0.0005), (1, "MILLION", 0.000001), (200, "HUNDRED", 1.0), (0, "HUNDRED", 0.0)],
)
def test_fraction(numerator: int, denominator: str, expected: float) -> None:
    fraction = {"default_value": {"numerator": numerator, "denominator": denominator}, "runtime_key": "k"}
    assert only_route(routes(route({"prefix": "/", "runtime_fraction": fraction, "grpc": {}}))).match == RouteMatch(
        PathMatch("prefix", "/"), fraction=expected, grpc=True
    )


def test_other_actions() -> None:
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 404, "body": {"inline_string": "né"}}}
    assert only_route(routes(answer)).action == DirectResponse(404, "né".encode())
    nothing = {"match": {"prefix": "/"}, "non_forwarding_action": {}}
    assert only_route(routes(nothing)).action == NonForwarding()


def test_retry_policy_in_full() -> None:
    policy = {
        "retry_on": "5xx, unavailable ,retriable-status-codes",
        "num_retries": 4,
        "per_try_timeout": "0.25s",
        "retriable_status_codes": [429],
        "retry_host_predicate": [{"name": "p", "typed_config": typed("PreviousHostsPredicate")}],
        "host_selection_retry_max_attempts": 5,
        "retry_back_off": {"base_interval": "0.1s"},
    }
    action = only_route(routes(route(retry_policy=policy))).action
    assert isinstance(action, Forward)
    assert action.retry == RetryPolicy(
        attempts=4,
        retry_on=frozenset({"5xx", "unavailable", "retriable-status-codes"}),
        status_codes=frozenset({429}),
        per_try_timeout=0.25,
        previous_hosts=True,
        host_selection_attempts=5,
        base_interval=0.1,
        max_interval=1.0,
    )


def test_retry_policy_of_the_virtual_host_holds_unless_the_route_has_its_own() -> None:
    config = decoded(
        routes(route(), route(retry_policy={"retry_on": "reset"}), retry_policy={"retry_on": "5xx", "num_retries": 7})
    )
    first, second = (found.action.retry for found in config.virtual_hosts[0].routes)
    assert first == RetryPolicy(attempts=7, retry_on=frozenset({"5xx"}))
    assert second == RetryPolicy(attempts=1, retry_on=frozenset({"reset"}))


def test_cluster_with_everything_unset_has_envoys_defaults() -> None:
    assert decoded(cluster(lb_policy="ROUND_ROBIN")) == Cluster(
        name="c",
        discovery=Discovery.EDS,
        lb_policy=LbPolicy.ROUND_ROBIN,
        connect_timeout=5.0,
        idle_timeout=3600.0,
        circuit_breakers=CircuitBreakers(1024, 1024, 1024, 3, 20.0, 3),
        dns_refresh=5.0,
    )


def test_cluster_in_full() -> None:
    options = {
        "common_http_protocol_options": {
            "idle_timeout": "60s",
            "max_connection_duration": "300s",
            "max_requests_per_connection": 100,
        },
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    thresholds = {
        "max_connections": 1,
        "max_pending_requests": 2,
        "max_requests": 3,
        "max_retries": 4,
        "retry_budget": {"budget_percent": {"value": 5}, "min_retry_concurrency": 6},
    }
    found = decoded(
        cluster(
            eds_cluster_config={"eds_config": ADS, "service_name": "s"},
            connect_timeout="1.5s",
            least_request_lb_config={"choice_count": 3},
            typed_extension_protocol_options={ENVOY_NAMES["HttpProtocolOptions"]: typed("HttpProtocolOptions", **options)},
            circuit_breakers={"thresholds": [{"priority": "HIGH", "max_requests": 99}, thresholds]},
            upstream_connection_options={
                "tcp_keepalive": {"keepalive_probes": 7, "keepalive_time": 8, "keepalive_interval": 9}
            },
            metadata={
                "filter_metadata": {
                    "istio": {"services": [{"host": "h.test", "name": "h"}], "default_original_port": 80, "subset": "v1"},
                    "other": {},
                }
            },
        )
    )
    assert found == Cluster(
        name="c",
        eds_name="s",
        balancing=Balancing(choice_count=3),
        connect_timeout=1.5,
        idle_timeout=60.0,
        max_connection_duration=300.0,
        max_requests_per_connection=100,
        circuit_breakers=CircuitBreakers(1, 2, 3, 4, 5.0, 6),
        tcp_keepalive=TcpKeepalive(7, 8.0, 9.0),
        dns_refresh=5.0,
        host="h.test",
        subset="v1",
        port=80,
    )


def test_inline_endpoints_may_be_names_where_they_are_resolved() -> None:
    inline = {"cluster_name": "c", "endpoints": [{"lb_endpoints": [endpoint("name.test")]}]}
    for kind in ("STRICT_DNS", "LOGICAL_DNS"):
        found = decoded(cluster(type=kind, dns_refresh_rate="30s", load_assignment=inline))
        assert (found.discovery, found.dns_refresh) == (Discovery.DNS, 30.0)
        assert found.endpoints == (Endpoint("name.test", 80),)


def test_endpoints() -> None:
    group = {
        "locality": {"region": "r", "zone": "z", "sub_zone": "s"},
        "priority": 1,
        "load_balancing_weight": 9,
        "lb_endpoints": [
            endpoint("10.0.0.1", 80, load_balancing_weight=4, health_status="DEGRADED"),
            endpoint("fd00::1", 81, metadata={"filter_metadata": {"envoy.lb": {"version": "v1", "app": "a", "n": 1}}}),
        ],
    }
    document = typed("ClusterLoadAssignment", cluster_name="c", endpoints=[group, {"lb_endpoints": [endpoint("10.0.0.2")]}])
    locality = Locality("r", "z", "s")
    assert decoded(document) == Assignment(
        (
            Endpoint("10.0.0.1", 80, 4, locality, 1, Health.DEGRADED, locality_weight=9),
            Endpoint("fd00::1", 81, 1, locality, 1, labels=(("app", "a"), ("version", "v1")), locality_weight=9),
            Endpoint("10.0.0.2", 80),
        )
    )


@pytest.mark.parametrize(
    ("status", "health"),
    [
        ("UNKNOWN", Health.HEALTHY),
        ("HEALTHY", Health.HEALTHY),
        ("UNHEALTHY", Health.UNHEALTHY),
        ("TIMEOUT", Health.UNHEALTHY),
        ("DRAINING", Health.DRAINING),
        ("DEGRADED", Health.DEGRADED),
    ],
)
def test_health(status: str, health: Health) -> None:
    (found,) = decoded(assignment(endpoint(health_status=status))).endpoints
    assert found.health is health


def test_only_resources_have_names() -> None:
    with pytest.raises(TypeError, match="Locality is no resource"):
        name_of(core_pb2.Locality())
