"""What a test declares as a service's application, as ASGI: ASGI itself, WSGI, or a plain function.

Blocking code (WSGI, functions that are no coroutines) runs beside the event loop, so that it may sleep and call others.
"""

from __future__ import annotations

import inspect
import io
import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from meshlib.testing import VirtualTime

Scope = Any
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
AsgiApplication = Callable[[Any, Any, Any], Awaitable[None]]
WsgiApplication = Callable[[Any, Any], Iterable[bytes]]
PlainApplication = Callable[["Received"], Any]
Application = AsgiApplication | WsgiApplication | PlainApplication

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Received:
    """The request, as a plain function gets it.  Header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    peer: str  # the SPIFFE ID that the caller has proved; empty: none
    instance: str  # which one has received it: "ratings-0"

    def json(self) -> Any:
        """The body as JSON.  Raises ValueError when it is none."""
        return json.loads(self.body)


def asgi(app: Application | None, time: VirtualTime, instance: str, about: Mapping[str, Any]) -> AsgiApplication:
    """`app` by the number of its positional parameters: 3 ASGI, 2 WSGI, 1 a function; None answers `about`.

    Raises TypeError for anything else.
    """
    if app is None:
        return _plain(lambda _: dict(about), time, instance)
    if not callable(app):
        raise TypeError(f"an application is ASGI, WSGI, or a function of a request, not {type(app).__name__}")
    match _positional(app):
        case 3:
            return app  # type: ignore[return-value]  # by its number of parameters
        case 2:
            return _wsgi(app, time)  # type: ignore[arg-type]
        case 1:
            return _plain(app, time, instance)  # type: ignore[arg-type]
        case count:
            raise TypeError(
                f"{app!r} takes {count} positional arguments; expected 3 (ASGI: scope, receive, send), 2 (WSGI: environ, "
                "start_response) or 1 (a function of a request)"
            )


def _positional(app: Callable[..., Any]) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(app).parameters.values()
    return sum(1 for each in parameters if each.kind in kinds and each.default is inspect.Parameter.empty)


# --- plain functions


def _plain(function: PlainApplication, time: VirtualTime, instance: str) -> AsgiApplication:
    is_coroutine = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"a plain function has no {scope['type']}")
        request = _received(scope, await _body(receive), instance)
        answer = await function(request) if is_coroutine else await time.fibers.call(function, request)
        status, headers, body = answered(answer)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def _received(scope: Scope, body: bytes, instance: str) -> Received:
    context = scope["state"].get("meshlib")  # outside of the mesh there is none
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1"), value.decode("latin-1"))
    query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    peer = context.peer.uri if context is not None and context.peer is not None else ""
    return Received(scope["method"], scope["path"], query, headers, body, peer, instance)


def answered(answer: Any) -> tuple[int, Headers, bytes]:
    """Status, headers and body of what a function returned.  Raises TypeError for what is no answer.

    A status; a body (text, bytes, or what is made JSON); ``(status, body)``, ``(status, body, headers)``; a response object of
    httpx, requests, Starlette or Flask.
    """
    status, body, headers = 200, answer, None
    if isinstance(answer, bool):
        raise TypeError(f"{answer!r} is no answer: return a status, a body, (status, body), or a response")
    if isinstance(answer, int):
        status, body = answer, b""
    elif isinstance(answer, tuple):
        status, body, headers, *_ = (*answer, None)
    elif hasattr(answer, "status_code"):
        return _of_response(answer)
    pairs = [(name.lower().encode("latin-1"), str(value).encode("latin-1")) for name, value in dict(headers or {}).items()]
    content, kind = _content(body)
    if kind and not any(name == b"content-type" for name, _ in pairs):
        pairs.append((b"content-type", kind))
    return status, [*pairs, (b"content-length", b"%d" % len(content))], content


def _of_response(response: Any) -> tuple[int, Headers, bytes]:
    for name in ("content", "body", "data"):  # httpx and requests, Starlette, Flask
        body = getattr(response, name, None)
        if isinstance(body, bytes):
            pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.items()]
            return response.status_code, pairs, body
    raise TypeError(f"{response!r} has no body that is there as a whole; serve an ASGI application to stream one")


def _content(body: Any) -> tuple[bytes, bytes]:
    if body is None:
        return b"", b""
    if isinstance(body, bytes | bytearray):
        return bytes(body), b"application/octet-stream" if body else b""
    if isinstance(body, str):
        return body.encode(), b"text/plain; charset=utf-8"
    return json.dumps(body).encode(), b"application/json"


# --- WSGI


def _wsgi(app: WsgiApplication, time: VirtualTime) -> AsgiApplication:
    async def adapted(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"WSGI has no {scope['type']}")
        environ = _environ(scope, await _body(receive))
        status, headers, body = await time.fibers.call(_called, app, environ)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return adapted


def _called(app: WsgiApplication, environ: dict[str, Any]) -> tuple[int, Headers, bytes]:
    """The whole answer.  PEP 3333."""
    said: list[tuple[str, list[tuple[str, str]]]] = []
    written: list[bytes] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        said[:] = [(status, headers)]
        return written.append

    body = app(environ, start_response)
    try:
        written.extend(body)
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()
    if not said:
        raise RuntimeError("the WSGI application did not call start_response")
    status, headers = said[0]
    pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return int(status.split(" ", 1)[0]), pairs, b"".join(written)


def _environ(scope: Scope, body: bytes) -> dict[str, Any]:
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": scope["path"].encode("utf-8").decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": scope["server"][0],
        "SERVER_PORT": str(scope["server"][1]),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": scope["client"][0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "meshlib": scope["state"].get("meshlib"),
    }
    for raw, value in scope["headers"]:
        name = raw.decode("latin-1").upper().replace("-", "_")
        key = name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    return environ


async def _body(receive: Receive) -> bytes:
    pieces: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    return b"".join(pieces)
