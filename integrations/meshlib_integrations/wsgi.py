"""meshlib in front of a WSGI application: ``app = MeshMiddleware(app, mesh)`` (Flask: ``app.wsgi_app = MeshMiddleware(...)``).

Requests that two readers could read differently are refused before the application; deadline, trace and attempt of a request
travel to the calls that are made for it, while its body is iterated too.  The mesh starts in the process that serves, with its
first request or, under gunicorn, with `meshlib_integrations.gunicorn`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from meshlib import Mesh
from meshlib.lowlevel import Connection, Refusal, ServerRequest, Serving

__all__ = ["MeshMiddleware"]

Environ = dict[str, Any]  # PEP 3333: a builtin dictionary
StartResponse = Callable[..., Callable[[bytes], object]]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

_PATH_SAFE = "/!$&'()*+,;=:@-._~"  # RFC 3986 section 3.3


class MeshMiddleware:
    """``environ["meshlib"]`` is the request's `meshlib.RequestContext`."""

    def __init__(self, app: Application, mesh: Mesh) -> None:
        self.app = app
        self.mesh = mesh
        self._started_in = 0  # process id

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if self._started_in != os.getpid():
            self.started()
        target = _target(environ)
        serving = self.mesh.serve(
            ServerRequest(
                environ["REQUEST_METHOD"],
                target,
                _headers(environ),
                http_version=environ.get("SERVER_PROTOCOL", "HTTP/1.1").rpartition("/")[2],
                connection=Connection(remote_address=environ.get("REMOTE_ADDR", "")),
            )
        )
        if serving.refusal is not None:
            return _refuse(serving.refusal, start_response)
        environ["meshlib"] = serving.context
        if serving.target != target:
            _retarget(environ, serving.target)
        serving.__enter__()
        try:
            body = self.app(environ, self._closing(start_response))
        except BaseException:
            serving.__exit__(None, None, None)
            raise
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(body, wrapper):
            # The server sends such a file by itself, and only if it gets this very object; no application code runs then.
            serving.__exit__(None, None, None)
            return body
        return _Body(body, serving)

    def started(self) -> None:
        """Announce this process, once."""
        self._started_in = os.getpid()
        self.mesh.serve_started()

    def _closing(self, start_response: StartResponse) -> StartResponse:
        """`start_response`, telling the client to go elsewhere while this process is draining."""
        mesh = self.mesh

        def starting(status: str, headers: list[tuple[str, str]], *rest: Any) -> Callable[[bytes], object]:
            if mesh.draining:
                headers = [pair for pair in headers if pair[0].lower() != "connection"] + [("Connection", "close")]
            return start_response(status, headers, *rest)

        return starting


class _Body:
    """What the application returned.  The request ends when the server closes it (PEP 3333 says that it does)."""

    def __init__(self, body: Iterable[bytes], serving: Serving) -> None:
        self._body = body
        self._serving: Serving | None = serving

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        serving, self._serving = self._serving, None
        if serving is None:
            return
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            serving.__exit__(None, None, None)


def _target(environ: Environ) -> bytes:
    """The request target as on the wire, or what the server left of it."""
    raw: str | None = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if raw:
        return raw.encode("latin-1")
    path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}".encode("latin-1")
    target = quote(path, safe=_PATH_SAFE)
    query = environ.get("QUERY_STRING")
    return f"{target}?{query}".encode("latin-1") if query else target.encode("ascii")


def _headers(environ: Environ) -> list[tuple[bytes, bytes]]:
    headers = []
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            headers.append((key[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1")))
        elif value and (key == "CONTENT_LENGTH" or key == "CONTENT_TYPE"):  # empty: there was none
            headers.append((key.replace("_", "-").lower().encode("ascii"), value.encode("latin-1")))
    return headers


def _retarget(environ: Environ, target: bytes) -> None:
    """Hand on what was checked, not what was sent: an absolute-form target became a path."""
    raw, _, query = target.partition(b"?")
    path = unquote_to_bytes(raw).decode("latin-1")
    environ["PATH_INFO"] = path.removeprefix(environ.get("SCRIPT_NAME", ""))
    environ["QUERY_STRING"] = query.decode("latin-1")


def _refuse(refusal: Refusal, start_response: StartResponse) -> list[bytes]:
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(refusal.body)))]
    if refusal.close:
        headers.append(("Connection", "close"))
    start_response(f"{refusal.status} {HTTPStatus(refusal.status).phrase}", headers)
    return [refusal.body]
