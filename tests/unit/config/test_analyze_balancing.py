"""Balancers that do less, or something else, than they look like."""

from __future__ import annotations

import pytest

from meshlib_control.catalog.model import Port, Service
from meshlib_control.config import analyze
from meshlib_control.config.findings import Finding
from tests.unit.config.support import codes, findings, loaded, virtual_service

HOST = "carts.default.svc.cluster.local"


def rule(policy: str, more: str = "") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: carts}}
spec: {{host: carts, trafficPolicy: {policy}{more}}}
"""


def fields(*texts: str, grpc: bool | None = False) -> list[tuple[str, str]]:
    return [(finding.code, finding.field) for finding in analyze(loaded(*texts), grpc_clients=grpc) if finding.code > "MSH035"]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("{loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}}", True),
        ("{loadBalancer: {localityLbSetting: {failoverPriority: [version]}}}", True),
        ("{loadBalancer: {localityLbSetting: {enabled: true}}}", True),
        (
            "{outlierDetection: {maxEjectionPercent: 50}, loadBalancer: {localityLbSetting: {failoverPriority: [version]}}}",
            False,
        ),
        ("{loadBalancer: {localityLbSetting: {enabled: false}}}", False),
        ("{loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 100}}]}}}", False),
        ("{loadBalancer: {zoneAwareLbSetting: {}}}", False),
    ],
)
def test_priorities_without_outlier_detection(policy: str, expected: bool) -> None:
    assert fields(rule(policy)) == [("MSH0351", "spec.trafficPolicy.loadBalancer.localityLbSetting")] * expected


LOCAL = "loadBalancer: {localityLbSetting: {}}"
DETECTED = "outlierDetection: {maxEjectionPercent: 50}"


@pytest.mark.parametrize(
    ("host", "subset", "expected"),
    [
        (f"{{{DETECTED}}}", f"{{{LOCAL}}}", []),
        (f"{{{LOCAL}}}", f"{{{DETECTED}}}", []),
        ("{connectionPool: {tcp: {}}}", f"{{{LOCAL}}}", ["spec.subsets[0].trafficPolicy.loadBalancer.localityLbSetting"]),
        (
            f"{{{DETECTED}, portLevelSettings: [{{port: {{number: 80}}, {LOCAL}}}]}}",
            f"{{{DETECTED}}}",
            ["spec.trafficPolicy.portLevelSettings[0].loadBalancer.localityLbSetting"],
        ),
    ],
)
def test_what_detects_outliers_is_what_holds_beside_it(host: str, subset: str, expected: list[str]) -> None:
    text = rule(host, f", subsets: [{{name: x, trafficPolicy: {subset}}}]")
    assert fields(text) == [("MSH0351", field) for field in expected]


@pytest.mark.parametrize(
    ("hashed", "grpc", "expected"),
    [
        ("httpHeaderName: x", True, []),
        ("httpCookie: {name: x}", True, ["MSH0353"]),
        ("httpCookie: {name: x}", False, []),
        ("useSourceIp: true", False, ["MSH0352"]),
        ("useSourceIp: true", True, ["MSH0353", "MSH0352"]),
    ],
)
def test_hashes(hashed: str, grpc: bool, expected: list[str]) -> None:
    text = rule(f"{{loadBalancer: {{consistentHash: {{{hashed}}}}}}}")
    assert [code for code, _ in fields(text, grpc=grpc)] == expected


@pytest.mark.parametrize(("protocol", "expected"), [("grpc", ["MSH0353"]), ("http", [])])
def test_whether_grpc_calls_it_is_judged_by_its_ports(protocol: str, expected: list[str]) -> None:
    service = Service(HOST, "default", (Port(80, protocol),))
    text = rule("{loadBalancer: {consistentHash: {httpQueryParameterName: x}}}")
    found: list[Finding] = analyze(loaded(text), services=[service])
    assert codes(found) == expected


SUBSETS = ", subsets: [{name: v1}, {name: v2}]"
HASHED = "{loadBalancer: {consistentHash: {httpHeaderName: x-user}}}"


@pytest.mark.parametrize(
    ("weights", "policy", "expected"),
    [((50, 50), HASHED, 1), ((100, 0), HASHED, 0), ((50, 50), "{loadBalancer: {simple: RANDOM}}", 0)],
)
def test_a_hash_behind_a_split(weights: tuple[int, int], policy: str, expected: int) -> None:
    shares = ", ".join(
        f"{{destination: {{host: carts, subset: {subset}}}, weight: {weight}}}"
        for subset, weight in zip(("v1", "v2"), weights, strict=True)
    )
    routes = virtual_service(f"  - route: [{shares}]\n", hosts="[carts]")
    assert fields(rule(policy, SUBSETS), routes) == [("MSH0354", "spec.http[0].route[0]")] * expected


@pytest.mark.parametrize(
    ("balancer", "expected"),
    [
        ("{simple: RANDOM, warmup: {duration: 1s}}", [("MSH0151", "warmup")]),
        (
            "{consistentHash: {httpHeaderName: x}, warmupDurationSecs: 1s}",
            [("MSH0150", "warmupDurationSecs"), ("MSH0151", "warmupDurationSecs")],
        ),
        ("{warmup: {duration: 1s}}", []),
    ],
)
def test_slow_starts_of_balancers_that_know_none(balancer: str, expected: list[tuple[str, str]]) -> None:
    found = [(item.code, item.field.rpartition(".")[2]) for item in findings(rule(f"{{loadBalancer: {balancer}}}"))]
    assert found == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{localityLbSetting: {failover: [{from: a, to: b}]}}", []),
        ("{localityLbSetting: {failover: [{from: a, to: a}]}}", [("MSH0137", "spec.localityLbSetting.failover[0].to")]),
        ("{zoneAwareLbSetting: {failover: [{from: '*', to: a}]}}", [("MSH0137", "spec.zoneAwareLbSetting.failover[0].from")]),
        ("{localityLbSetting: {}, zoneAwareLbSetting: {}}", [("MSH0137", "spec.zoneAwareLbSetting")]),
    ],
)
def test_the_preference_of_the_mesh_is_checked_as_a_rules(spec: str, expected: list[tuple[str, str]]) -> None:
    text = f"apiVersion: meshlib.io/v1\nkind: MeshConfig\nmetadata: {{name: mesh}}\nspec: {spec}\n"
    assert [(item.code, item.field) for item in findings(text)] == expected


def test_a_resilience_policy_that_leaves_failing_endpoints_out_is_enough() -> None:
    watching = """
apiVersion: meshlib.io/v1
kind: ResiliencePolicy
metadata: {name: carts}
spec: {host: carts, failureRateEjection: {}}
"""
    text = rule(f"{{{LOCAL}, portLevelSettings: [{{port: {{number: 80}}, {LOCAL}}}]}}")
    assert [code for code, _ in fields(text)] == ["MSH0351", "MSH0351"]
    assert fields(text, watching) == []


def test_a_rule_for_certain_callers_does_not_compete_with_that_for_all() -> None:
    general = rule("{loadBalancer: {simple: RANDOM}}")
    special = general.replace("name: carts", "name: batch").replace(
        "host: carts", "host: carts, workloadSelector: {matchLabels: {app: x}}"
    )
    again = special.replace("name: batch", "name: again")
    assert codes(analyze(loaded(general, special))) == []
    assert codes(analyze(loaded(general, special, again))) == ["MSH0205"]
