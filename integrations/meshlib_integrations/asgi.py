"""meshlib in front of an ASGI application: ``app = MeshMiddleware(app, mesh)``.

Pure ASGI: http, websocket and lifespan, on any server.  Requests that two readers could read differently are refused before
the application; deadline, trace and attempt of a request travel to the calls that are made for it, in streamed bodies and
background tasks too.  The process is announced when it starts and withdrawn before it stops; without a lifespan (the server's
choice), the first request announces it.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote, unquote

from meshlib import Mesh
from meshlib.lowlevel import Connection, Refusal, ServerRequest

__all__ = ["MeshMiddleware"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]
"""Any: frameworks write the scope as dict, MutableMapping or TypedDict, and none of these types takes the others' functions."""

_CLOSE = (b"connection", b"close")
_PATH_SAFE = "/!$&'()*+,;=:@-._~"  # RFC 3986 section 3.3


class MeshMiddleware:
    """``scope["state"]["meshlib"]`` is the request's `meshlib.RequestContext`."""

    def __init__(self, app: Application, mesh: Mesh) -> None:
        self.app = app
        self.mesh = mesh
        self._started_in = 0  # process id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http" or kind == "websocket":  # a tuple would be slower, and this runs for every request
            await self._serve(scope, receive, send)
        elif kind == "lifespan":
            await _Lifespan(self, receive, send).run(scope)
        else:
            await self.app(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._started_in != os.getpid():
            self.started()
        target = _target(scope)
        client = scope.get("client")
        serving = self.mesh.serve(
            ServerRequest(
                scope.get("method", "GET"),  # a websocket's handshake has no other
                target,
                scope["headers"],
                http_version=scope.get("http_version", "1.1"),
                connection=Connection(remote_address=client[0] if client else ""),
            )
        )
        if serving.refusal is not None:
            await _refuse(serving.refusal, scope, send)
            return
        # A copy: the specification gives each request its own state, but what one server forgets must not mix requests up.
        scope["state"] = {**(scope.get("state") or {}), "meshlib": serving.context}
        if serving.target != target:
            _retarget(scope, serving.target)
        with serving:
            await self.app(scope, receive, _closing(send) if serving.close and _has_connection(scope) else send)

    def started(self) -> None:
        """Announce this process, once."""
        self._started_in = os.getpid()
        self.mesh.serve_started()


def _closing(send: Send) -> Send:
    """`send`, telling the client to go elsewhere: this process is draining."""

    def sending(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"connection"]
            message = {**message, "headers": [*kept, _CLOSE]}
        return send(message)

    return sending


class _Lifespan:
    """The application's own lifespan, with the mesh's beginning and end around it."""

    def __init__(self, middleware: MeshMiddleware, receive: Receive, send: Send) -> None:
        self._middleware = middleware
        self._receive = receive
        self._send = send
        self._spoken = False  # the application took a message: it knows lifespans

    async def run(self, scope: Scope) -> None:
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
            await self._middleware.mesh.adrain()
        return message

    async def _sent(self, message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            self._begin()
        await self._send(message)

    async def _alone(self) -> None:
        """The application (Django's, a bare function) has no lifespan; the mesh still has one."""
        await self._receive()
        self._begin()
        await self._send({"type": "lifespan.startup.complete"})
        await self._receive()
        await self._middleware.mesh.adrain()
        await self._send({"type": "lifespan.shutdown.complete"})

    def _begin(self) -> None:
        self._middleware.started()
        self._middleware.mesh.install_drain_on_sigterm()


def _target(scope: Scope) -> bytes:
    """The request target as on the wire, as far as the server tells."""
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        raw = quote(scope["path"], safe=_PATH_SAFE).encode("ascii")
    query: bytes = scope.get("query_string", b"")
    return raw + b"?" + query if query else raw


def _retarget(scope: Scope, target: bytes) -> None:
    """Hand on what was checked, not what was sent: an absolute-form target became a path."""
    raw, _, query = target.partition(b"?")
    scope["raw_path"] = raw
    scope["path"] = unquote(raw.decode("ascii"))
    scope["query_string"] = query


def _has_connection(scope: Scope) -> bool:
    """Only HTTP/1 has a header that ends a connection; the later versions forbid it (RFC 9113 section 8.2.2)."""
    version: str = scope.get("http_version", "1.1")
    return version.startswith("1")


async def _refuse(refusal: Refusal, scope: Scope, send: Send) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(refusal.body))]
    if refusal.close and _has_connection(scope):
        headers.append(_CLOSE)
    prefix = "http.response"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": 1008, "reason": refusal.reason})  # the server makes it a 403
            return
        prefix = "websocket.http.response"
    await send({"type": f"{prefix}.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{prefix}.body", "body": refusal.body})
