"""The REST API is for whoever has its token: a random one, in a file that only the service's own user can read."""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from meshlib_control.admin.problems import Problem

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""What probes ask, which tells nothing."""


def read_or_make_token(file: Path) -> str:
    """The token in `file`, which is made with a new one unless it exists.  Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        token = file.read_text().strip()
        if len(token) < 32:
            raise OSError(f"{file}: expected a token of at least 32 characters; delete it to have a new one made") from None
        return token
    token = secrets.token_urlsafe(32)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(token + "\n")
    return token


class TokenGuard:
    """Pure ASGI middleware: ``Authorization: Bearer TOKEN``, or 401."""

    def __init__(self, app: ASGIApp, token: str, *, file: str) -> None:
        """`file`: where the token is, for those who may read it."""
        self._app = app
        self._expected = f"Bearer {token}".encode()
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS and not self._has_token(scope):
            await self._refusal()(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _has_token(self, scope: Scope) -> bool:
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(sent) == 1 and hmac.compare_digest(sent[0], self._expected)

    def _refusal(self) -> ASGIApp:
        problem = Problem(
            401,
            "no token, or not the right one",
            where="the Authorization header",
            why="this API changes the mesh, so it asks for the token that the control service made at its first start",
            next_step=f"Set MESHCTL_TOKEN, or MESHCTL_TOKEN_FILE to the control service's {self._file}.",
        )
        response = problem.response()
        response.headers["www-authenticate"] = 'Bearer realm="meshctl"'
        return response
