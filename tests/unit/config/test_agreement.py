"""Agreement with Istio's validator, on its own cases."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshlib_control.config import NOT_SUPPORTED, PARTS, Severity, analyze, load, validate_part
from tests.unit.config.support import CORPORA

CASES = CORPORA / "istio-validation.json"

ANNOTATED = {"dry-run-invalid-value", "dry-run-invalid-action-custom", "dry-run-invalid-action-audit"}
"""Wrong only because of an annotation, which the cases do not hold (test_authorization_policy has them)."""


def judged(case: dict[str, Any]) -> bool:
    """Valid for us, whether executed or not."""
    found = validate_part(case["part"], case["spec"])
    return not [item for item in found if item.severity is Severity.ERROR and item.code != NOT_SUPPORTED]


def test_valid_is_valid_and_invalid_is_invalid() -> None:
    """Cases whose values were lost when they were extracted say nothing and are left out."""
    if not CASES.exists():
        pytest.skip("Istio's cases are not here")
    cases = [case for case in json.loads(CASES.read_text()) if case["part"] in PARTS and "$unresolved" not in json.dumps(case)]
    cases = [case for case in cases if case["name"] not in ANNOTATED]
    wrong = [(case["part"], case["name"]) for case in cases if judged(case) != case["valid"]]
    assert len(cases) > 100
    assert wrong == []


SECURITY = ("AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication")


def errors_of_file(kind: str, spec: object) -> bool:
    """Whether `meshctl analyze -f` shows an error, of any code, for a file with this resource alone."""
    metadata = {"name": "case", "namespace": "default"}
    document = {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}
    resources, findings = load([("case.json", json.dumps(document))])
    return any(item.severity is Severity.ERROR for item in [*findings, *analyze(resources)])


@pytest.mark.parametrize("kind", SECURITY)
def test_a_file_with_a_valid_policy_shows_no_error_at_all(kind: str) -> None:
    """Nothing of them is left unexecuted, and what a file does not say may be elsewhere."""
    if not CASES.exists():
        pytest.skip("Istio's cases are not here")
    cases = [case for case in json.loads(CASES.read_text()) if case["part"] == kind and case["name"] not in ANNOTATED]
    assert [case["name"] for case in cases if errors_of_file(kind, case["spec"]) == case["valid"]] == []
    assert {case["valid"] for case in cases} == {True, False}
