"""Cross-checks between resources and with the catalog."""

from __future__ import annotations

import random

import pytest

from meshlib_control.catalog.model import Port, Service
from meshlib_control.config import CODES, Finding, Severity, analyze
from tests.unit.config.support import DESTINATION_RULE, VIRTUAL_SERVICE, codes, loaded, virtual_service

REVIEWS = "reviews.default.svc.cluster.local"


def service(host: str = REVIEWS, namespace: str = "default", *ports: Port, export_to: tuple[str, ...] = ("*",)) -> Service:
    return Service(host=host, namespace=namespace, ports=ports or (Port(80),), export_to=export_to)


def routed(destination: str, **more: str) -> str:
    return virtual_service(f"  - route: [{{destination: {destination}}}]\n", **more)


def places(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.code, finding.field) for finding in findings]


def test_a_configuration_that_fits_together_is_clean() -> None:
    resources = loaded(VIRTUAL_SERVICE, DESTINATION_RULE)
    assert analyze(resources) == []
    assert analyze(resources, services=[service()], instances={REVIEWS: [{"version": "v1", "app": "x"}]}) == []


def test_services_may_come_by_host() -> None:
    resources = loaded(VIRTUAL_SERVICE, DESTINATION_RULE)
    assert analyze(resources, services={REVIEWS: service()}) == []
    assert analyze(resources, services={REVIEWS: (service(),)}) == []
    assert codes(analyze(resources, services={})) == ["MSH0201", "MSH0201"]


def test_an_unknown_host_is_a_warning_until_the_catalog_was_looked_at() -> None:
    resources = loaded(routed("{host: reviws}"))
    (offline,) = analyze(resources)
    assert (offline.code, offline.severity, offline.line) == ("MSH0201", Severity.WARNING, 7)
    assert f"did you mean {REVIEWS}?" in offline.message
    (live,) = analyze(resources, services=[service()])
    assert (live.code, live.severity) == ("MSH0201", Severity.ERROR)


@pytest.mark.parametrize("host", ["reviews", "reviews.default", "reviews.default.svc", REVIEWS, "Reviews"])
def test_all_forms_of_a_host_are_the_same_host(host: str) -> None:
    resources = loaded(routed(f"{{host: {host}, subset: v1}}"), DESTINATION_RULE)
    assert analyze(resources, services=[service()]) == []
    assert analyze(resources) == []


def test_hosts_of_service_entries_are_known() -> None:
    entry = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ext}
spec: {hosts: ['*.example.com'], ports: [{number: 443, name: tls, protocol: HTTPS}], resolution: NONE}
"""
    assert analyze(loaded(routed("{host: api.example.com}"), entry)) == []
    found = analyze(loaded(routed("{host: api.example.com, port: {number: 80}}"), entry))
    assert places(found) == [("MSH0203", "spec.http[0].route[0].destination.port.number")]


def test_a_subset_that_nobody_defines() -> None:
    found = analyze(loaded(routed("{host: reviews, subset: v1x}"), DESTINATION_RULE))
    assert places(found) == [("MSH0202", "spec.http[0].route[0].destination.subset")]
    assert found[0].severity is Severity.ERROR
    assert "did you mean v1?" in found[0].message
    assert (found[0].file, found[0].line, found[0].column) == ("file0.yaml", 7, 51)


def test_a_wildcard_rule_defines_subsets_unless_an_exact_one_does() -> None:
    wildcard = DESTINATION_RULE.replace("host: reviews", "host: '*.default.svc.cluster.local'").replace(
        "name: reviews", "name: all"
    )
    exact = DESTINATION_RULE.replace("name: v1", "name: v2")
    assert analyze(loaded(VIRTUAL_SERVICE, wildcard)) == []
    assert codes(analyze(loaded(VIRTUAL_SERVICE, wildcard, exact))) == ["MSH0202"]


@pytest.mark.parametrize(
    ("export_to", "expected"), [("['*']", []), ("[shop]", []), ("[.]", ["MSH0206"]), ("[other]", ["MSH0206"])]
)
def test_a_rule_that_is_not_exported_here(export_to: str, expected: list[str]) -> None:
    rule = DESTINATION_RULE + f"  exportTo: {export_to}\n"
    caller = routed(f"{{host: {REVIEWS}, subset: v1}}", more=", namespace: shop", hosts="[front]")
    assert codes(analyze(loaded(rule, caller))) == expected


def test_the_default_export_of_the_mesh_counts() -> None:
    mesh = "apiVersion: meshlib.io/v1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {defaultDestinationRuleExportTo: [.]}\n"
    caller = routed(f"{{host: {REVIEWS}, subset: v1}}", more=", namespace: shop", hosts="[front]")
    assert codes(analyze(loaded(DESTINATION_RULE, caller))) == []
    assert codes(analyze(loaded(DESTINATION_RULE, caller, mesh))) == ["MSH0206"]


def test_a_rule_in_an_unrelated_namespace_does_not_count() -> None:
    rule = DESTINATION_RULE.replace("name: reviews", "name: reviews\n  namespace: third").replace(
        "host: reviews", f"host: {REVIEWS}"
    )
    (finding,) = analyze(loaded(VIRTUAL_SERVICE, rule))
    assert finding.code == "MSH0202"
    assert "DestinationRule/third/reviews defines it" in finding.message
    mesh = "apiVersion: meshlib.io/v1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {rootNamespace: third}\n"
    assert analyze(loaded(VIRTUAL_SERVICE, rule, mesh)) == []


def test_a_service_that_is_not_exported_here() -> None:
    hidden = service("x.other.svc.cluster.local", "other", export_to=(".",))
    found = analyze(loaded(routed("{host: x.other.svc.cluster.local}")), services=[service(), hidden])
    assert places(found) == [("MSH0206", "spec.http[0].route[0].destination.host")]


def test_ports_of_the_catalog() -> None:
    resources = loaded(routed("{host: reviews, port: {number: 81}}"))
    assert codes(analyze(resources, services=[service()])) == ["MSH0203"]
    assert analyze(resources, services=[service(REVIEWS, "default", Port(80), Port(81))]) == []
    assert analyze(resources) == []


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("", "", ["MSH0204"]),
        ("exportTo: [.]", "exportTo: [.]", ["MSH0204"]),
        ("exportTo: [.]", "", []),  # private goes before public: meant
        ("exportTo: [a]", "exportTo: [b]", []),
        ("exportTo: [a, b]", "exportTo: [b]", ["MSH0204"]),
        ("gateways: [mesh]", "", ["MSH0204"]),
    ],
)
def test_two_virtual_services_for_one_host(first: str, second: str, expected: list[str]) -> None:
    one = routed("{host: reviews}", name="one") + f"  {first}\n"
    two = routed("{host: reviews}", name="two", hosts=f"[other, {REVIEWS}]") + f"  {second}\n"
    found = analyze(loaded(two, one))
    assert codes(found) == expected
    assert [(finding.resource, finding.field) for finding in found] == [("VirtualService/default/two", "spec.hosts[1]")] * len(
        expected
    )


def test_two_destination_rules_for_one_host() -> None:
    policy = "  trafficPolicy: {loadBalancer: {simple: RANDOM}}\n"
    other = (DESTINATION_RULE + policy).replace("name: reviews", "name: zweite")
    (finding,) = analyze(loaded(VIRTUAL_SERVICE, DESTINATION_RULE + policy, other))
    assert (finding.code, finding.severity, finding.resource) == ("MSH0205", Severity.WARNING, "DestinationRule/default/zweite")
    assert "its trafficPolicy holds" in finding.message
    assert "its subsets v1 hold" in finding.message


def test_a_subset_without_instances() -> None:
    resources = loaded(VIRTUAL_SERVICE, DESTINATION_RULE)
    found = analyze(resources, services=[service()], instances={REVIEWS: [{"version": "v2"}, {}]})
    assert places(found) == [("MSH0207", "spec.subsets[0].labels")]
    assert analyze(resources, services=[service()], instances={REVIEWS: []}) == []


TO = "route: [{destination: {host: reviews}}]"


@pytest.mark.parametrize(
    ("earlier", "later", "expected"),
    [
        ("", "match: [{uri: {exact: /a}}]", ["MSH0301"]),
        ("match: [{}]", "match: [{uri: {exact: /a}}]", ["MSH0301"]),
        ("match: [{name: x, uri: {prefix: /}}]", "match: [{method: {exact: GET}}]", ["MSH0301"]),
        ("match: [{uri: {prefix: /a}}]", "match: [{uri: {prefix: /a/b}}]", ["MSH0301"]),
        ("match: [{uri: {prefix: /a}}]", "match: [{uri: {exact: /ab}, headers: {x: {}}}]", ["MSH0301"]),
        ("match: [{uri: {prefix: /a/b}}]", "match: [{uri: {prefix: /a}}]", []),
        ("match: [{uri: {prefix: /a}, ignoreUriCase: true}]", "match: [{uri: {exact: /AB}}]", ["MSH0301"]),
        ("match: [{uri: {prefix: /a}}]", "match: [{uri: {exact: /ab}, ignoreUriCase: true}]", []),
        ("match: [{uri: {exact: /a}}]", "match: [{uri: {exact: /a}}]", ["MSH0302"]),
        ("match: [{uri: {regex: /a.*}}]", "match: [{uri: {regex: /a.*}, port: 80}]", ["MSH0301"]),
        ("match: [{uri: {regex: /a.*}}]", "match: [{uri: {exact: /ab}}]", []),
        ("match: [{headers: {x: {}}}]", "match: [{headers: {x: {exact: y}}}]", ["MSH0301"]),
        ("match: [{headers: {x: {exact: y}}}]", "match: [{headers: {x: {}}}]", []),
        ("match: [{withoutHeaders: {x: {exact: y}}}]", "match: [{withoutHeaders: {x: {exact: y}, z: {}}}]", ["MSH0301"]),
        ("match: [{sourceLabels: {app: a}}]", "match: [{sourceLabels: {app: b}}]", []),
        ("match: [{sourceNamespace: a}]", "", []),
        ("match: [{port: 80}]", "match: [{port: 81}]", []),
        ("match: [{queryParams: {q: {exact: a}}}]", "match: [{queryParams: {q: {exact: a}, r: {}}}]", ["MSH0301"]),
    ],
)
def test_rules_that_are_never_used(earlier: str, later: str, expected: list[str]) -> None:
    rules = "".join(f"  - {{{rule + ', ' if rule else ''}{TO}}}\n" for rule in (earlier, later))
    found = analyze(loaded(virtual_service(rules)))
    assert places(found) == [(code, "spec.http[1]") for code in expected]


def test_a_single_condition_that_is_never_used_is_named() -> None:
    rules = (
        f"  - {{match: [{{uri: {{prefix: /a}}}}], {TO}}}\n"
        f"  - {{match: [{{uri: {{exact: /b}}}}, {{uri: {{exact: /ab}}}}], {TO}}}\n"
    )
    assert places(analyze(loaded(virtual_service(rules)))) == [("MSH0301", "spec.http[1].match[1]")]


def test_weights_that_do_not_add_up() -> None:
    shares = "[{destination: {host: reviews}, weight: 1}, {destination: {host: reviews}, weight: WEIGHT}]"
    clean = loaded(virtual_service(f"  - route: {shares.replace('WEIGHT', '99')}\n"))
    assert analyze(clean) == []
    (finding,) = analyze(loaded(virtual_service(f"  - route: {shares.replace('WEIGHT', '2')}\n")))
    assert (finding.code, finding.severity, finding.field) == ("MSH0303", Severity.INFO, "spec.http[0].route")


def test_timeouts_that_grpcio_is_not_sent() -> None:
    resources = loaded(virtual_service(f"  - {{timeout: 2s, {TO}}}\n"))
    assert codes(analyze(resources, services=[service(REVIEWS, "default", Port(80, "grpc"))])) == ["MSH0304"]
    assert analyze(resources, services=[service()]) == []
    assert codes(analyze(resources, services=[service()], grpc_clients=True)) == ["MSH0304"]
    assert analyze(resources, services=[service(REVIEWS, "default", Port(80, "grpc"))], grpc_clients=False) == []


@pytest.mark.parametrize(("timeout", "expected"), [("1s", ["MSH0305"]), ("2s", ["MSH0305"]), ("3s", [])])
def test_an_attempt_as_long_as_the_call(timeout: str, expected: list[str]) -> None:
    rule = f"  - {{timeout: {timeout}, retries: {{attempts: 1, perTryTimeout: 2s}}, {TO}}}\n"
    assert codes(analyze(loaded(virtual_service(rule)))) == expected


@pytest.mark.parametrize(
    ("namespace", "export_to", "expected"),
    [
        ("default", '["*"]', []),  # its own service
        ("istio-system", '["*"]', []),
        ("attacker", '["."]', []),
        ("attacker", "[attacker]", []),
        ("attacker", '["*"]', ["MSH0307"]),
        ("attacker", "[default]", ["MSH0307"]),
    ],
)
def test_I19_who_routes_what_is_not_his(namespace: str, export_to: str, expected: list[str]) -> None:
    """Callers everywhere would be sent wherever somebody with write access to one namespace likes."""
    text = routed(f"{{host: {REVIEWS}}}", hosts=f"[{REVIEWS}]", more=f", namespace: {namespace}")
    text = text.replace("spec:\n", f"spec:\n  exportTo: {export_to}\n")
    assert codes(analyze(loaded(text), services=[service()])) == expected


def test_headers_that_istio_ignores() -> None:
    found = analyze(
        loaded(virtual_service(f"  - {{match: [{{headers: {{method: {{exact: GET}}, x-method: {{}}}}}}], {TO}}}\n"))
    )
    assert places(found) == [("MSH0306", "spec.http[0].match[0].headers.method")]


def test_the_order_is_always_the_same() -> None:
    texts = [routed(f"{{host: h{index}, subset: s}}", name=f"n{index}", hosts="[same]") for index in range(8)]
    resources = loaded(*texts)
    expected = analyze(resources)
    assert len(expected) > 16
    shuffled = list(resources)
    random.Random(1).shuffle(shuffled)
    assert analyze(shuffled) == expected
    assert all(finding.code in CODES for finding in expected)
