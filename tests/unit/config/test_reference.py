"""docs/configuration.md is what the code says."""

from __future__ import annotations

import re

from meshlib_control.config import CODES, KINDS, REFUSES, analyze, load
from meshlib_control.config.reference import render
from tests.support.tools import ROOT


def test_the_page_is_up_to_date() -> None:
    """If not: .venv/bin/python -m meshlib_control.config.reference > docs/configuration.md"""
    assert (ROOT / "docs" / "configuration.md").read_text() == render()


def test_every_code_and_kind_is_on_the_page() -> None:
    page = render()
    assert all(code in page for code in CODES)
    assert all(f"## {kind}" in page for kind in KINDS)


def test_the_example_is_clean() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", render(), re.DOTALL)
    resources, findings = load([("example.yaml", example)])
    assert findings == []
    assert analyze(resources) == []


def test_codes_that_refuse_exist() -> None:
    assert set(CODES) >= REFUSES


def test_fields_that_are_refused_are_not_listed_as_fields() -> None:
    listed = [line for line in render().splitlines() if line.startswith("| `")]
    assert any("`http[].retries`" in line for line in listed)
    assert not any("backendUtilization" in line or "`trafficPolicy.tunnel" in line for line in listed)
