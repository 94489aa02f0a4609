"""Whatever is not understood is refused, by name, field, value and expectation; nothing is dropped."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from meshlib.xds.decode import decode
from meshlib.xds.fields import MAX_RESOURCE_BYTES
from meshlib.xds.invalid import SHOWN_PROBLEMS, Problem, ResourceInvalid
from meshlib.xds.json import from_json
from meshlib.xds.proto import cluster_pb2, route_pb2
from meshlib.xds.types import CLUSTER, ENDPOINTS, ENVOY_NAMES, LISTENER, PREFIX, ROUTE

UNKNOWN_FIELD = b"\xfa\x3e\x01x"  # number 1007, length-delimited: no message of ours has it


def typed(kind: str, /, **fields: Any) -> dict[str, Any]:
    return {"@type": PREFIX + ENVOY_NAMES[kind], **fields}


ADS = {"ads": {}, "resource_api_version": "V3"}
ROUTER = {"name": "router", "typed_config": typed("Router")}


def listener(**manager: Any) -> dict[str, Any]:
    content = {"rds": {"route_config_name": "r", "config_source": ADS}, "http_filters": [ROUTER], **manager}
    return typed("Listener", name="l", api_listener={"api_listener": typed("HttpConnectionManager", **content)})


def routes(*items: dict[str, Any], **host: Any) -> dict[str, Any]:
    return typed(
        "RouteConfiguration",
        name="r",
        virtual_hosts=[{"name": "v", "domains": ["*"], "routes": list(items), **host}],
    )


def route(match: dict[str, Any] | None = None, **action: Any) -> dict[str, Any]:
    return {"match": match or {"prefix": "/"}, "route": {"cluster": "c", **action}}


def cluster(**fields: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"name": "c", "type": "EDS", "eds_cluster_config": {"eds_config": ADS}, "lb_policy": "LEAST_REQUEST"}
    return typed("Cluster", **{**base, **fields})


def endpoint(address: str = "10.0.0.1", port: int = 80, **fields: Any) -> dict[str, Any]:
    return {"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}, **fields}


def assignment(*items: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return typed("ClusterLoadAssignment", cluster_name="c", endpoints=[{"lb_endpoints": list(items)}], **fields)


def problems_of(document: dict[str, Any]) -> tuple[Problem, ...]:
    try:
        decode(document["@type"], from_json(document).SerializeToString())
    except ResourceInvalid as invalid:
        return invalid.problems
    return ()


GOOD: list[dict[str, Any]] = [
    listener(),
    listener(stat_prefix="s", stream_idle_timeout="0s", codec_type="HTTP1"),
    listener(http_filters=[{"name": "x", "is_optional": True}, ROUTER]),
    routes(),
    routes(route(), include_request_attempt_count=True),
    cluster(),
    cluster(alt_stat_name="s", respect_dns_ttl=True, circuit_breakers={"thresholds": [{"track_remaining": True}]}),
    cluster(type="ORIGINAL_DST", lb_policy="CLUSTER_PROVIDED"),
    assignment(endpoint()),
    assignment(),
]

BAD: list[tuple[dict[str, Any], str]] = [
    (typed("Listener", name="l"), "api_listener"),
    ({**listener(), "address": {"socket_address": {"address": "0.0.0.0"}}}, "address"),
    (listener(http_filters=[]), "api_listener.api_listener.http_filters"),
    (listener(http_filters=[ROUTER, ROUTER]), "api_listener.api_listener.http_filters[0]"),
    (listener(http_filters=[{"name": "x"}, ROUTER]), "api_listener.api_listener.http_filters[0]"),
    (listener(http_filters=[{"name": "x", "is_optional": True}]), "api_listener.api_listener.http_filters"),
    (listener(stream_idle_timeout="5s"), "api_listener.api_listener.stream_idle_timeout"),
    (listener(use_remote_address=True), "api_listener.api_listener.use_remote_address"),
    (listener(merge_slashes=True), "api_listener.api_listener.normalize_path"),
    (
        listener(normalize_path=True, path_with_escaped_slashes_action="REJECT_REQUEST"),
        "api_listener.api_listener.normalize_path",
    ),
    (listener(rds={"route_config_name": "r"}), "api_listener.api_listener.rds.config_source"),
    (listener(rds={"config_source": ADS}), "api_listener.api_listener.rds.route_config_name"),
    (typed("RouteConfiguration", name="r", virtual_hosts=[{"name": "v"}]), "virtual_hosts[0].domains"),
    (routes(domains=["a", "A"]), "virtual_hosts[0].domains[1]"),
    (routes(domains=["a*b"]), "virtual_hosts[0].domains[0]"),
    (routes(require_tls="ALL"), "virtual_hosts[0].require_tls"),
    (routes(request_headers_to_remove=["Host"]), "virtual_hosts[0].request_headers_to_remove[0]"),
    (routes(include_attempt_count_in_response=True), "virtual_hosts[0].include_attempt_count_in_response"),
    (routes({"match": {"prefix": "/"}}), "virtual_hosts[0].routes[0]"),
    (
        routes({"match": {"prefix": "/"}, "redirect": {"https_redirect": True}}),
        "virtual_hosts[0].routes[0].redirect.https_redirect",
    ),
    (routes({"match": {}, "route": {"cluster": "c"}}), "virtual_hosts[0].routes[0].match"),
    (routes({"match": {"prefix": "/"}, "route": {}}), "virtual_hosts[0].routes[0].route"),
    (routes(route({"safe_regex": {"regex": "("}})), "virtual_hosts[0].routes[0].match.safe_regex.regex"),
    (routes(route({"safe_regex": {"regex": "(?=x)"}})), "virtual_hosts[0].routes[0].match.safe_regex.regex"),
    (routes(route({"path_separated_prefix": "/a/"})), "virtual_hosts[0].routes[0].match.path_separated_prefix"),
    (routes(route({"prefix": "/", "headers": [{"name": ""}]})), "virtual_hosts[0].routes[0].match.headers[0].name"),
    (
        routes(route({"prefix": "/", "headers": [{"name": "a", "string_match": {}}]})),
        "virtual_hosts[0].routes[0].match.headers[0].string_match",
    ),
    (
        routes(route({"prefix": "/", "query_parameters": [{"name": "a", "string_match": {"contains": ""}}]})),
        "virtual_hosts[0].routes[0].match.query_parameters[0].string_match.contains",
    ),
    (
        routes({"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": [{"name": "c", "weight": 0}]}}}),
        "virtual_hosts[0].routes[0].route.weighted_clusters",
    ),
    (
        routes(
            {
                "match": {"prefix": "/"},
                "route": {"weighted_clusters": {"clusters": [{"name": "a", "weight": 1}, {"name": "b"}]}},
            }
        ),
        "virtual_hosts[0].routes[0].route.weighted_clusters.clusters[1].weight",
    ),
    (routes(route(timeout="-1s")), "virtual_hosts[0].routes[0].route.timeout"),
    (routes(route(max_stream_duration={})), "virtual_hosts[0].routes[0].route.max_stream_duration"),
    (
        routes(route(cluster_not_found_response_code="NOT_FOUND")),
        "virtual_hosts[0].routes[0].route.cluster_not_found_response_code",
    ),
    (routes(route(retry_policy={"retry_on": "5xx,often"})), "virtual_hosts[0].routes[0].route.retry_policy.retry_on"),
    (
        routes(route(retry_policy={"per_try_idle_timeout": "1s"})),
        "virtual_hosts[0].routes[0].route.retry_policy.per_try_idle_timeout",
    ),
    (
        routes(route(retry_policy={"retry_host_predicate": [{"name": "other"}]})),
        "virtual_hosts[0].routes[0].route.retry_policy.retry_host_predicate[0].typed_config",
    ),
    (
        routes(route(retry_policy={"retry_back_off": {"base_interval": "1s", "max_interval": "0.5s"}})),
        "virtual_hosts[0].routes[0].route.retry_policy.retry_back_off.max_interval",
    ),
    (
        routes({"match": {"prefix": "/"}, "direct_response": {"status": 99}}),
        "virtual_hosts[0].routes[0].direct_response.status",
    ),
    (
        routes({"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "x" * 4097}}}),
        "virtual_hosts[0].routes[0].direct_response.body",
    ),
    (cluster(lb_policy="CLUSTER_PROVIDED"), "lb_policy"),
    (cluster(lb_policy=99), "lb_policy"),
    (cluster(type=99), "type"),
    (cluster(eds_cluster_config={}), "eds_cluster_config.eds_config"),
    (cluster(connect_timeout="0s"), "connect_timeout"),
    (cluster(transport_socket={"name": "tls"}), "transport_socket.typed_config"),
    (cluster(common_lb_config={"healthy_panic_threshold": {"value": 101}}), "common_lb_config.healthy_panic_threshold"),
    (cluster(least_request_lb_config={"choice_count": 1}), "least_request_lb_config.choice_count"),
    (cluster(load_assignment={"cluster_name": "c"}), "load_assignment"),
    (cluster(typed_extension_protocol_options={"x": typed("Router")}), "typed_extension_protocol_options['x']"),
    (
        cluster(type="STATIC", load_assignment={"endpoints": [{"lb_endpoints": [endpoint("name.test")]}]}),
        "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address",
    ),
    (assignment(endpoint("name.test")), "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address"),
    (assignment(endpoint("10.0.0.256")), "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address"),
    (assignment(endpoint(port=0)), "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value"),
    (assignment(endpoint(), endpoint()), "endpoints"),
    (assignment({}), "endpoints[0].lb_endpoints[0]"),
    (assignment({"endpoint": {"address": {"pipe": {"path": "/s"}}}}), "endpoints[0].lb_endpoints[0].endpoint.address"),
    (assignment(endpoint(health_status=99)), "endpoints[0].lb_endpoints[0].health_status"),
    (assignment(endpoint(load_balancing_weight=0)), "endpoints[0].lb_endpoints[0].load_balancing_weight"),
    (assignment(policy={"overprovisioning_factor": 0}), "policy.overprovisioning_factor"),
]


@pytest.mark.parametrize("document", GOOD, ids=lambda document: document["@type"].rpartition(".")[2])
def test_what_is_understood_passes(document: dict[str, Any]) -> None:
    """The positive control of everything below."""
    assert problems_of(document) == ()


@pytest.mark.parametrize(("document", "field"), BAD, ids=[f"{number}-{field}" for number, (_, field) in enumerate(BAD)])
def test_what_is_not_understood_is_named(document: dict[str, Any], field: str) -> None:
    assert [problem.field for problem in problems_of(document)] == [field]


@pytest.mark.parametrize("type_url", [LISTENER, ROUTE, CLUSTER, ENDPOINTS])
def test_unknown_field_is_refused_at_the_top(type_url: str) -> None:
    with pytest.raises(ResourceInvalid, match="field number 1007"):
        decode(type_url, UNKNOWN_FIELD)


def _nested(document: dict[str, Any], *path: str | int) -> bytes:
    """The resource with an unknown field in the message at `path`."""
    resource = from_json(document)
    inner: Any = resource
    for step in path:
        inner = inner[step] if isinstance(step, int) else getattr(inner, step)
    inner.MergeFromString(UNKNOWN_FIELD)
    return resource.SerializeToString()


@pytest.mark.parametrize(
    ("document", "path", "field"),
    [
        (routes(route()), ("virtual_hosts", 0, "routes", 0, "match"), "virtual_hosts[0].routes[0].match"),
        (
            cluster(circuit_breakers={"thresholds": [{}]}),
            ("circuit_breakers", "thresholds", 0),
            "circuit_breakers.thresholds[0]",
        ),
        (assignment(endpoint()), ("endpoints", 0, "lb_endpoints", 0), "endpoints[0].lb_endpoints[0]"),
    ],
)
def test_unknown_field_is_found_at_depth(document: dict[str, Any], path: tuple[str | int, ...], field: str) -> None:
    with pytest.raises(ResourceInvalid) as caught:
        decode(document["@type"], _nested(document, *path))
    assert caught.value.problems == (Problem(field, "field number 1007", "only fields that this data plane knows"),)


def test_unknown_field_is_found_inside_of_an_any() -> None:
    key = ENVOY_NAMES["HttpProtocolOptions"]
    options = AnyMessage(type_url=PREFIX + key, value=UNKNOWN_FIELD)
    resource = from_json(cluster())
    assert isinstance(resource, cluster_pb2.Cluster)
    resource.typed_extension_protocol_options[key].CopyFrom(options)
    with pytest.raises(ResourceInvalid, match=r"typed_extension_protocol_options\['envoy.*field number 1007"):
        decode(CLUSTER, resource.SerializeToString())


@pytest.mark.parametrize("value", [b"\x0a\xff", b"\x00"], ids=["cut short", "no field"])
def test_bytes_that_are_no_message(value: bytes) -> None:
    with pytest.raises(ResourceInvalid, match="a serialized Cluster"):
        decode(CLUSTER, value)


def test_size_is_bounded() -> None:
    with pytest.raises(ResourceInvalid, match="at most"):
        decode(CLUSTER, b"x" * (MAX_RESOURCE_BYTES + 1))


def test_type_that_nobody_asked_for() -> None:
    with pytest.raises(ResourceInvalid, match=r"Secret.*expected a Listener"):
        decode(PREFIX + "envoy.Secret", b"")


def test_resource_without_a_name() -> None:
    with pytest.raises(ResourceInvalid, match=r"CDS \(no name\): name"):
        decode(CLUSTER, cluster_pb2.Cluster(type=cluster_pb2.Cluster.STATIC).SerializeToString())


def test_everything_is_reported_at_once_and_counted() -> None:
    document = cluster(lb_policy="CLUSTER_PROVIDED", connect_timeout="0s", transport_socket={"name": "tls"})
    assert {problem.field for problem in problems_of(document)} == {
        "lb_policy",
        "connect_timeout",
        "transport_socket.typed_config",
    }
    many: Message = route_pb2.RouteConfiguration(
        name="many", virtual_hosts=[route_pb2.VirtualHost(name=str(number)) for number in range(SHOWN_PROBLEMS + 5)]
    )
    with pytest.raises(ResourceInvalid, match=r"and 5 more$") as caught:
        decode(ROUTE, many.SerializeToString())
    assert len(caught.value.problems) == SHOWN_PROBLEMS + 5
    assert (caught.value.name, caught.value.type_url) == ("many", ROUTE)
