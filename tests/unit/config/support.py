"""What the tests of the configuration share."""

from __future__ import annotations

from collections.abc import Iterable

from meshlib_control.config import ConfigResource, Finding, Severity, load
from tests.support.tools import ROOT

CORPORA = ROOT.parent / "shared" / "corpora"
"""Test data of others; not part of the checkout."""

VIRTUAL_SERVICE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts: [reviews]
  http:
  - route:
    - destination:
        host: reviews
        subset: v1
"""

DESTINATION_RULE = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: reviews
spec:
  host: reviews
  subsets:
  - name: v1
    labels:
      version: v1
"""


def loaded(*texts: str) -> list[ConfigResource]:
    """The resources of texts that must be clean."""
    resources, findings = load([(f"file{index}.yaml", text) for index, text in enumerate(texts)])
    assert not [str(finding) for finding in findings]
    return resources


def findings(text: str) -> list[Finding]:
    return load([("file.yaml", text)])[1]


def found(text: str) -> list[tuple[str, str, int, int]]:
    """(code, field, line, column) of each finding."""
    return [(finding.code, finding.field, finding.line, finding.column) for finding in findings(text)]


def codes(items: Iterable[Finding]) -> list[str]:
    return [finding.code for finding in items]


def errors(items: Iterable[Finding]) -> list[str]:
    return [finding.code for finding in items if finding.severity is Severity.ERROR]


def virtual_service(http: str, name: str = "reviews", *, hosts: str = "[reviews]", more: str = "") -> str:
    """A VirtualService around rules that are indented by two."""
    head = f"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}{more}}}\nspec:\n"
    return f"{head}  hosts: {hosts}\n  http:\n{http}"
