"""Delegates as callers get them, and who is told how browsers are answered."""

from __future__ import annotations

import pytest

from meshlib.flow.explain import Explanation, explain
from meshlib.xds.proto import listener_pb2, route_pb2
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE
from meshlib_control.catalog.model import Port
from meshlib_control.compile import Node, World, generate, scope_of
from meshlib_control.compile.inbound import inbound_name
from meshlib_control.demand import configured_hosts
from tests.support.configuring import registered, world

REVIEWS = "reviews.default.svc.cluster.local"
ROUTE_TO_REVIEWS = "route: [{destination: {host: reviews}}]"


def virtual_service(name: str, spec: str, namespace: str = "default") -> str:
    head = f"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
    return f"{head}spec: {spec}\n"


def routes(built: World, *, host: str = REVIEWS, namespace: str = "default") -> list[str]:
    scope = scope_of(built, Node(namespace=namespace))
    found = generate(built, scope, ROUTE, [f"{host}:80"])[f"{host}:80"]
    assert isinstance(found, route_pb2.RouteConfiguration)
    return [f"{route.name} {route.match.prefix} {route.route.cluster}" for route in found.virtual_hosts[0].routes]


LEADING = "{match: [{uri: {prefix: /a}}], delegate: {name: d, namespace: team}}"
ROOT = virtual_service("top", f"{{hosts: [reviews], http: [{LEADING}, {{{ROUTE_TO_REVIEWS}}}]}}")


@pytest.mark.parametrize(
    ("export_to", "used"),
    [("", True), (", exportTo: [default]", True), (", exportTo: ['.']", False), (", exportTo: [x]", False)],
)
def test_a_delegate_must_be_exported_to_the_roots_namespace(export_to: str, used: bool) -> None:
    """Who calls does not matter: it is the root that callers see."""
    delegate = virtual_service("d", f"{{http: [{{name: own, route: [{{destination: {{host: cart}}}}]}}]{export_to}}}", "team")
    built = world(ROOT, delegate, services=[registered("reviews"), registered("cart", namespace="team")])
    first = "own /a outbound|80||cart.team.svc.cluster.local"
    rest = f"default/top/http[{1 if used else 0}] / outbound|80||{REVIEWS}"
    assert routes(built, namespace="elsewhere") == ([first, rest] if used else [rest])


def test_the_meshs_default_is_for_delegates_too() -> None:
    delegate = virtual_service("d", f"{{http: [{{name: own, {ROUTE_TO_REVIEWS}}}]}}", "team")
    mesh = "apiVersion: meshlib.io/v1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {defaultVirtualServiceExportTo: ['.']}\n"
    built = world(mesh, ROOT, delegate, services=[registered("reviews")])
    assert [name.split()[0] for name in routes(built)] == ["default/top/http[0]"]


def test_source_labels_of_delegates_count_for_scopes() -> None:
    leaf = f"{{match: [{{sourceLabels: {{app: web}}}}], name: web, {ROUTE_TO_REVIEWS}}}"
    built = world(ROOT, virtual_service("d", f"{{http: [{leaf}]}}", "team"), services=[registered("reviews")])
    assert built.virtual_services.source_label_keys == {"app"}


def test_hosts_of_mirrors_and_delegates_are_wanted() -> None:
    delegate = virtual_service("d", "{http: [{route: [{destination: {host: cart}}], mirror: {host: shadow}}]}", "team")
    services = [registered("reviews"), *(registered(name, namespace="team") for name in ("cart", "shadow", "other"))]
    found = set(configured_hosts(world(ROOT, delegate, services=services)))
    assert found == {REVIEWS, "cart.team.svc.cluster.local", "shadow.team.svc.cluster.local"}


POLICY = "corsPolicy: {allowOrigins: [{exact: https://a.test}]}"
CORS = virtual_service("browsers", f"{{hosts: [reviews], http: [{{name: api, {ROUTE_TO_REVIEWS}, {POLICY}}}]}}")


def inbound(built: World, node: Node, port: int = 8080) -> list[str]:
    """The filters of a served port, and the routes."""
    found = generate(built, scope_of(built, node), LISTENER, [inbound_name(port)])[inbound_name(port)]
    assert isinstance(found, listener_pb2.Listener)
    manager = listener_pb2.HttpConnectionManager()
    manager.ParseFromString(found.filter_chains[0].filters[0].typed_config.value)
    return [
        *(each.name.rpartition(".")[2] for each in manager.http_filters),
        *(f"/{route.name}" for route in manager.route_config.virtual_hosts[0].routes),
    ]


def test_only_workloads_of_the_service_answer_browsers_and_all_others_share_what_they_have() -> None:
    built = world(CORS, services=[registered("reviews"), registered("ratings"), registered("reviews", namespace="other")])
    assert inbound(built, Node(service="reviews")) == ["cors", "router", "/api", "/default"]
    plain = ["router", "/default"]
    for node in (Node(), Node(service="ratings"), Node(service="nobody"), Node(service="reviews", namespace="other")):
        assert inbound(built, node) == plain
    assert scope_of(built, Node(service="ratings")) == scope_of(built, Node())
    assert scope_of(built, Node(service="reviews")) != scope_of(built, Node())
    assert scope_of(world(ROOT, services=[registered("reviews")]), Node(service="reviews")).cors == ""


def test_a_service_of_another_namespace_cannot_be_claimed() -> None:
    """The namespace is the identity's, whatever a node says of itself."""
    built = world(CORS, services=[registered("reviews")])
    assert inbound(built, Node(service=REVIEWS)) == ["cors", "router", "/api", "/default"]
    assert inbound(built, Node(service=REVIEWS, namespace="other")) == ["router", "/default"]


def test_rules_for_a_port_are_for_the_one_that_is_served() -> None:
    ports = (Port(80, target=8080), Port(81, target=8081))
    rule = f"{{name: api, match: [{{port: 81}}], {ROUTE_TO_REVIEWS}, corsPolicy: {{allowOrigins: [{{exact: a}}]}}}}"
    built = world(virtual_service("v", f"{{hosts: [reviews], http: [{rule}]}}"), services=[registered("reviews", ports=ports)])
    assert inbound(built, Node(service="reviews"), 8081) == ["cors", "router", "/api", "/default"]
    assert inbound(built, Node(service="reviews"), 8080) == ["router", "/default"]
    assert inbound(built, Node(service="reviews"), 9999) == ["router", "/default"]  # as the first port


ABORT = "{httpStatus: 500, percentage: {value: 1}}"


def explained(built: World, path: str) -> Explanation:
    scope = scope_of(built, Node())
    kinds = ((LISTENER, ["reviews:80"]), (ROUTE, None), (CLUSTER, None), (ENDPOINTS, None))
    made = [(kind, message) for kind, names in kinds for message in generate(built, scope, kind, names).values()]
    return explain([(kind, message.SerializeToString()) for kind, message in made], "GET", "reviews:80", path)


@pytest.mark.parametrize(
    ("rule", "outcome", "detail"),
    [
        (f"{{{ROUTE_TO_REVIEWS}, mirror: {{host: shadow}}, mirrorPercentage: {{value: 5}}}}",
         "forward", "5.00% of calls are copied to outbound|80||shadow.default.svc.cluster.local"),
        (f"{{{ROUTE_TO_REVIEWS}, rewrite: {{uri: /b, authority: other.test}}, headers: {{response: {{remove: [x]}}}}}}",
         "forward", "path becomes /ba, Host becomes other.test, headers are changed"),
        (f"{{{ROUTE_TO_REVIEWS}, fault: {{delay: {{fixedDelay: 2s, percent: 50}}, abort: {ABORT}}}}}",
         "forward", "50.00% of calls are delayed by 2s, 1.00% of calls are aborted"),
        ("{redirect: {uri: /new}}", "direct_response", "to http://reviews/new"),
        ("{directResponse: {status: 418}}", "direct_response", ""),
    ],
)  # fmt: skip
def test_explain_says_what_rules_do(rule: str, outcome: str, detail: str) -> None:
    built = world(
        virtual_service("v", f"{{hosts: [reviews], http: [{rule}]}}"), services=[registered("reviews"), registered("shadow")]
    )
    found = explained(built, "/a")
    assert (found.outcome, found.detail) == (outcome, detail)
