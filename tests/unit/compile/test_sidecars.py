"""Sidecar: which one holds, and what of the mesh it lets a workload see, by the examples of Istio's documentation."""

from __future__ import annotations

import pytest

from meshlib.xds.proto import listener_pb2, route_pb2
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE
from meshlib_control.catalog.model import Instance, Port
from meshlib_control.compile import Node, World, generate, scope_of
from meshlib_control.compile.names import ALLOW_ANY, BLOCK_ALL, VIRTUAL_OUTBOUND
from meshlib_control.compile.node import Flavour
from meshlib_control.compile.view import reached_services, seen_services
from tests.support.configuring import registered, world

NS = "svc.cluster.local"
SERVICES = [
    registered("ratings", Instance("r1", "10.0.0.1", 9080), namespace="prod-us1", ports=(Port(9080),)),
    registered("users", Instance("u1", "10.0.0.2", 9080), namespace="prod-us1", ports=(Port(9080), Port(80))),
    registered("pay", Instance("p1", "10.0.0.3", 80), namespace="prod-apis"),
    registered("db", Instance("d1", "10.0.0.4", 80), namespace="prod-db"),
]


def sidecar(name: str, namespace: str = "prod-us1", *, labels: str = "", egress: str = "", more: str = "") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  {f"workloadSelector: {{labels: {labels}}}" if labels else ""}
  {f"egress: {egress}" if egress else ""}
  {more}
"""


def routing(name: str, namespace: str, hosts: str, to: str) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  hosts: {hosts}
  http: [{{name: {name}, route: [{{destination: {{host: {to}}}}}]}}]
"""


def seen(built: World, namespace: str = "prod-us1", **labels: str) -> list[str]:
    """Short names of what a workload may call."""
    scope = scope_of(built, Node(namespace=namespace, labels=labels))
    return sorted(service.host.partition(".")[0] for service in seen_services(built, scope))


def listeners(built: World, *names: str, namespace: str = "prod-us1", flavour: Flavour = "meshlib", **labels: str) -> list[str]:
    """Those of the names that have a listener of their own."""
    scope = scope_of(built, Node(flavour=flavour, namespace=namespace, labels=labels))
    return [name for name, found in generate(built, scope, LISTENER, names).items() if not is_outside(found)]


def is_outside(found: object) -> bool:
    """Whether a listener says that its host is none of the mesh."""
    assert isinstance(found, listener_pb2.Listener)
    manager = listener_pb2.HttpConnectionManager.FromString(found.api_listener.api_listener.value)
    return manager.route_config.name == VIRTUAL_OUTBOUND


ALL = ["db", "pay", "ratings", "users"]


@pytest.mark.parametrize(
    ("hosts", "names"),
    [
        ("['*/*']", ALL),
        ("['./*']", ["ratings", "users"]),
        ("['~/*']", []),
        ("['prod-apis/*']", ["pay"]),
        ("['./*', 'prod-apis/*']", ["pay", "ratings", "users"]),
        (f"['*/pay.prod-apis.{NS}']", ["pay"]),
        (f"['prod-db/pay.prod-apis.{NS}']", []),
        (f"['*/*.prod-us1.{NS}']", ["ratings", "users"]),
        (f"['./ratings.prod-us1.{NS}']", ["ratings"]),
        ("['*/*', '~prod-db/*']", ["pay", "ratings", "users"]),
        (f"['*/*', '~./users.prod-us1.{NS}', '~*/*.prod-db.{NS}']", ["pay", "ratings"]),
    ],
)
def test_hosts_of_egress(hosts: str, names: list[str]) -> None:
    assert seen(world(sidecar("default", egress=f"[{{hosts: {hosts}}}]"), services=SERVICES)) == names


def test_without_a_sidecar_and_without_egress_everything_is_seen() -> None:
    assert seen(world(services=SERVICES)) == ALL
    assert seen(world(sidecar("default", more="outboundTrafficPolicy: {}"), services=SERVICES)) == ALL


def test_the_one_that_selects_then_that_of_the_namespace_then_that_of_the_root() -> None:
    """It is one that holds, as a whole: nothing is merged."""
    root = sidecar("default", "istio-system", egress="[{hosts: ['prod-db/*']}]")
    own = sidecar("default", egress="[{hosts: ['./*']}]")
    selecting = sidecar("pay", labels="{app: web}", egress="[{hosts: ['prod-apis/*']}]")
    built = world(root, own, selecting, services=SERVICES)
    assert seen(built, "prod-us1", app="web") == ["pay"]
    assert seen(built, "prod-us1", app="other") == ["ratings", "users"]
    assert seen(built, "prod-apis", app="web") == ["db"]


def test_of_several_the_oldest_holds() -> None:
    first = sidecar("first", egress="[{hosts: ['./*']}]")
    second = sidecar("second", egress="[{hosts: ['prod-db/*']}]")
    assert seen(world(first, second, services=SERVICES)) == ["ratings", "users"]
    assert seen(world(second, first, services=SERVICES)) == ["db"]


def test_one_of_the_root_namespace_that_selects_is_for_that_namespace_alone() -> None:
    root = sidecar("some", "istio-system", labels="{app: web}", egress="[{hosts: ['~/*']}]")
    assert seen(world(root, services=SERVICES), "prod-us1", app="web") == ALL
    assert seen(world(root, services=SERVICES), "istio-system", app="web") == []


def test_a_dot_in_the_root_namespace_is_the_namespace_of_the_workload() -> None:
    built = world(sidecar("default", "istio-system", egress="[{hosts: ['./*', 'istio-system/*']}]"), services=SERVICES)
    assert (seen(built, "prod-us1"), seen(built, "prod-db")) == (["ratings", "users"], ["db"])


def test_a_listener_with_a_port_takes_it_for_its_hosts() -> None:
    """Istio's example: port 9080 is for prod-us1, everything else for prod-apis."""
    egress = "[{port: {number: 9080, protocol: HTTP, name: egresshttp}, hosts: ['prod-us1/*']}, {hosts: ['prod-apis/*']}]"
    built = world(sidecar("default", egress=egress), services=SERVICES)
    assert seen(built) == ["pay", "ratings", "users"]
    asked = [f"ratings.prod-us1.{NS}:9080", f"users.prod-us1.{NS}:9080", f"users.prod-us1.{NS}:80", f"pay.prod-apis.{NS}:80"]
    assert listeners(built, *asked) == [asked[0], asked[1], asked[3]]


@pytest.mark.parametrize("flavour", ["meshlib", "grpc"])
def test_what_is_not_seen_has_no_listener_by_any_name(flavour: Flavour) -> None:
    names = ("pay.prod-apis:80", f"pay.prod-apis.{NS}:80", "ratings:9080")
    open_world = world(services=SERVICES)
    scoped = world(sidecar("default", egress="[{hosts: ['./*']}]"), services=SERVICES)
    assert listeners(open_world, *names, flavour=flavour) == list(names)
    assert listeners(scoped, *names, flavour=flavour) == ["ratings:9080"]


def test_a_process_of_meshlib_is_told_what_it_does_not_see() -> None:
    """What was there and is merely gone it would keep; what nobody knows has no listener at all."""
    scoped = world(sidecar("default", egress="[{hosts: ['./*']}]"), services=SERVICES)
    scope = scope_of(scoped, Node(namespace="prod-us1"))
    found = generate(scoped, scope, LISTENER, ["pay.prod-apis:80", "pay.prod-apis:81", "ratings:9080", "nobody:80"])
    assert {name: is_outside(listener) for name, listener in found.items()} == {"pay.prod-apis:80": True, "ratings:9080": False}


@pytest.mark.parametrize("flavour", ["meshlib", "envoy", "grpc"])
def test_what_is_not_seen_has_no_cluster_and_no_endpoints(flavour: Flavour) -> None:
    built = world(sidecar("default", egress="[{hosts: ['./*']}]"), services=SERVICES)
    scope = scope_of(built, Node(flavour=flavour, namespace="prod-us1"))
    hidden, shown = f"outbound|80||pay.prod-apis.{NS}", f"outbound|9080||ratings.prod-us1.{NS}"
    for type_url in (CLUSTER, ENDPOINTS):
        assert set(generate(built, scope, type_url, [hidden, shown])) == {shown}
        assert hidden not in generate(built, scope, type_url)
        assert shown in generate(built, scope, type_url)


def test_the_proxy_of_an_envoy_knows_what_is_seen() -> None:
    built = world(sidecar("default", egress="[{hosts: ['./*']}]"), services=SERVICES)
    scope = scope_of(built, Node(flavour="envoy", namespace="prod-us1"))
    (found,) = generate(built, scope, ROUTE).values()
    assert isinstance(found, route_pb2.RouteConfiguration)
    names = [host.name for host in found.virtual_hosts]
    assert names == [f"ratings.prod-us1.{NS}:9080", f"users.prod-us1.{NS}:9080", f"users.prod-us1.{NS}:80", ALLOW_ANY]


def test_destinations_of_routes_that_are_seen_have_clusters() -> None:
    """As in Istio: who may call the route must be able to follow it.  By its own name the destination is not called."""
    built = world(
        routing("users", "prod-us1", f"[users.prod-us1.{NS}]", f"db.prod-db.{NS}"),
        sidecar("default", egress="[{hosts: ['./*']}]"),
        services=SERVICES,
    )
    scope = scope_of(built, Node(namespace="prod-us1"))
    assert next(service.host for service in reached_services(built, scope)) == f"db.prod-db.{NS}"
    assert set(generate(built, scope, CLUSTER, [f"outbound|80||db.prod-db.{NS}"])) == {f"outbound|80||db.prod-db.{NS}"}
    assert listeners(built, f"db.prod-db.{NS}:80") == []


def route_names(built: World, host: str, namespace: str = "prod-us1") -> list[str]:
    scope = scope_of(built, Node(namespace=namespace))
    found = generate(built, scope, ROUTE, [host])[host]
    assert isinstance(found, route_pb2.RouteConfiguration)
    return [route.name for route in found.virtual_hosts[0].routes]


def test_virtual_services_are_seen_by_their_own_namespace() -> None:
    """An entry names the namespace that a resource is in, which for a route need not be that of the service."""
    host = f"ratings.prod-us1.{NS}"
    foreign = routing("foreign", "prod-apis", f"[{host}]", host)
    assert route_names(world(foreign, services=SERVICES), f"{host}:9080") == ["foreign"]
    own = sidecar("default", egress="[{hosts: ['./*']}]")
    both = sidecar("default", egress="[{hosts: ['./*', 'prod-apis/*']}]")
    assert route_names(world(foreign, own, services=SERVICES), f"{host}:9080") == ["default"]
    assert route_names(world(foreign, both, services=SERVICES), f"{host}:9080") == ["foreign"]


def outside(built: World, namespace: str = "prod-us1") -> str:
    scope = scope_of(built, Node(namespace=namespace))
    found = generate(built, scope, LISTENER, [VIRTUAL_OUTBOUND])[VIRTUAL_OUTBOUND]
    assert isinstance(found, listener_pb2.Listener)
    manager = listener_pb2.HttpConnectionManager.FromString(found.api_listener.api_listener.value)
    return str(manager.route_config.virtual_hosts[0].name)


MESH = """
apiVersion: meshlib.io/v1
kind: MeshConfig
metadata: {name: mesh}
spec: {outboundTrafficPolicy: {mode: %s}}
"""


@pytest.mark.parametrize(
    ("mesh", "own", "expected"),
    [
        ("ALLOW_ANY", "", ALLOW_ANY),
        ("REGISTRY_ONLY", "", BLOCK_ALL),
        ("ALLOW_ANY", "outboundTrafficPolicy: {mode: REGISTRY_ONLY}", BLOCK_ALL),
        ("REGISTRY_ONLY", "outboundTrafficPolicy: {mode: ALLOW_ANY}", ALLOW_ANY),
        ("ALLOW_ANY", "outboundTrafficPolicy: {}", BLOCK_ALL),
    ],
)
def test_outbound_traffic_policy_of_the_sidecar_then_of_the_mesh(mesh: str, own: str, expected: str) -> None:
    """A policy without a mode is REGISTRY_ONLY, as Istio's message has it."""
    text = sidecar("default", egress="[{hosts: ['./*']}]", more=own)
    built = world(MESH % mesh, text, services=SERVICES)
    assert outside(built) == expected
    assert outside(built, "prod-db") == (ALLOW_ANY if mesh == "ALLOW_ANY" else BLOCK_ALL)


def test_only_namespaces_with_a_selector_split_their_scopes() -> None:
    built = world(sidecar("web", labels="{app: web}", egress="[{hosts: ['./*']}]"), services=SERVICES)

    def scopes(namespace: str) -> int:
        return len({scope_of(built, Node(namespace=namespace, labels={"app": app})) for app in ("web", "other")})

    assert (scopes("prod-us1"), scopes("prod-db")) == (2, 1)
