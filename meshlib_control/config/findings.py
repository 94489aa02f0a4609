"""What is wrong with configuration: values with a stable code, all of them at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum


class Severity(Enum):
    """ERROR refuses the resource; WARNING and INFO do not."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """`field` is a path like ``spec.http[0].route[1].weight``; `line` and `column` count from 1, 0 is unknown."""

    code: str  # "MSH0101"; config.codes lists them all with what to do
    severity: Severity
    resource: str  # "VirtualService/default/reviews"
    field: str
    message: str
    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: " if self.file else ""
        return f"{where}{self.severity.value} {self.code} ({self.resource}) {self.field}: {self.message}"

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "severity": self.severity.value}
