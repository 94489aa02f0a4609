"""One code of findings."""

from __future__ import annotations

from dataclasses import dataclass

from meshlib_control.config.findings import Severity

ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO


@dataclass(frozen=True, slots=True)
class Code:
    """One row.  `severity` is the usual one; a finding may say otherwise where its message explains why."""

    id: str
    severity: Severity
    title: str
    meaning: str
    action: str
