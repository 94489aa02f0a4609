"""One small web application, as ASGI (`asgi`) and as WSGI (`wsgi`), for tests that need a real server.

::

    GET  /plain?size=N          N bytes with content-length
    GET  /chunks?count=N&size=M N pieces of M bytes, no content-length
    POST /echo                  the body back
    POST /count                 how many body bytes came, as text
    POST /refuse                413 without reading the body
    GET  /status?code=N         only a status
    GET  /slow?seconds=S        200 after S seconds
    GET  /headers               the request's header lines, as text
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    query = {key: values[-1] for key, values in parse_qs(scope["query_string"].decode()).items()}
    if scope["path"] == "/chunks":
        await _chunks(int(query["count"]), int(query["size"]), send)
        return
    status, body = 200, b""
    match scope["path"]:
        case "/plain":
            body = b"x" * int(query["size"])
        case "/echo":
            body = await _body(receive)
        case "/count":
            body = b"%d" % len(await _body(receive))
        case "/refuse":
            status, body = 413, b"too large"
        case "/status":
            status = int(query["code"])
        case "/slow":
            await asyncio.sleep(float(query["seconds"]))
        case "/headers":
            body = b"".join(b"%b: %b\n" % pair for pair in scope["headers"])
    headers = [] if status in (204, 304) else [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": kind + ".complete"})
        if kind == "lifespan.shutdown":
            return


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


async def _chunks(count: int, size: int, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(count):
        await send({"type": "http.response.body", "body": b"%c" % (97 + number % 26) * size, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    query = {key: values[-1] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    status, body = 200, b""
    match environ["PATH_INFO"]:
        case "/plain":
            body = b"x" * int(query["size"])
        case "/chunks":
            start_response("200 OK", [])
            return (b"%c" % (97 + number % 26) * int(query["size"]) for number in range(int(query["count"])))
        case "/echo":
            body = environ["wsgi.input"].read()
        case "/count":
            body = b"%d" % len(environ["wsgi.input"].read())
        case "/refuse":
            status, body = 413, b"too large"
        case "/status":
            status = int(query["code"])
        case "/slow":
            time.sleep(float(query["seconds"]))
        case "/headers":
            names = {key[5:].lower().replace("_", "-"): value for key, value in environ.items() if key.startswith("HTTP_")}
            body = "".join(f"{name}: {value}\n" for name, value in names.items()).encode()
    headers = [] if status in (204, 304) else [("Content-Length", str(len(body)))]
    start_response(f"{status} X", headers)
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]
