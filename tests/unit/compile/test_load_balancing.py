"""DestinationRule `loadBalancer` → clusters, hash policies of routes, endpoints for whoever asks; in every flavour."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from google.protobuf.json_format import MessageToDict

from meshlib.xds.json import to_json
from meshlib.xds.proto import cluster_pb2, endpoint_pb2, route_pb2
from meshlib.xds.types import CLUSTER, ENDPOINTS, ROUTE
from meshlib_control.catalog.model import Instance, InstanceHealth, Port
from meshlib_control.compile import Flavour, Node, World, affected, generate, scope_of
from tests.support.configuring import catalog, config_set, registered, world

HOST = "carts.default.svc.cluster.local"
NAME = f"outbound|80||{HOST}"
PLACES = ("us-east/a/1", "us-east/b/1", "eu-west/a/1")
INSTANCES = tuple(Instance(str(i), f"10.0.0.{i}", 80, {"version": f"v{i}"}, place) for i, place in enumerate(PLACES))
FLAVOURS = get_args(Flavour)

MESH = """
apiVersion: meshlib.io/v1
kind: MeshConfig
metadata: {name: mesh}
spec: %s
"""
ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: carts}
spec: {hosts: [carts], http: [%s]}
"""


def rule(policy: str, more: str = "", metadata: str = "name: carts") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{{metadata}}}
spec: {{host: {HOST}, trafficPolicy: {policy}{more}}}
"""


def of_mesh(*texts: str, instances: tuple[Instance, ...] = INSTANCES) -> World:
    return world(*texts, services=[registered("carts", *instances, ports=(Port(80), Port(81, "grpc")))])


def cluster(built: World, node: Node, name: str = NAME) -> cluster_pb2.Cluster:
    found = generate(built, scope_of(built, node), CLUSTER, [name])[name]
    assert isinstance(found, cluster_pb2.Cluster)
    return found


def balanced(balancer: str, flavour: Flavour = "envoy") -> dict[str, Any]:
    """What the cluster says about balancing."""
    found = to_json(cluster(of_mesh(rule(f"{{loadBalancer: {balancer}}}")), Node(flavour)))
    return {key: value for key, value in found.items() if key.startswith("lb_") or key.endswith("lb_config")}


def endpoints(built: World, node: Node, name: str = NAME) -> list[tuple[str, int, int]]:
    """The last digit of each address, its priority and its locality's weight."""
    found = generate(built, scope_of(built, node), ENDPOINTS, [name])[name]
    assert isinstance(found, endpoint_pb2.ClusterLoadAssignment)
    return [
        (endpoint.endpoint.address.socket_address.address[-1], part.priority, part.load_balancing_weight.value)
        for part in found.endpoints
        for endpoint in part.lb_endpoints
    ]


def actions(built: World, node: Node, port: int = 80) -> list[route_pb2.RouteAction]:
    name = f"{HOST}:{port}"
    found = generate(built, scope_of(built, node), ROUTE, [name])[name]
    assert isinstance(found, route_pb2.RouteConfiguration)
    return [route.route for route in found.virtual_hosts[0].routes]


PANIC: dict[str, Any] = {"healthy_panic_threshold": {}}
SLOW = {
    "slow_start_window": "60s",
    "aggression": {"default_value": 1.0, "runtime_key": "upstream.slow_start.aggression"},
    "min_weight_percent": {"value": 10.0},
}


@pytest.mark.parametrize("flavour", ["meshlib", "envoy"])
@pytest.mark.parametrize(
    ("balancer", "expected"),
    [
        ("{simple: UNSPECIFIED}", {"lb_policy": "LEAST_REQUEST"}),
        ("{simple: LEAST_CONN}", {"lb_policy": "LEAST_REQUEST"}),
        ("{simple: RANDOM, warmup: {duration: 60s}}", {"lb_policy": "RANDOM"}),
        ("{simple: ROUND_ROBIN, warmupDurationSecs: 60s}", {"round_robin_lb_config": {"slow_start_config": SLOW}}),
        (
            "{warmup: {duration: 60s}}",
            {"lb_policy": "LEAST_REQUEST", "least_request_lb_config": {"slow_start_config": SLOW}},
        ),
        (
            "{consistentHash: {httpHeaderName: x, ringHash: {}}}",
            {"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": "1024"}},
        ),
        (
            "{consistentHash: {useSourceIp: true, maglev: {tableSize: 5003}}}",
            {"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": "5003"}},
        ),
    ],
)
def test_balancers(balancer: str, expected: dict[str, Any], flavour: Flavour) -> None:
    assert balanced(balancer, flavour) == {"common_lb_config": PANIC, **expected}


@pytest.mark.parametrize("flavour", ["meshlib", "envoy"])
def test_connections_of_passthrough_go_wherever_the_caller_wanted(flavour: Flavour) -> None:
    found = cluster(of_mesh(rule("{loadBalancer: {simple: PASSTHROUGH}}")), Node(flavour))
    assert (found.type, found.lb_policy) == (found.ORIGINAL_DST, found.CLUSTER_PROVIDED)
    assert not found.HasField("common_lb_config")


@pytest.mark.parametrize(
    ("balancer", "policy"),
    [
        ("{simple: LEAST_REQUEST}", "ROUND_ROBIN"),
        ("{simple: RANDOM}", "ROUND_ROBIN"),
        ("{warmup: {duration: 60s}}", "ROUND_ROBIN"),
        ("{consistentHash: {httpHeaderName: x, maglev: {tableSize: 5003}}}", "RING_HASH"),
        ("{consistentHash: {httpCookie: {name: x}}}", "ROUND_ROBIN"),
    ],
)
def test_grpc_gets_one_of_the_two_balancers_that_it_accepts(balancer: str, policy: str) -> None:
    assert balanced(balancer, "grpc").get("lb_policy", "ROUND_ROBIN") == policy


@pytest.mark.parametrize(
    ("hashed", "expected"),
    [
        ("httpHeaderName: X-User", {"header": {"header_name": "X-User"}}),
        ("httpQueryParameterName: user", {"query_parameter": {"name": "user"}}),
        ("useSourceIp: true", {"connection_properties": {"source_ip": True}}),
        ("httpCookie: {name: c}", {"cookie": {"name": "c"}}),
        ("httpCookie: {name: c, ttl: 0s, path: /p}", {"cookie": {"name": "c", "ttl": "0s", "path": "/p"}}),
        ("useSourceIp: false", None),
        ("ringHash: {}", None),
    ],
)
def test_routes_say_what_is_hashed(hashed: str, expected: dict[str, Any] | None) -> None:
    """The default route of a host as well as those of a VirtualService."""
    built = of_mesh(rule(f"{{loadBalancer: {{consistentHash: {{{hashed}}}}}}}"))
    routed = of_mesh(
        rule(f"{{loadBalancer: {{consistentHash: {{{hashed}}}}}}}"), ROUTES % "{route: [{destination: {host: carts}}]}"
    )
    for found in (built, routed):
        (action,) = actions(found, Node())
        shown = [MessageToDict(item, preserving_proto_field_name=True) for item in action.hash_policy]
        assert shown == ([expected] if expected else [])


def test_grpc_is_told_of_headers_only() -> None:
    for hashed, count in (("httpHeaderName: x", 1), ("httpCookie: {name: c}", 0)):
        (action,) = actions(of_mesh(rule(f"{{loadBalancer: {{consistentHash: {{{hashed}}}}}}}")), Node("grpc"))
        assert len(action.hash_policy) == count


SUBSETS = """
  , subsets: [{name: by-user, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: user}}}},
              {name: by-cart, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: cart}}}},
              {name: random, trafficPolicy: {loadBalancer: {simple: RANDOM}}}]"""


def test_what_is_hashed_is_that_of_subset_and_port() -> None:
    ports = "portLevelSettings: [{port: {number: 81}, loadBalancer: {consistentHash: {httpHeaderName: port}}}]"
    host = "{loadBalancer: {consistentHash: {httpHeaderName: host}}, " + ports + "}"
    text = ROUTES % ", ".join(
        f"{{match: [{{uri: {{exact: /{subset}}}}}], route: [{{destination: {{host: carts, subset: {subset}}}}}]}}"
        for subset in ("by-user", "random")
    )
    built = of_mesh(rule(host, SUBSETS), text)
    assert [[item.header.header_name for item in action.hash_policy] for action in actions(built, Node())] == [["user"], []]
    bare = of_mesh(rule(host))
    assert [action.hash_policy[0].header.header_name for port in (80, 81) for action in actions(bare, Node(), port)] == [
        "host",
        "port",
    ]


def test_a_split_hashes_for_all_of_its_destinations() -> None:
    """In their order, as in Istio."""
    shares = ", ".join(
        f"{{destination: {{host: carts, subset: {name}}}, weight: 1}}" for name in ("by-cart", "random", "by-user")
    )
    (action,) = actions(of_mesh(rule("{connectionPool: {tcp: {}}}", SUBSETS), ROUTES % f"{{route: [{shares}]}}"), Node())
    assert [item.header.header_name for item in action.hash_policy] == ["cart", "user"]


def test_a_hashed_call_is_retried_at_its_endpoint_unless_the_rule_avoids_it() -> None:
    hashed = rule("{loadBalancer: {consistentHash: {httpHeaderName: x}}}")
    (default,) = actions(of_mesh(hashed), Node())
    assert not default.retry_policy.retry_host_predicate
    text = ROUTES % "{route: [{destination: {host: carts}}], retries: {attempts: 1, retryIgnorePreviousHosts: true}}"
    (avoiding,) = actions(of_mesh(hashed, text), Node())
    assert avoiding.retry_policy.retry_host_predicate
    (plain,) = actions(of_mesh(), Node())
    assert plain.retry_policy.retry_host_predicate


RESILIENCE = f"""
apiVersion: meshlib.io/v1
kind: ResiliencePolicy
metadata: {{name: carts}}
spec: {{host: {HOST}, failureRateEjection: {{}}}}
"""
FAILOVER = "{outlierDetection: {}}"
LABELS = "{outlierDetection: {}, loadBalancer: {localityLbSetting: {failoverPriority: [version]}}}"
DISTRIBUTE = "{loadBalancer: {localityLbSetting: {distribute: [{from: us-east/*, to: {us-east: 90, eu-west: 10}}]}}}"


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_endpoints_are_ordered_for_the_caller(flavour: Flavour) -> None:
    built = of_mesh(rule(FAILOVER))
    assert endpoints(built, Node(flavour, locality="us-east/a/1")) == [("0", 0, 1), ("1", 1, 1), ("2", 2, 1)]
    assert endpoints(built, Node(flavour, locality="eu-west/a/1")) == [("2", 0, 1), ("0", 1, 1), ("1", 1, 1)]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_labels_of_the_caller_order_endpoints(flavour: Flavour) -> None:
    built = of_mesh(rule(LABELS))
    assert endpoints(built, Node(flavour, labels={"version": "v1"})) == [("1", 0, 1), ("2", 1, 1), ("0", 1, 1)]


def test_weights_of_a_distribution_count_in_the_cluster_of_whom_they_are_for() -> None:
    built = of_mesh(rule(DISTRIBUTE))
    here, there = Node(locality="us-east/a/1"), Node(locality="eu-west/a/1")
    assert endpoints(built, here) == [("2", 0, 10), ("0", 0, 45), ("1", 0, 45)]
    assert cluster(built, here).common_lb_config.HasField("locality_weighted_lb_config")
    assert not cluster(built, there).common_lb_config.HasField("locality_weighted_lb_config")


def test_zone_awareness_is_a_matter_of_the_client() -> None:
    built = of_mesh(rule("{loadBalancer: {zoneAwareLbSetting: {}}}"))
    node = Node(locality="us-east/a/1")
    assert cluster(built, node).common_lb_config.zone_aware_lb_config.min_cluster_size.value == 6
    assert endpoints(built, node) == [("0", 0, 1), ("1", 0, 1), ("2", 1, 1)]


def test_names_to_resolve_are_ordered_too() -> None:
    entry = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: e}
spec:
  hosts: [e.test]
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: a.e.test, locality: us-east/a}, {address: b.e.test, locality: eu-west/a}]
"""
    built = world(entry, rule(FAILOVER).replace(HOST, "e.test"))
    found = cluster(built, Node(locality="eu-west/a"), "outbound|80||e.test")
    assert [(part.locality.region, part.priority) for part in found.load_assignment.endpoints] == [
        ("eu-west", 0),
        ("us-east", 1),
    ]


def test_the_setting_of_the_mesh_holds_where_no_rule_says_otherwise() -> None:
    mesh = MESH % "{localityLbSetting: {distribute: [{from: '*', to: {eu-west: 100}}]}}"
    caller = Node(locality="us-east/a/1")
    assert endpoints(of_mesh(mesh), caller) == [("2", 0, 100)]
    assert len(endpoints(of_mesh(mesh, rule("{loadBalancer: {localityLbSetting: {}}}")), caller)) == 3
    off = MESH % "{localityLbSetting: {enabled: false}}"
    assert {priority for _, priority, _ in endpoints(of_mesh(off, rule(FAILOVER)), caller)} == {0}


def test_a_port_that_says_nothing_has_no_outlier_detection() -> None:
    """Ports inherit nothing: their endpoints are all alike."""
    ports = "portLevelSettings: [{port: {number: 81}, connectionPool: {tcp: {}}}]"
    built = of_mesh(rule("{outlierDetection: {}, " + ports + "}"))
    node = Node(locality="us-east/a/1")
    assert [{p for _, p, _ in endpoints(built, node, f"outbound|{port}||{HOST}")} for port in (80, 81)] == [{0, 1, 2}, {0}]


@pytest.mark.parametrize(
    ("texts", "differ"),
    [
        ((), False),
        ((rule("{loadBalancer: {localityLbSetting: {}}}"),), False),
        ((rule(FAILOVER),), True),
        ((rule("{connectionPool: {tcp: {}}}", ", subsets: [{name: x, trafficPolicy: {outlierDetection: {}}}]"),), True),
        ((rule(FAILOVER, ", exportTo: [.]"),), True),
        ((rule(FAILOVER, ", exportTo: [.]", "name: x, namespace: other"),), False),
        ((rule(FAILOVER, "", "name: x, namespace: other"),), True),
        ((rule(FAILOVER, ", exportTo: [.]", "name: x, namespace: istio-system"),), False),
        ((RESILIENCE,), True),
        ((RESILIENCE, MESH % "{localityLbSetting: {enabled: false}}"), False),
        ((rule(FAILOVER), MESH % "{localityLbSetting: {enabled: false}}"), False),
        ((MESH % "{localityLbSetting: {distribute: [{from: a, to: {b: 100}}]}}",), True),
        ((MESH % "{zoneAwareLbSetting: {}}",), True),
    ],
)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_callers_in_two_places_share_resources_unless_a_rule_they_see_tells_them_apart(
    texts: tuple[str, ...], differ: bool, flavour: Flavour
) -> None:
    built = of_mesh(*texts)
    scopes = {scope_of(built, Node(flavour, locality=place)) for place in PLACES}
    assert len(scopes) == (3 if differ else 1)


def test_failures_that_a_resilience_policy_notices_count_as_well() -> None:
    assert endpoints(of_mesh(RESILIENCE), Node(locality="eu-west/a/1")) == [("2", 0, 1), ("0", 1, 1), ("1", 1, 1)]
    labels = rule("{loadBalancer: {localityLbSetting: {failoverPriority: [version]}}}")
    caller = Node(labels={"version": "v1"})
    assert endpoints(of_mesh(RESILIENCE, labels), caller)[0] == ("1", 0, 1)
    assert {priority for _, priority, _ in endpoints(of_mesh(labels), caller)} == {0}


def test_a_workload_is_where_its_group_is() -> None:
    """The template's word holds, as for labels; a group that does not say leaves it to the process."""
    group = """
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: %s}
spec: {template: {%s}}
"""
    built = of_mesh(rule(FAILOVER), group % ("placed", "locality: eu-west/a/1"), group % ("anywhere", "labels: {a: b}"))
    for name, first in (("placed", "2"), ("anywhere", "0"), ("", "0"), ("unknown", "0")):
        assert endpoints(built, Node(group=name, locality="us-east/a/1"))[0] == (first, 0, 1)


def test_labels_that_nobody_asks_for_do_not_tell_callers_apart() -> None:
    one, other = Node(labels={"version": "v1", "pod": "a"}), Node(labels={"version": "v2", "pod": "a"})
    asking = of_mesh(rule(LABELS))
    assert scope_of(asking, one) != scope_of(asking, other)
    written = of_mesh(rule(LABELS.replace("version", "version=v1")))
    assert scope_of(written, one) == scope_of(written, other)


def test_a_change_of_endpoints_touches_no_more_than_before() -> None:
    """Its order is part of the assignment: clusters stay."""
    service, instances = registered("carts", *INSTANCES)
    config = config_set(rule(FAILOVER))
    old = World.of(config, catalog([service], instances))
    fewer = {HOST: (*INSTANCES[1:], Instance("9", "10.0.0.9", 80, {}, PLACES[0], health=InstanceHealth.UNHEALTHY))}
    new = World.of(config, catalog([service], fewer), previous=old)
    found = affected(old, new)
    assert (found.everything, found.endpoint_clusters) == (False, frozenset({NAME}))
    node = Node(locality="us-east/a/1")
    assert scope_of(old, node) == scope_of(new, node)
    assert cluster(old, node) == cluster(new, node)
    assert endpoints(new, node) == [("9", 0, 1), ("1", 1, 1), ("2", 2, 1)]


def test_the_pool_may_keep_the_callers_protocol() -> None:
    found = cluster(of_mesh(rule("{connectionPool: {http: {useClientProtocol: true}}}")), Node("envoy"))
    (options,) = found.typed_extension_protocol_options.values()
    both = cluster_pb2.HttpProtocolOptions.FromString(options.value).use_downstream_protocol_config
    assert both.HasField("http_protocol_options")
    assert both.HasField("http2_protocol_options")


@pytest.mark.parametrize(
    ("pool", "seconds"),
    [
        ("{tcp: {idleTimeout: 9s}}", 9),
        ("{tcp: {idleTimeout: 0s}}", 0),
        ("{tcp: {idleTimeout: 9s}, http: {idleTimeout: 30s}}", 30),
        ("{http: {idleTimeout: 30s}}", 30),
    ],
)
def test_connections_without_requests_end_by_the_settings_of_requests_first(pool: str, seconds: int) -> None:
    found = cluster(of_mesh(rule(f"{{connectionPool: {pool}}}")), Node())
    (options,) = found.typed_extension_protocol_options.values()
    common = cluster_pb2.HttpProtocolOptions.FromString(options.value).common_http_protocol_options
    assert common.HasField("idle_timeout")
    assert common.idle_timeout.seconds == seconds
