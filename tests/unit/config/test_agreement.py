"""Agreement with Istio's validator, on its own cases."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshlib_control.config import NOT_SUPPORTED, PARTS, Severity, validate_part
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
