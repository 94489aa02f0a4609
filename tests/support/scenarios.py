"""The service that client scenarios call: one ASGI application whose state is driven by requests.

::

    ANY  /echo...                 what arrived: method, target, headers, the body's length and SHA-256, as JSON
    GET  /plain?size=N            N bytes with content-length
    GET  /drip?key=K              "first", then "second" once /release?key=K came
    POST /seen?key=K              counts body bytes while they come; GET gives the count so far
    GET  /gzip                    a compressed body
    GET  /headers                 repeated, empty and Latin-1 response headers
    GET  /cookies                 sets two cookies
    GET  /status?code=N           only a status
    GET  /flaky?key=K&fails=N     503 for the first N requests of this key
    GET  /hang                    never an answer
    GET  /stall                   a part of the body, and never the rest
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Query = dict[str, str]

GREETING = b"hello, hello, hello " * 200
_PLAIN = [(b"content-type", b"text/plain")]

_released: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
_seen: Counter[str] = Counter()
_failed: Counter[str] = Counter()


async def app(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise RuntimeError(f"{scope['type']} is not served here")
    query = {key: values[-1] for key, values in parse_qs(scope["query_string"].decode()).items()}
    first = scope["path"].split("/")[1]
    match first:
        case "drip":
            await _drip(query["key"], send)
        case "stall":
            await _start(send, 200, _PLAIN)
            await send({"type": "http.response.body", "body": b"some", "more_body": True})
            await _gone(receive)
        case "hang":
            await _gone(receive)
        case "echo":
            await _respond(send, *await _echo(scope, receive))
        case "seen" if scope["method"] == "POST":
            async for piece in _pieces(receive):
                _seen[query["key"]] += len(piece)
            await _respond(send, 200, _PLAIN, b"%d" % _seen[query["key"]])
        case _:
            await _respond(send, *_answer(first, query))


def _answer(name: str, query: Query) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    match name:
        case "plain":
            return 200, _PLAIN, b"x" * int(query["size"])
        case "release":
            _released[query["key"]].set()
        case "seen":
            return 200, _PLAIN, b"%d" % _seen[query["key"]]
        case "gzip":
            return 200, [*_PLAIN, (b"content-encoding", b"gzip")], gzip.compress(GREETING)
        case "headers":
            return 200, [(b"x-many", b"one"), (b"x-many", b"two"), (b"x-empty", b""), (b"x-latin", b"caf\xe9")], b"-"
        case "cookies":
            return 200, [(b"set-cookie", b"a=1; Path=/"), (b"set-cookie", b"b=2; Path=/; HttpOnly")], b"-"
        case "status":
            return int(query["code"]), [], b""
        case "flaky":
            _failed[query["key"]] += 1
            return (503 if _failed[query["key"]] <= int(query["fails"]) else 200), _PLAIN, b"-"
    return 200, _PLAIN, b"-"


async def _echo(scope: Message, receive: Receive) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    body = b"".join([piece async for piece in _pieces(receive)])
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    arrived = {
        "method": scope["method"],
        "target": target.decode("latin-1"),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "length": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    return 200, [(b"content-type", b"application/json")], json.dumps(arrived).encode()


async def _gone(receive: Receive) -> None:
    """Until the client gives up."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _drip(key: str, send: Send) -> None:
    await _start(send, 200, _PLAIN)
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    await _released[key].wait()
    await send({"type": "http.response.body", "body": b"second"})


async def _pieces(receive: Receive) -> Any:
    more = True
    while more:
        message = await receive()
        yield message.get("body", b"")
        more = message.get("more_body", False)


async def _start(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _respond(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    if status not in (204, 304):
        headers = [*headers, (b"content-length", b"%d" % len(body))]
    await _start(send, status, headers)
    await send({"type": "http.response.body", "body": body})
