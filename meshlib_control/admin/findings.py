"""Findings as the API shows them."""

from __future__ import annotations

from collections.abc import Iterable

from meshlib_control.admin import views
from meshlib_control.config import Finding


def finding_views(findings: Iterable[Finding]) -> list[views.FindingView]:
    return [
        views.FindingView(
            code=finding.code,
            severity=finding.severity.value,
            resource=finding.resource,
            field=finding.field,
            file=finding.file,
            line=finding.line,
            message=finding.message,
        )
        for finding in findings
    ]
