"""Who sees which service, VirtualService and DestinationRule, and which of several holds."""

from __future__ import annotations

import pytest

from meshlib.xds.proto import cluster_pb2, route_pb2
from meshlib.xds.types import CLUSTER, LISTENER, ROUTE
from meshlib_control.catalog.model import Port
from meshlib_control.compile import Node, World, generate, scope_of
from tests.support.configuring import registered, world

HOST = "orders.shop.svc.cluster.local"
SERVICES = [registered("orders", namespace="shop"), registered("users", namespace="shop")]


def rule(name: str, namespace: str, host: str, lb: str, export_to: str = "", subsets: str = "", selector: str = "") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  host: "{host}"
  {f"exportTo: {export_to}" if export_to else ""}
  {f"workloadSelector: {{matchLabels: {selector}}}" if selector else ""}
  {f"subsets: {subsets}" if subsets else ""}
  {f"trafficPolicy: {{loadBalancer: {{simple: {lb}}}}}" if lb else ""}
"""


def routing(name: str, namespace: str, host: str, *, export_to: str = "", match: str = "") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  hosts: ["{host}"]
  {f"exportTo: {export_to}" if export_to else ""}
  http:
  - name: {name}
    {f"match: [{match}]" if match else ""}
    route: [{{destination: {{host: {HOST}}}}}]
"""


def balancer(built: World, namespace: str = "default", host: str = HOST, **labels: str) -> str:
    node = Node(namespace=namespace, labels=labels)
    name = f"outbound|80||{host}"
    found = generate(built, scope_of(built, node), CLUSTER, [name])[name]
    assert isinstance(found, cluster_pb2.Cluster)
    return cluster_pb2.Cluster.LbPolicy.Name(found.lb_policy)


def route_names(built: World, namespace: str = "default", host: str = HOST, **labels: str) -> list[str]:
    node = Node(namespace=namespace, labels=labels)
    found = generate(built, scope_of(built, node), ROUTE, [f"{host}:80"])[f"{host}:80"]
    assert isinstance(found, route_pb2.RouteConfiguration)
    return [route.name for route in found.virtual_hosts[0].routes]


def test_rule_of_the_caller_then_of_the_service_then_of_the_root() -> None:
    root = rule("root", "istio-system", "*", "RANDOM")
    service = rule("service", "shop", "orders", "ROUND_ROBIN")
    caller = rule("caller", "default", HOST, "LEAST_REQUEST")
    assert balancer(world(services=SERVICES)) == "LEAST_REQUEST"
    assert balancer(world(root, services=SERVICES)) == "RANDOM"
    assert balancer(world(root, service, services=SERVICES)) == "ROUND_ROBIN"
    assert balancer(world(root, service, caller, services=SERVICES)) == "LEAST_REQUEST"
    assert balancer(world(root, service, caller, services=SERVICES), namespace="third") == "ROUND_ROBIN"


def test_rule_of_a_third_namespace_never_holds() -> None:
    assert balancer(world(rule("third", "third", HOST, "RANDOM"), services=SERVICES)) == "LEAST_REQUEST"


def test_rule_that_is_not_exported_holds_at_home_only() -> None:
    built = world(rule("service", "shop", "orders", "RANDOM", export_to='["."]'), services=SERVICES)
    assert balancer(built, namespace="shop") == "RANDOM"
    assert balancer(built, namespace="default") == "LEAST_REQUEST"


def test_rule_may_be_exported_by_name() -> None:
    built = world(rule("service", "shop", "orders", "RANDOM", export_to="[friends]"), services=SERVICES)
    assert balancer(built, namespace="friends") == "RANDOM"
    assert balancer(built, namespace="default") == "LEAST_REQUEST"


def test_narrowest_host_of_a_namespace_holds() -> None:
    wide = rule("wide", "shop", "*.svc.cluster.local", "RANDOM")
    narrow = rule("narrow", "shop", "*.shop.svc.cluster.local", "ROUND_ROBIN")
    exact = rule("exact", "shop", "orders", "LEAST_REQUEST")
    built = world(wide, narrow, exact, services=SERVICES)
    assert balancer(built) == "LEAST_REQUEST"
    assert balancer(built, host="users.shop.svc.cluster.local") == "ROUND_ROBIN"


def test_rules_for_one_host_merge_and_the_oldest_of_a_name_holds() -> None:
    first = rule("first", "shop", "orders", "", subsets="[{name: a, labels: {x: first}}]")
    second = rule("second", "shop", HOST, "RANDOM", subsets="[{name: a, labels: {x: second}}, {name: b, labels: {}}]")
    built = world(first, second, rule("third", "shop", "orders", "ROUND_ROBIN"), services=SERVICES)
    merged = built.destination_rules.holding_for(built.services.hosts[HOST][0], "default", {})
    assert merged is not None
    assert {name: subset.labels for name, subset in (merged.subsets or {}).items()} == {"a": {"x": "first"}, "b": {}}
    assert balancer(built) == "RANDOM"


def test_rule_for_some_callers_comes_before_that_for_all() -> None:
    some = rule("some", "default", HOST, "RANDOM", selector="{app: web}")
    every = rule("every", "default", HOST, "ROUND_ROBIN")
    built = world(every, some, services=SERVICES)
    assert balancer(built, app="web") == "RANDOM"
    assert balancer(built, app="other") == "ROUND_ROBIN"


def test_oldest_virtual_service_holds() -> None:
    built = world(routing("older", "default", HOST), routing("newer", "default", HOST), services=SERVICES)
    assert route_names(built) == ["older"]


def test_private_virtual_service_comes_before_older_public_ones() -> None:
    built = world(
        routing("public", "shop", HOST),
        routing("for-default", "shop", HOST, export_to="[default]"),
        routing("private", "default", HOST, export_to='["."]'),
        services=SERVICES,
    )
    assert route_names(built, "default") == ["private"]
    assert route_names(built, "third") == ["public"]
    without = world(
        routing("public", "shop", HOST), routing("for-default", "shop", HOST, export_to="[default]"), services=SERVICES
    )
    assert route_names(without, "default") == ["for-default"]


def test_exact_host_comes_before_wildcards_narrow_before_wide() -> None:
    wide, narrow = routing("wide", "default", "*.local"), routing("narrow", "default", "*.shop.svc.cluster.local")
    exact = routing("exact", "default", "orders.shop")
    assert route_names(world(wide, services=SERVICES)) == ["wide"]
    assert route_names(world(wide, narrow, services=SERVICES)) == ["narrow"]
    assert route_names(world(wide, narrow, exact, services=SERVICES)) == ["exact"]


def test_virtual_service_without_a_rule_for_the_caller_makes_way() -> None:
    picky = routing("picky", "default", HOST, match="{sourceLabels: {app: web}}")
    built = world(picky, routing("next", "default", HOST), services=SERVICES)
    assert route_names(built, app="web") == ["picky"]
    assert route_names(built, app="other") == ["next"]
    assert route_names(world(picky, services=SERVICES)) == ["default"]


def test_virtual_service_of_gateways_only_is_not_for_workloads() -> None:
    text = routing("edge", "default", HOST).replace("  http:", "  gateways: [ingress]\n  http:")
    assert route_names(world(text, services=SERVICES)) == ["default"]


def test_defaults_of_visibility_are_the_meshs() -> None:
    mesh = """
apiVersion: meshlib.io/v1
kind: MeshConfig
metadata: {name: mesh}
spec: {defaultVirtualServiceExportTo: ["."], defaultDestinationRuleExportTo: ["."]}
"""
    built = world(mesh, routing("v", "shop", HOST), rule("d", "shop", HOST, "RANDOM"), services=SERVICES)
    assert (route_names(built, "shop"), balancer(built, "shop")) == (["v"], "RANDOM")
    assert (route_names(built, "default"), balancer(built, "default")) == (["default"], "LEAST_REQUEST")


ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %(name)s, namespace: %(namespace)s}
spec:
  hosts: [api.example.com]
  exportTo: %(export_to)s
  resolution: STATIC
  ports: [{number: %(port)d, name: http, protocol: HTTP}]
  endpoints: [{address: %(address)s}]
"""


def entry(name: str, namespace: str, address: str, *, port: int = 80, export_to: str = '["*"]') -> str:
    return ENTRY % {"name": name, "namespace": namespace, "address": address, "port": port, "export_to": export_to}


def addresses(built: World, namespace: str) -> list[str]:
    service = built.services.find("api.example.com", namespace)
    return [instance.address for instance in built.instances_of(service)] if service else []


def test_own_service_entry_comes_before_the_oldest() -> None:
    built = world(
        entry("a", "one", "192.0.2.1"), entry("b", "two", "192.0.2.2"), entry("c", "three", "192.0.2.3", export_to='["."]')
    )
    assert addresses(built, "one") == ["192.0.2.1"]
    assert addresses(built, "two") == ["192.0.2.2"]
    assert addresses(built, "three") == ["192.0.2.3"]
    assert addresses(built, "four") == ["192.0.2.1"]


def test_service_entries_of_one_namespace_add_up() -> None:
    built = world(entry("a", "one", "192.0.2.1"), entry("b", "one", "192.0.2.2", port=81))
    assert addresses(built, "one") == ["192.0.2.1", "192.0.2.2"]
    (service,) = built.services.visible("one")
    assert [port.number for port in service.ports] == [80, 81]


@pytest.mark.parametrize(
    ("authority", "namespace", "found"),
    [
        ("orders:80", "shop", True),
        ("orders:80", "default", False),
        ("orders.shop:80", "default", True),
        ("ORDERS.shop.svc:80", "default", True),
        ("orders.shop.svc.cluster.local:80", "default", True),
        ("orders.shop.svc.cluster.local.:80", "default", True),
        ("orders.shop:81", "default", False),
        ("orders.shop.svc.cluster:80", "default", False),
        ("orders.default:80", "default", False),
        ("orders.shop:http", "default", False),
        ("240.0.0.9:80", "default", True),
        ("240.0.0.8:80", "default", False),
        ("[fd00::9]:80", "default", True),
        ("any.wild.test:80", "default", True),
        ("wild.test:80", "default", False),
    ],
)
def test_aliases_by_namespace(authority: str, namespace: str, found: bool) -> None:
    wild = entry("w", "default", "192.0.2.1").replace("api.example.com", '"*.wild.test"')
    virtual = entry("v", "default", "192.0.2.1").replace(
        "  exportTo", '  addresses: [240.0.0.9, "fd00::9", 10.0.0.0/8]\n  exportTo'
    )
    built = world(wild, virtual, services=[registered("orders", namespace="shop", ports=(Port(80),))])
    for flavour in ("meshlib", "grpc"):
        scope = scope_of(built, Node(flavour=flavour, namespace=namespace))
        assert bool(generate(built, scope, LISTENER, [authority])) == found, flavour


@pytest.mark.parametrize(
    ("authority", "namespace", "found"),
    [
        ("planned:80", "default", True),
        ("planned", "default", True),
        ("planned.default:80", "default", True),
        ("planned.default.svc.cluster.local:80", "other", True),
        ("planned:80", "other", False),
        ("planned:81", "default", False),
        ("nowhere.example.com:80", "default", True),
    ],
)
def test_hosts_that_only_a_virtual_service_knows(authority: str, namespace: str, found: bool) -> None:
    """On port 80 only, as in Istio."""
    built = world(routing("a", "default", "planned"), routing("b", "default", "nowhere.example.com"), services=SERVICES)
    scope = scope_of(built, Node(namespace=namespace))
    assert bool(generate(built, scope, LISTENER, [authority])) == found
