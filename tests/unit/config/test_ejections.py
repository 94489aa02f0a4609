"""What a ResiliencePolicy may say of ejections and health checks."""

from __future__ import annotations

import pytest

from tests.unit.config.support import findings

POLICY = """\
apiVersion: meshlib.io/v1
kind: ResiliencePolicy
metadata: {name: reviews}
spec: {host: reviews, %s}
"""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("failureRateEjection: {interval: 1s}", []),
        ("failureRateEjection: {interval: 1s}, successRateEjection: {interval: 1s, stdevFactor: 2}", []),
        (
            "failureRateEjection: {interval: 1s}, successRateEjection: {maxEjectionPercent: 20}",
            [("MSH0137", "spec.successRateEjection.interval"), ("MSH0137", "spec.successRateEjection.maxEjectionPercent")],
        ),
        ("healthChecks: [{tcp: {}}]", []),
        ("healthChecks: [{tcp: {}}, {grpc: {}}]", [("MSH0105", "spec.healthChecks")]),
        ("healthChecks: [{interval: 1s}]", [("MSH0143", "spec.healthChecks[0]")]),
    ],
)
def test_findings(said: str, expected: list[tuple[str, str]]) -> None:
    found = [(finding.code, finding.field) for finding in findings(POLICY % said)]
    assert found == expected
