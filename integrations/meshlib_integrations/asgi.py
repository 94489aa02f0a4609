"""meshlib in front of an ASGI application: ``app = MeshMiddleware(app, mesh)``.

Pure ASGI: http, websocket and lifespan, on any server.  Requests that two readers could read differently are refused before
the application; deadline, trace and attempt of a request travel to the calls that are made for it, in streamed bodies and
background tasks too.  The process is announced when it starts and withdrawn before it stops; without a lifespan (the server's
choice), the first request announces it.

mTLS comes from the server (`meshlib_integrations.uvicorn`), or from a listener of the middleware's own on the Mesh's
``mesh_port``, for servers that hand no client certificate on: every other one.  What is plain and arrives at the server's own
port under STRICT is refused then.
"""

from __future__ import annotations

import logging
import os
from typing import Any
from urllib.parse import quote, unquote

from meshlib import Mesh
from meshlib.errors import ConfigError
from meshlib.lowlevel import Connection, Refusal, ServerRequest
from meshlib_integrations._asgi import (
    CLOSE,
    CONNECTION,
    Application,
    Message,
    Receive,
    Scope,
    Send,
    adding,
    closing,
    leaving,
    marking,
    setting,
)
from meshlib_integrations._asking import asked
from meshlib_integrations._mesh_listener import MeshListener
from meshlib_integrations._serving import serve_with
from meshlib_integrations._starting import announce

__all__ = ["MeshMiddleware"]

logger = logging.getLogger("meshlib")

_PATH_SAFE = "/!$&'()*+,;=:@-._~"  # RFC 3986 section 3.3
_PLAIN_SCHEMES = {"https": "http", "wss": "ws"}


class MeshMiddleware:
    """``scope["state"]["meshlib"]`` is the request's `meshlib.RequestContext`; its ``peer`` is who has sent it."""

    def __init__(self, app: Application, mesh: Mesh) -> None:
        self.app = app
        self.mesh = mesh
        self._started_in = 0  # process id
        self._listener: MeshListener | None = None
        serve_with(mesh)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind != "http" and kind != "websocket":  # a tuple would be slower, and this runs for every request
            await self._pass(scope, receive, send)
            return
        if self._started_in != os.getpid():
            await self._begin_late(scope)
        target = _target(scope)
        state: dict[str, Any] = scope.get("state") or {}
        connection: Connection = state.get(CONNECTION) or _plain_connection(scope)
        # A copy: uvicorn's httptools parser puts trailers into its own list, after policies have looked at it.
        headers = scope["headers"] = list(scope["headers"])
        serving = self.mesh.serve(
            ServerRequest(
                scope.get("method", "GET"),  # a websocket's handshake has no other
                target,
                headers,
                http_version=scope.get("http_version", "1.1"),
                connection=connection,
            )
        )
        if serving.pending is not None:
            receive = await asked(serving, scope, receive)
        if serving.refusal is not None:
            await _refuse(serving.refusal, scope, send)
            return
        # A copy: the specification gives each request its own state, but what one server forgets must not mix requests up.
        scope["state"] = {**state, "meshlib": serving.context}
        if serving.target != target:
            _retarget(scope, serving.target)
        if connection.peer is not None:
            # The caller's URL says http: encryption between meshes' ends is not the applications' business, redirects are.
            scheme = scope.get("scheme", "http")
            scope["scheme"] = _PLAIN_SCHEMES.get(scheme, scheme)
        inspection = serving.inspection
        assert inspection is not None  # there is one without a refusal
        if inspection.header_changes:
            scope["headers"] = _changed(headers, inspection.header_changes)
        send = marking(send, serving.context)
        if inspection.response_headers:
            send = adding(send, inspection.response_headers)
        if inspection.response_set is not None:
            send = setting(send, inspection.response_set)
        if serving.close and _has_connection(scope):
            send = closing(send)
        if serving.stay is not None:
            send = leaving(send, serving.stay)
        with serving:
            await self.app(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What is no request."""
        if scope["type"] == "lifespan":
            await _Lifespan(self, receive, send).run(scope)
        else:
            await self.app(scope, receive, send)

    async def begin(self, app: Application, state: dict[str, Any] | None) -> None:
        """Open the listener, if there is to be one, for `app`; announce this process.  Once.  Raises errors.ConfigError."""
        self._started_in = os.getpid()
        if self.mesh.settings.mesh_port:
            listener = MeshListener(self.mesh, app, state)
            await listener.open()
            self._listener = listener
        announce(self.mesh)

    async def end(self) -> None:
        """Withdraw this process, wait for the requests in flight, close the listener."""
        await self.mesh.adrain()
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close()

    async def _begin_late(self, scope: Scope) -> None:
        """Without a lifespan, with the first request; which is not to fail because of it."""
        try:
            await self.begin(scope.get("app") or self, None)
        except ConfigError as error:
            logger.error("%s; nobody is told of this process, and without insecure_dev it refuses every request", error)


class _Lifespan:
    """The application's own lifespan, with the mesh's beginning and end around it."""

    def __init__(self, middleware: MeshMiddleware, receive: Receive, send: Send) -> None:
        self._middleware = middleware
        self._receive = receive
        self._send = send
        self._spoken = False  # the application took a message: it knows lifespans

    async def run(self, scope: Scope) -> None:
        # The whole application, if a framework has put the middleware in: what it sets is there before we are called.  After
        # the call it may be what an application behind us has set, which must not be served without us.
        self._served: Application = scope.get("app") or self._middleware
        self._state: dict[str, Any] | None = scope.get("state")
        try:
            await self._middleware.app(scope, self._received, self._sent)
        except Exception:
            if self._spoken:
                raise
        if not self._spoken:
            await self._alone()

    async def _received(self) -> Message:
        message = await self._receive()
        self._spoken = True
        if message["type"] == "lifespan.shutdown":
            # Before the application's own end: what is still in flight needs what that end takes away.
            await self._middleware.end()
        return message

    async def _sent(self, message: Message) -> None:
        await self._send(await self._begun(message) if message["type"] == "lifespan.startup.complete" else message)

    async def _alone(self) -> None:
        """The application (Django's, a bare function) has no lifespan; the mesh still has one."""
        await self._receive()
        started = await self._begun({"type": "lifespan.startup.complete"})
        await self._send(started)
        if started["type"] == "lifespan.startup.complete":
            await self._receive()
            await self._middleware.end()
            await self._send({"type": "lifespan.shutdown.complete"})

    async def _begun(self, complete: Message) -> Message:
        """`complete` once the mesh has begun too, or why it could not."""
        try:
            await self._middleware.begin(self._served, self._state)
        except ConfigError as error:
            return {"type": "lifespan.startup.failed", "message": str(error)}
        self._middleware.mesh.install_drain_on_sigterm()
        return complete


def _plain_connection(scope: Scope) -> Connection:
    """Of a server that is none of ours: whoever is at its other end has proved nothing."""
    client, server = scope.get("client"), scope.get("server")
    return Connection(
        remote_address=client[0] if client else "",
        local_address=server[0] if server and server[1] is not None else "",
        local_port=int(server[1] or 0) if server else 0,  # text, of granian
        tls=scope.get("scheme") in _PLAIN_SCHEMES,
    )


def _changed(headers: Any, changes: dict[bytes, bytes | None]) -> list[tuple[bytes, bytes]]:
    kept = [pair for pair in headers if pair[0] not in changes]
    return [*kept, *((name, value) for name, value in changes.items() if value is not None)]


def _target(scope: Scope) -> bytes:
    """The request target as on the wire, as far as the server tells."""
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        raw = quote(scope["path"], safe=_PATH_SAFE).encode("ascii")
    query: bytes = scope.get("query_string", b"")
    return raw + b"?" + query if query else raw


def _retarget(scope: Scope, target: bytes) -> None:
    """Hand on what was checked, not what was sent: the canonical path, and no absolute-form target."""
    raw, _, query = target.partition(b"?")
    scope["raw_path"] = raw
    scope["path"] = unquote(raw.decode("ascii"))
    scope["query_string"] = query


def _has_connection(scope: Scope) -> bool:
    """Only HTTP/1 has a header that ends a connection; the later versions forbid it (RFC 9113 section 8.2.2)."""
    version: str = scope.get("http_version", "1.1")
    return version.startswith("1")


async def _refuse(refusal: Refusal, scope: Scope, send: Send) -> None:
    headers = [(b"content-length", b"%d" % len(refusal.body)), *refusal.headers]
    if refusal.body and not any(name == b"content-type" for name, _ in refusal.headers):
        headers.append((b"content-type", b"text/plain; charset=utf-8"))
    if refusal.close and _has_connection(scope):
        headers.append(CLOSE)
    prefix = "http.response"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": 1008, "reason": ""})  # the server makes it a 403
            return
        prefix = "websocket.http.response"
    await send({"type": f"{prefix}.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{prefix}.body", "body": refusal.body})
