"""Outlier detection that has nobody to eject."""

from __future__ import annotations

import pytest

from meshlib_control.config import analyze
from meshlib_control.config.findings import Severity
from tests.unit.config.support import loaded

HOST = "carts.default.svc.cluster.local"

POLICY = """
apiVersion: meshlib.io/v1
kind: ResiliencePolicy
metadata: {name: carts}
spec: {host: carts, failureRateEjection: {}}
"""


def rule(policy: str, more: str = "") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: carts}}
spec: {{host: carts, trafficPolicy: {policy}{more}}}
"""


def found(*texts: str, instances: int = 0) -> list[tuple[str, Severity]]:
    known: dict[str, list[dict[str, str]]] = {HOST: [{}] * instances}
    return [(each.field, each.severity) for each in analyze(loaded(*texts), instances=known) if each.code == "MSH0355"]


@pytest.mark.parametrize(
    ("detection", "expected"),
    [
        ("{}", True),
        ("{maxEjectionPercent: 0}", True),  # as if it was not given
        ("{maxEjectionPercent: 10}", True),
        ("{maxEjectionPercent: 20}", False),
        ("{maxEjectionPercent: 100}", False),
    ],
)
def test_a_share_that_is_nobody_of_a_few(detection: str, *, expected: bool) -> None:
    field = "spec.trafficPolicy.outlierDetection"
    assert found(rule(f"{{outlierDetection: {detection}}}")) == [(field, Severity.INFO)] * expected


@pytest.mark.parametrize(("instances", "expected"), [(9, [Severity.WARNING]), (10, []), (0, [Severity.INFO])])
def test_where_the_endpoints_are_known_they_are_counted(instances: int, expected: list[Severity]) -> None:
    assert [severity for _, severity in found(rule("{outlierDetection: {}}"), instances=instances)] == expected


def test_ports_and_subsets_have_their_own() -> None:
    ports = "{portLevelSettings: [{port: {number: 80}, outlierDetection: {}}]}"
    text = rule(ports, ", subsets: [{name: v1, trafficPolicy: {outlierDetection: {}}}]")
    assert {field for field, _ in found(text)} == {
        "spec.subsets[0].trafficPolicy.outlierDetection",
        "spec.trafficPolicy.portLevelSettings[0].outlierDetection",
    }


def test_a_resilience_policy_ejects_one_at_least() -> None:
    assert found(rule("{outlierDetection: {}}"), POLICY) == []
    assert len(found(rule("{outlierDetection: {maxEjectionPercent: 10}}"), POLICY)) == 1
