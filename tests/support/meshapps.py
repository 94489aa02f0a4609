"""One application behind meshlib's middleware, as ASGI (`asgi`) and WSGI (`wsgi`), for tests that need a real server.

::

    ANY  /echo...           what the application sees: method, target, headers, body length, process, as JSON
    GET  /context?in=WHERE  the request's context as seen in: here, task, thread, carried, bare (a thread), given
    GET  /stream            the context again, read while the body is made
    GET  /slow?seconds=S    200 after S seconds
    GET  /drain             begins to drain
    GET  /cors/own          says of itself that any origin may read it; browsers are told something else below /cors

Anything else is echoed too.  The mesh is a static one that writes what it is told into the file EVENTS_FILE.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from meshlib import Mesh, RequestContext, carried, current_request
from meshlib.model.cors import Cors, CorsPolicy, CorsRoute
from meshlib.model.listener import InboundListener
from meshlib.model.route import PathMatch, RouteMatch, StringMatch
from meshlib.model.snapshot import Snapshot
from meshlib.testing import StaticControl
from meshlib_integrations.asgi import MeshMiddleware as AsgiMiddleware
from meshlib_integrations.wsgi import MeshMiddleware as WsgiMiddleware

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class RecordingControl(StaticControl):
    """Writes down what a control service would be told."""

    def announce(self, port: int, *, mtls: bool, ready: Callable[[], bool]) -> None:
        if not self.announced:
            note(f"announced {port}")
        super().announce(port, mtls=mtls, ready=ready)

    def withdraw(self) -> None:
        if self.announced:
            note("withdrawn")
        super().withdraw()


def note(event: str) -> None:
    path = os.environ.get("EVENTS_FILE")
    if path:
        with Path(path).open("a") as events:
            events.write(f"{os.getpid()} {event}\n")


BROWSERS = CorsRoute(
    RouteMatch(PathMatch("separated", "/cors")),
    CorsPolicy((StringMatch("exact", "https://a.test"),), methods="GET,DELETE", exposed="x-seen"),
)
LISTENER = InboundListener("all ports", 1, filters=(Cors((BROWSERS,)),))

mesh = Mesh.from_env(control=RecordingControl(Snapshot(allow_any=True, inbound={LISTENER.port: LISTENER})), service="tests")


def described(context: RequestContext | None) -> bytes:
    if context is None:
        return b"null"
    left = context.remaining(time.monotonic())
    fields = {
        "attempt": context.attempt,
        "trace": context.trace.trace_id if context.trace else None,
        "limited": left is not None and 0 < left <= 60,
        "forwarded": [name.decode() for name, _ in context.forwarded],
    }
    return json.dumps(fields).encode()


def seen() -> bytes:
    return described(current_request())


# --- ASGI


async def application(scope: Message, receive: Receive, send: Send) -> None:
    match scope["type"]:
        case "lifespan":
            await _lifespan(receive, send)
        case "websocket":
            await _websocket(receive, send)
        case _:
            await _http(scope, receive, send)


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    note("application started")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    note("application stopped")
    await send({"type": "lifespan.shutdown.complete"})


async def _websocket(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": f"{message['text']} {seen().decode()}"})


async def _http(scope: Message, receive: Receive, send: Send) -> None:
    query = {key: values[-1] for key, values in parse_qs(scope["query_string"].decode("latin-1")).items()}
    length, more = 0, True
    while more:
        message = await receive()
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    own = [(b"Access-Control-Allow-Origin", b"*")] if scope["path"] == "/cors/own" else []
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json"), *own]})
    match scope["path"]:
        case "/stream":
            for _ in range(3):
                await asyncio.sleep(0)
                await send({"type": "http.response.body", "body": seen() + b"\n", "more_body": True})
            body = b""
        case "/context":
            body = await _context(query["in"], scope)
        case "/slow":
            note("slow")
            await asyncio.sleep(float(query["seconds"]))
            body = b"at last"
        case "/drain":
            body = await asyncio.to_thread(_drain)
        case _:
            target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
            body = _echo(scope["method"], (scope["path"], target.decode("latin-1")), headers, length)
    await send({"type": "http.response.body", "body": body})


async def _context(where: str, scope: Message) -> bytes:
    if where == "given":
        return described(scope["state"]["meshlib"])
    return await _in_tasks(where) if where in ("task", "thread") else _in_threads(where)


# --- WSGI


def wsgi_application(environ: Message, start_response: Callable[..., Any]) -> Iterable[bytes]:
    query = {key: values[-1] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    chunked = "HTTP_TRANSFER_ENCODING" in environ
    length = len(environ["wsgi.input"].read(*([] if chunked else [int(environ.get("CONTENT_LENGTH") or 0)])))
    match environ["PATH_INFO"]:
        case "/stream":
            start_response("200 OK", [("Content-Type", "application/json")])
            return (seen() + b"\n" for _ in range(3))
        case "/context":
            body = _wsgi_context(query["in"], environ)
        case "/slow":
            note("slow")
            time.sleep(float(query["seconds"]))
            body = b"at last"
        case "/drain":
            body = _drain()
        case path:
            headers = [(key[5:].replace("_", "-").lower(), text) for key, text in environ.items() if key.startswith("HTTP_")]
            query_string = environ["QUERY_STRING"]
            body = _echo(
                environ["REQUEST_METHOD"], (path, path + ("?" + query_string if query_string else "")), headers, length
            )
    own = [("Access-Control-Allow-Origin", "*")] if environ["PATH_INFO"] == "/cors/own" else []
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *own])
    return _Whole(body)


def _wsgi_context(where: str, environ: Message) -> bytes:
    if where == "given":
        return described(environ["meshlib"])
    return asyncio.run(_in_tasks(where)) if where in ("task", "thread") else _in_threads(where)


class _Whole:
    """Notes that the server closed it, as PEP 3333 asks."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        yield self._body

    def close(self) -> None:
        note("body closed")


# --- both


def _drain() -> bytes:
    """Begins; the end of it waits for this very request."""
    threading.Thread(target=mesh.drain).start()
    while not mesh.draining:
        time.sleep(0.01)
    return b"draining"


async def _in_tasks(where: str) -> bytes:
    async def task() -> bytes:
        return seen()

    return await (asyncio.create_task(task()) if where == "task" else asyncio.to_thread(seen))


def _in_threads(where: str) -> bytes:
    match where:
        case "carried":
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(carried(seen)).result()
        case "bare":
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(seen).result()
    return seen()


def _echo(method: str, places: tuple[str, str], headers: list[tuple[str, str]], length: int) -> bytes:
    path, target = places
    fields = {"method": method, "path": path, "target": target, "headers": headers, "length": length, "pid": os.getpid()}
    return json.dumps(fields).encode()


asgi = AsgiMiddleware(application, mesh)
wsgi = WsgiMiddleware(wsgi_application, mesh)
