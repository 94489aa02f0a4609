"""meshlib in front of a WSGI application: ``app = MeshMiddleware(app, mesh)`` (Flask: ``app.wsgi_app = MeshMiddleware(...)``).

Requests that two readers could read differently are refused before the application; deadline, trace and attempt of a request
travel to the calls that are made for it, while its body is iterated too.  The mesh starts in the process that serves, with its
first request or, under gunicorn, with `meshlib_integrations.gunicorn`.

mTLS comes from the server (`meshlib_integrations.gunicorn`, `meshlib_integrations.werkzeug`), or, for any other one, from a
listener of the middleware's own on the Mesh's ``mesh_port``, in threads of its own.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from meshlib import Mesh
from meshlib.errors import ConfigError
from meshlib.lowlevel import RETRIED, Admitted, Connection, Refusal, ServerRequest, Serving
from meshlib_integrations._asgi import CONNECTION
from meshlib_integrations._asking import ask
from meshlib_integrations._mesh_listener import ThreadListener
from meshlib_integrations._serving import serve_with
from meshlib_integrations._starting import announce

__all__ = ["MeshMiddleware"]

Environ = dict[str, Any]  # PEP 3333: a builtin dictionary
StartResponse = Callable[..., Callable[[bytes], object]]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

logger = logging.getLogger("meshlib")

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_PATH_SAFE = "/!$&'()*+,;=:@-._~"  # RFC 3986 section 3.3

_RETRIED = (RETRIED.decode(), "1")

_STEERING = frozenset({"HTTP_SCRIPT_NAME", "HTTP_PATH_INFO"})
"""Of a client who wants another path to be routed than the one that policies saw: gunicorn takes ``SCRIPT_NAME`` from a header
of whoever is in its ``forwarded_allow_ips``, which this machine always is.
"""


class MeshMiddleware:
    """``environ["meshlib"]`` is the request's `meshlib.RequestContext`, whose ``peer`` is who has sent it."""

    def __init__(self, app: Application, mesh: Mesh) -> None:
        self.app = app
        self.mesh = mesh
        self._started_in = 0  # process id
        self._listener: ThreadListener | None = None
        serve_with(mesh)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if self._started_in != os.getpid():
            self._start_late()
        scope: dict[str, Any] = environ.get("asgi.scope") or {}
        admitted = self.mesh.listening.admitted(environ.get("gunicorn.socket") or environ.get("werkzeug.socket"))
        connection = _connection(environ, scope, admitted)
        target = _target(environ, scope)
        serving = self.mesh.serve(
            ServerRequest(
                environ["REQUEST_METHOD"],
                target,
                scope["headers"] if scope else _headers(environ),
                http_version=environ.get("SERVER_PROTOCOL", "HTTP/1.1").rpartition("/")[2],
                connection=connection,
                joined=not scope,
            )
        )
        if serving.pending is not None:
            ask(serving, environ)
        if serving.refusal is not None:
            return _refuse(serving.refusal, environ, start_response)
        _hand_on(environ, serving, connection)
        if serving.target != target:
            _retarget(environ, serving.target)
        serving.__enter__()
        try:
            body = self.app(environ, self._answering(environ, start_response, serving, admitted))
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
        """Open the listener, if there is to be one, and announce this process.  Once.  Raises errors.ConfigError.

        The first request does it; a server that has a moment before that calls it then.
        """
        if self._started_in == os.getpid():
            return
        self._started_in = os.getpid()
        self._listener = None  # a parent's
        if self.mesh.settings.mesh_port:
            listener = ThreadListener(self.mesh, self)
            listener.open()
            self._listener = listener
        announce(self.mesh)

    def stopped(self) -> None:
        """Close the listener, after what is in flight on it."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def _start_late(self) -> None:
        try:
            self.started()
        except ConfigError as error:
            logger.error("%s; nobody is told of this process, and without insecure_dev it refuses every request", error)

    def _answering(
        self, environ: Environ, start_response: StartResponse, serving: Serving, admitted: Admitted | None
    ) -> StartResponse:
        """`start_response` with the headers of the mesh; telling the client to go elsewhere, if it is to."""
        mesh, inspection = self.mesh, serving.inspection

        def starting(status: str, headers: list[tuple[str, str]], *rest: Any) -> Callable[[bytes], object]:
            if serving.stay is not None:
                serving.stay.end()
            if mesh.draining or (admitted is not None and time.monotonic() >= admitted.until):
                headers = [pair for pair in headers if pair[0].lower() != "connection"] + _closing(environ, start_response)
            if serving.context.retried and status >= "500":
                headers = [*headers, _RETRIED]
            if inspection is not None and inspection.response_headers:
                headers = headers + _text(inspection.response_headers)
            if inspection is not None and inspection.response_set is not None:
                kept = [pair for pair in headers if pair[0].lower().encode("latin-1") not in inspection.response_set]
                headers = kept + _text(inspection.response_set.items())
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


def _connection(environ: Environ, scope: dict[str, Any], admitted: Admitted | None) -> Connection:
    """What the handshake has proved; or, of a server that is none of ours, only where the socket's other end is."""
    if admitted is not None:
        return admitted.connection
    found: Connection | None = scope["state"].get(CONNECTION) if scope.get("state") else None
    if found is not None:
        return found
    remote = environ.get("REMOTE_ADDR", "")
    # On a socket that has no address servers take the port from the Host header, and policies differ by port.
    port = environ.get("SERVER_PORT", "") if remote else ""
    return Connection(remote_address=remote, local_port=int(port) if port.isdigit() else 0)


def _hand_on(environ: Environ, serving: Serving, connection: Connection) -> None:
    """What the application gets beside the request that came."""
    environ["meshlib"] = serving.context
    environ[CONNECTION] = connection
    if connection.peer is not None:
        environ["wsgi.url_scheme"] = "http"  # as in the URL that the caller calls: encryption is not the applications' business
    inspection = serving.inspection
    if inspection is not None and inspection.header_changes:
        for name, value in inspection.header_changes.items():
            key = name.decode("latin-1").upper().replace("-", "_")
            key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
            environ.pop(key, None)
            if value is not None:
                environ[key] = value.decode("latin-1")


def _target(environ: Environ, scope: dict[str, Any]) -> bytes:
    """The request target as on the wire, or what the server left of it."""
    if scope.get("raw_path"):
        query_string: bytes = scope["query_string"]
        return bytes(scope["raw_path"]) + (b"?" + query_string if query_string else b"")
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
        if key in _STEERING:
            headers.append((key[5:].lower().encode("ascii"), value.encode("latin-1")))  # its underscore is refused
        elif key.startswith("HTTP_"):
            headers.append((key[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1")))
        elif value and (key == "CONTENT_LENGTH" or key == "CONTENT_TYPE"):  # empty: there was none
            headers.append((key.replace("_", "-").lower().encode("ascii"), value.encode("latin-1")))
    return headers


def _retarget(environ: Environ, target: bytes) -> None:
    """Hand on what was checked, not what was sent: the canonical path, and no absolute-form target."""
    raw, _, query = target.partition(b"?")
    path = unquote_to_bytes(raw).decode("latin-1")
    environ["PATH_INFO"] = path.removeprefix(environ.get("SCRIPT_NAME", ""))
    environ["QUERY_STRING"] = query.decode("latin-1")
    for name in ("RAW_URI", "REQUEST_URI"):
        if name in environ:
            environ[name] = target.decode("latin-1")


def _refuse(refusal: Refusal, environ: Environ, start_response: StartResponse) -> list[bytes]:
    headers = [("Content-Length", str(len(refusal.body))), *_text(refusal.headers)]
    if refusal.body and not any(name == b"content-type" for name, _ in refusal.headers):
        headers.append(("Content-Type", "text/plain; charset=utf-8"))
    if refusal.close:
        headers += _closing(environ, start_response)
    start_response(f"{refusal.status} {_PHRASES.get(refusal.status, 'Refused')}", headers)
    return [refusal.body]


def _closing(environ: Environ, start_response: StartResponse) -> list[tuple[str, str]]:
    """The header that ends a connection, where a server takes it from an application: PEP 3333 forbids it, which some enforce.

    Gunicorn drops it; there, `start_response` is a method of the response, which can be told.
    """
    force_close = getattr(getattr(start_response, "__self__", None), "force_close", None)
    if force_close is not None:
        force_close()
        return []
    return [("Connection", "close")] if "werkzeug.socket" in environ or "asgi.scope" in environ else []


def _text(pairs: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs]
