"""What differs between meshlib, Envoy and grpcio, and what every meshlib client makes of it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from meshlib.model.cluster import Discovery
from meshlib.model.route import Forward
from meshlib.model.snapshot import Snapshot
from meshlib.xds.decode import decode
from meshlib.xds.join import Roots, join
from meshlib.xds.proto import cluster_pb2, endpoint_pb2, listener_pb2, route_pb2
from meshlib.xds.states import ResourceKey, ResourceState, Status
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, PREFIX, ROUTE
from meshlib_control.catalog.model import Instance, InstanceHealth, Port
from meshlib_control.compile import Flavour, Node, Scope, World, compile_document, generate, scope_of
from tests.support.configuring import registered, world

HOST = "reviews.default.svc.cluster.local"
CONFIG = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy:
    loadBalancer: {simple: LEAST_REQUEST}
    connectionPool: {http: {http2MaxRequests: 30, maxRetries: 4}, tcp: {maxConnections: 5}}
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - name: query
    match: [{queryParams: {q: {exact: x}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - name: web
    match: [{sourceLabels: {app: web}, headers: {end-user: {}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - name: rest
    route: [{destination: {host: reviews, subset: v1}}]
    timeout: 3s
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: dns}
spec:
  hosts: [dns.example.com]
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: https, protocol: HTTPS}]
  endpoints: [{address: a.example.com}, {address: b.example.com}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: anywhere}
spec: {hosts: ["*.example.org"], resolution: NONE, ports: [{number: 80, name: http, protocol: HTTP}]}
"""


def instance(number: int, version: str, **fields: object) -> Instance:
    return Instance(f"i{number}", f"10.0.0.{number}", 9080, labels={"version": version}, **fields)  # type: ignore[arg-type]


WORLD = world(
    CONFIG,
    services=[
        registered(
            "reviews",
            instance(2, "v2", locality="eu/b"),
            instance(1, "v1", locality="eu/a", weight=3),
            instance(3, "v1", locality="eu/a", health=InstanceHealth.UNHEALTHY),
            Instance("i9", "10.0.0.1", 9080, labels={"version": "v1"}, locality="eu/a"),  # the same address once more
            Instance("named", "node.test", 80, labels={"version": "v1"}),
            ports=(Port(80), Port(9090, "grpc", "grpc"), Port(6379, "redis", "redis")),
        )
    ],
)


def scope(flavour: Flavour, **labels: str) -> Scope:
    return scope_of(WORLD, Node(flavour=flavour, labels=labels))


def routes(flavour: Flavour, name: str, **labels: str) -> route_pb2.RouteConfiguration:
    found = generate(WORLD, scope(flavour, **labels), ROUTE, [name])[name]
    assert isinstance(found, route_pb2.RouteConfiguration)
    return found


def cluster(flavour: Flavour, name: str) -> cluster_pb2.Cluster:
    found = generate(WORLD, scope(flavour), CLUSTER, [name])[name]
    assert isinstance(found, cluster_pb2.Cluster)
    return found


def endpoints(flavour: Flavour, name: str) -> endpoint_pb2.ClusterLoadAssignment:
    found = generate(WORLD, scope(flavour), ENDPOINTS, [name])[name]
    assert isinstance(found, endpoint_pb2.ClusterLoadAssignment)
    return found


def snapshot(built: World, authorities: Iterable[str], node: Node) -> Snapshot:
    """What a client makes of it: ask for what the join wants until it wants nothing more."""
    states: dict[ResourceKey, ResourceState] = {}
    client = scope_of(built, node)
    current = Snapshot()
    for _ in range(6):
        joined = join(states, Roots(tuple(authorities)), current)
        current = joined.snapshot
        for type_url, names in joined.wanted.items():
            found = generate(built, client, type_url, names)
            for name in names:
                if name in found:
                    _, value = decode(type_url, found[name].SerializeToString(deterministic=True))
                    states[type_url, name] = ResourceState(Status.ACKED, value)
                else:
                    states[type_url, name] = ResourceState(Status.DOES_NOT_EXIST)
    return current


def test_scope_holds_only_labels_that_some_rule_asks_for() -> None:
    assert scope("meshlib", app="web", version="v7") == Scope("meshlib", "default", (("app", "web"),))
    assert scope("meshlib", version="v7") == scope("meshlib")


def test_names_that_do_not_exist_are_left_out() -> None:
    for type_url, name in [
        (LISTENER, "nobody:80"),
        (ROUTE, "nobody:80"),
        (ROUTE, "no port"),
        (CLUSTER, f"outbound|80|v9|{HOST}"),
        (CLUSTER, f"outbound|81||{HOST}"),
        (CLUSTER, "nonsense"),
        (ENDPOINTS, f"outbound|80|v9|{HOST}"),
        (ENDPOINTS, "outbound|80||dns.example.com"),
        (PREFIX + "envoy.Secret", "x"),
    ]:
        for flavour in ("meshlib", "envoy", "grpc"):
            assert generate(WORLD, scope(flavour), type_url, [name]) == {}, (type_url, name, flavour)


def test_every_alias_leads_to_one_route_configuration() -> None:
    for flavour in ("meshlib", "grpc"):
        names = {"reviews:80", "reviews.default:80", f"{HOST}:80", f"{HOST}.:80"}
        found = generate(WORLD, scope(flavour), LISTENER, names)
        assert set(found) == names
        for name, message in found.items():
            assert isinstance(message, listener_pb2.Listener)
            assert message.name == name
            manager = listener_pb2.HttpConnectionManager.FromString(message.api_listener.api_listener.value)
            assert manager.rds.route_config_name == f"{HOST}:80"


def test_grpc_targets_may_leave_the_port_out() -> None:
    assert set(generate(WORLD, scope("grpc"), LISTENER, ["reviews"])) == {"reviews"}


def test_source_labels_are_decided_for_the_caller() -> None:
    name = f"{HOST}:80"
    assert [route.name for route in routes("meshlib", name).virtual_hosts[0].routes] == ["query", "rest"]
    assert [route.name for route in routes("meshlib", name, app="web").virtual_hosts[0].routes] == ["query", "web", "rest"]


def test_grpc_gets_no_timeouts_and_no_query_conditions() -> None:
    (host,) = routes("grpc", f"{HOST}:80").virtual_hosts
    (rest,) = host.routes
    assert rest.name == "rest"
    assert not rest.route.HasField("timeout")
    assert not rest.route.HasField("max_stream_duration")
    assert rest.route.retry_policy.retry_on == "unavailable,cancelled"
    assert set(host.domains) >= {"reviews", "reviews:80", HOST, f"{HOST}:80"}


def test_ports_without_http_get_no_rules_and_no_retries() -> None:
    (host,) = routes("meshlib", f"{HOST}:6379").virtual_hosts
    (default,) = host.routes
    assert default.name == "default"
    assert not default.route.HasField("retry_policy")
    assert f"outbound|6379||{HOST}" not in generate(WORLD, scope("envoy"), CLUSTER)


def test_grpc_clusters_have_what_grpcio_accepts() -> None:
    found = cluster("grpc", f"outbound|80|v1|{HOST}")
    assert found.lb_policy == cluster_pb2.Cluster.ROUND_ROBIN
    assert found.type == cluster_pb2.Cluster.EDS
    (limit,) = found.circuit_breakers.thresholds
    assert [field.name for field, _ in limit.ListFields()] == ["max_requests"]
    assert limit.max_requests.value == 30
    dns = cluster("grpc", "outbound|80||dns.example.com")
    assert dns.type == cluster_pb2.Cluster.LOGICAL_DNS
    assert len(dns.load_assignment.endpoints[0].lb_endpoints) == 1
    assert generate(WORLD, scope("grpc"), CLUSTER, ["outbound|80||*.example.org", "outbound|443||dns.example.com"]) == {}


def test_a_retry_budget_is_always_on() -> None:
    for flavour in ("meshlib", "envoy"):
        for name in (f"outbound|80|v1|{HOST}", "outbound|80||dns.example.com", "PassthroughCluster"):
            (limit,) = cluster(flavour, name).circuit_breakers.thresholds
            assert limit.retry_budget.budget_percent.value == 20
            assert limit.retry_budget.min_retry_concurrency.value == 3


@pytest.mark.parametrize("flavour", ["envoy", "meshlib"])
def test_nobody_panics_over_endpoints_that_are_known_to_be_unhealthy(flavour: Flavour) -> None:
    common = cluster(flavour, f"outbound|80||{HOST}").common_lb_config
    assert common.HasField("healthy_panic_threshold")
    assert common.healthy_panic_threshold.value == 0.0


def test_http2_towards_grpc_ports_only() -> None:
    for port, expected in ((9090, True), (80, False)):
        packed = cluster("envoy", f"outbound|{port}||{HOST}").typed_extension_protocol_options
        options = [cluster_pb2.HttpProtocolOptions.FromString(value.value) for value in packed.values()]
        assert any(item.explicit_http_config.HasField("http2_protocol_options") for item in options) == expected


def test_endpoints_are_grouped_sorted_and_each_address_comes_once() -> None:
    found = endpoints("meshlib", f"outbound|80||{HOST}")
    shape = [
        (
            group.locality.zone,
            group.load_balancing_weight.value,
            [(item.endpoint.address.socket_address.address, item.load_balancing_weight.value) for item in group.lb_endpoints],
        )
        for group in found.endpoints
    ]
    assert shape == [("a", 4, [("10.0.0.1", 3), ("10.0.0.3", 1)]), ("b", 1, [("10.0.0.2", 1)])]


def test_order_of_instances_does_not_change_the_bytes() -> None:
    (instances,) = WORLD.instances.values()
    service, _ = registered("reviews", ports=(Port(80),))
    turned = world(CONFIG, services=[(service, {HOST: tuple(reversed(instances))})])
    straight = world(CONFIG, services=[(service, {HOST: instances})])
    name = f"outbound|80||{HOST}"
    first, second = (
        generate(built, scope_of(built, Node()), ENDPOINTS, [name])[name].SerializeToString(deterministic=True)
        for built in (turned, straight)
    )
    assert first == second


def test_labels_travel_where_they_are_used() -> None:
    name = f"outbound|80|v2|{HOST}"
    expected: dict[Flavour, bool] = {"meshlib": True, "envoy": True, "grpc": False}
    for flavour, sent in expected.items():
        (item,) = endpoints(flavour, name).endpoints[0].lb_endpoints
        assert item.HasField("metadata") == sent, flavour


@pytest.mark.parametrize("flavour", ["meshlib", "envoy", "grpc"])
def test_wildcard_names_are_the_ones_that_exist(flavour: Flavour) -> None:
    for type_url in (LISTENER, ROUTE, CLUSTER, ENDPOINTS):
        everything = generate(WORLD, scope(flavour), type_url)
        assert everything
        assert generate(WORLD, scope(flavour), type_url, list(everything)) == everything


def test_a_client_joins_what_it_is_sent() -> None:
    authorities = ["reviews:80", "reviews.default:9090", "dns.example.com:80", "dns.example.com:443", "api.example.org:80"]
    found = snapshot(WORLD, [*authorities, "nobody:80"], Node(labels={"app": "web"}))
    assert set(found.targets) == set(authorities)
    assert set(found.absent) == {"nobody:80"}
    assert found.allow_any is True
    reviews = found.targets["reviews:80"]
    assert [route.name for route in reviews.virtual_host.routes] == ["query", "web", "rest"]
    v1 = reviews.clusters[f"outbound|80|v1|{HOST}"]
    assert [endpoint.key for endpoint in v1.endpoints] == ["10.0.0.1:9080", "10.0.0.3:9080"]
    assert v1.cluster is not None
    assert (v1.cluster.host, v1.cluster.subset, v1.cluster.port) == (HOST, "v1", 80)
    assert (v1.cluster.circuit_breakers.max_connections, v1.cluster.circuit_breakers.max_requests) == (5, 30)
    discoveries = {
        authority: config.cluster.discovery
        for authority in authorities
        for config in found.targets[authority].clusters.values()
        if config.cluster is not None
    }
    assert discoveries["dns.example.com:80"] is Discovery.DNS
    assert discoveries["dns.example.com:443"] is Discovery.PASSTHROUGH
    assert discoveries["api.example.org:80"] is Discovery.PASSTHROUGH


def test_clients_default_route_has_no_timeout_and_istios_retries() -> None:
    found = snapshot(WORLD, ["dns.example.com:80"], Node()).targets["dns.example.com:80"]
    (route,) = found.virtual_host.routes
    assert isinstance(route.action, Forward)
    assert route.action.timeout == 0.0
    assert route.action.retry is not None
    assert (route.action.retry.attempts, route.action.retry.previous_hosts) == (2, True)
    assert found.virtual_host.attempt_count_header


@pytest.mark.parametrize("flavour", ["meshlib", "envoy", "grpc"])
def test_document_is_in_order_and_shows_the_short_listeners(flavour: Flavour) -> None:
    found = compile_document(WORLD, Node(flavour=flavour))
    kinds = [str(resource["@type"]) for resource in found]
    assert kinds == sorted(kinds, key=[LISTENER, ROUTE, CLUSTER, ENDPOINTS].index)
    names = [resource["name"] for resource in found if resource["@type"] == LISTENER]
    assert names == sorted(map(str, names))
    assert ("reviews:80" in names) == (flavour != "envoy")
