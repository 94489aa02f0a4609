"""The Bookinfo samples of Istio: what is in scope is clean, the rest is refused by name."""

from __future__ import annotations

import pytest

from meshlib_control.config import analyze, load
from tests.unit.config.support import CORPORA

SAMPLES = CORPORA / "bookinfo"

EXPECTED: dict[str, list[tuple[str, str]]] = {
    "bookinfo-gateway.yaml": [("MSH0006", "kind"), ("MSH0108", "spec.gateways[0]")],
    "destination-rule-all-mtls.yaml": [],
    "destination-rule-all.yaml": [],
    "destination-rule-reviews.yaml": [],
    "fault-injection-details-v1.yaml": [],
    "virtual-service-details-v2.yaml": [],
    "virtual-service-ratings-mysql-vm.yaml": [],
    "virtual-service-ratings-test-delay.yaml": [],
    "virtual-service-reviews-test-v2.yaml": [],
    "virtual-service-reviews-v3.yaml": [],
}


def text(name: str) -> str:
    if not SAMPLES.exists():
        pytest.skip("Bookinfo is not here")
    return (SAMPLES / name).read_text()


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_samples(name: str) -> None:
    _, findings = load([(name, text(name))])
    assert [(finding.code, finding.field) for finding in findings] == EXPECTED[name]


@pytest.mark.parametrize("name", [name for name in sorted(EXPECTED) if name.startswith("virtual") and not EXPECTED[name]])
def test_samples_go_with_their_destination_rules(name: str) -> None:
    """With the rules there is nothing to say; without them the subsets are unknown."""
    files = [(file, text(file)) for file in ("destination-rule-all.yaml", name)]
    assert analyze(load(files)[0]) == []
    alone = analyze(load(files[1:])[0])
    assert {finding.code for finding in alone} == {"MSH0202"}
