"""What a refused request gets: a problem document that says what, where, why and the next step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from meshlib_control.admin.views import FindingView


class Problem(Exception):
    """Becomes the response."""

    def __init__(self, status: int, what: str, *, where: str = "", why: str = "", next_step: str = "") -> None:
        super().__init__(what)
        self.status = status
        self.document: dict[str, Any] = {"what": what, "where": where, "why": why, "next": next_step}

    def including(self, **more: object) -> Problem:
        """The same problem with more fields in its document (`findings`, `found` ...)."""
        self.document.update(more)
        return self

    def response(self) -> Response:
        return Response(
            msgspec.json.encode(self.document), status_code=self.status, media_type="application/problem+json", headers=NO_STORE
        )


NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def invalid(findings: Sequence[FindingView]) -> Problem:
    """Configuration with errors: all of them, and the promise that nothing changed."""
    errors = sum(1 for finding in findings if finding.severity == "error")
    return Problem(
        422,
        f"{errors} error{'s' if errors != 1 else ''} in the configuration; nothing was stored",
        where="the files sent",
        why="configuration with errors is never stored, and what was stored stays as it is",
        next_step="Correct what the findings name and apply again; `meshctl codes CODE` explains a code.",
    ).including(findings=list(findings))


def not_found(what: str, next_step: str) -> Problem:
    return Problem(404, what, why="it does not exist", next_step=next_step)
