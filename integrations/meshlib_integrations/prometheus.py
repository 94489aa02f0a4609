"""A mesh's metrics for Prometheus to read: ``app.mount("/metrics", metrics_app(mesh))``, or `metrics_wsgi_app` under WSGI.

Mount it on a port that only the monitoring reaches, or have an AuthorizationPolicy say who may: the names of clusters and
policies are in it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from meshlib import Mesh
from meshlib.lowlevel import METRICS_CONTENT_TYPE

__all__ = ["metrics_app", "metrics_wsgi_app"]

_Message = MutableMapping[str, Any]
_Send = Callable[[_Message], Awaitable[None]]

_ALLOWED = "GET, HEAD"


def metrics_app(mesh: Mesh) -> Callable[[_Message, Callable[[], Awaitable[_Message]], _Send], Awaitable[None]]:
    """An ASGI application that answers GET, on any path, with what ``mesh.prometheus()`` says."""

    async def app(scope: _Message, receive: Callable[[], Awaitable[_Message]], send: _Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"metrics are read over HTTP, not {scope['type']}")
        status, headers, body = _answer(mesh, scope["method"])
        raw = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers]
        await send({"type": "http.response.start", "status": int(status[:3]), "headers": raw})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return app


def metrics_wsgi_app(mesh: Mesh) -> Callable[[dict[str, Any], Callable[..., object]], Iterable[bytes]]:
    """The same for WSGI."""

    def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        status, headers, body = _answer(mesh, environ["REQUEST_METHOD"])
        start_response(status, headers)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]

    return app


def _answer(mesh: Mesh, method: str) -> tuple[str, list[tuple[str, str]], bytes]:
    """Status line, headers, body."""
    if method not in ("GET", "HEAD"):
        return "405 Method Not Allowed", [("allow", _ALLOWED), ("content-length", "0")], b""
    body = mesh.prometheus().encode()
    headers = [("content-type", METRICS_CONTENT_TYPE), ("content-length", str(len(body))), ("cache-control", "no-store")]
    return "200 OK", headers, body
