"""An application that tells what it was given (`asgi`, `wsgi`), behind meshlib's middleware and three policies.

Which policy a request is under is its own choice, in ``x-shape``; without that header there is none:

    deny    DENY with ``paths: [/admin*]``
    not     ALLOW with ``notPaths: [/admin*]``
    allow   ALLOW with ``paths: [/public/*]``

200: JSON with what the application and what policies have seen.  Refused: ``x-reason`` has the reason, which no client gets
elsewhere.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from meshlib import Mesh, current_request
from meshlib.model.authorization import Action, Always, Header, Matcher, Not, Rbac, RbacFilter, RbacPolicy, UrlPath
from meshlib.model.listener import InboundListener
from meshlib.model.route import HeaderMatch, StringMatch
from meshlib.model.snapshot import Snapshot
from meshlib.testing import StaticControl
from meshlib_integrations.asgi import MeshMiddleware as AsgiMiddleware
from meshlib_integrations.wsgi import MeshMiddleware as WsgiMiddleware

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def shape(name: str) -> Matcher:
    return Header(HeaderMatch("x-shape", StringMatch("exact", name)))


def paths(prefix: str) -> Matcher:
    return UrlPath(StringMatch("prefix", prefix))


DENY = RbacFilter("deny", Rbac(Action.DENY, (RbacPolicy("deny", paths("/admin"), shape("deny")),)))
ALLOW = RbacFilter(
    "allow",
    Rbac(
        Action.ALLOW,
        (
            RbacPolicy("allow", paths("/public/"), shape("allow")),
            RbacPolicy("deny", Always(), shape("deny")),
            RbacPolicy("none", Always(), Not(Header(HeaderMatch("x-shape", present=True)))),
            RbacPolicy("not", Not(paths("/admin")), shape("not")),
        ),
    ),
)
mesh = Mesh(
    control=StaticControl(Snapshot(allow_any=True, inbound={1: InboundListener("inbound", 1, filters=(DENY, ALLOW))})),
    service="tests",
)


class Reasons(logging.Handler):
    """Remembers the last refusal; requests come one at a time here."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = str(getattr(record, "meshlib", {}).get("reason", "unknown"))


reasons = Reasons()
logging.getLogger("meshlib.access").addHandler(reasons)
logging.getLogger("meshlib.access").setLevel(logging.INFO)


def seen(raw: str, path: str, query: str, headers: Iterable[tuple[str, str]]) -> bytes:
    context = current_request()
    assert context is not None
    found = {"raw": raw, "path": path, "query": query, "headers": [list(pair) for pair in headers], "policy": context.path}
    return json.dumps(found).encode()


async def application(scope: Message, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    body = seen(scope["raw_path"].decode("latin-1"), scope["path"], scope["query_string"].decode("latin-1"), headers)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def wsgi_application(environ: Message, start_response: Callable[..., Any]) -> Iterable[bytes]:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    headers = [(key[5:].replace("_", "-").lower(), text) for key, text in environ.items() if key.startswith("HTTP_")]
    raw = environ.get("RAW_URI") or environ["REQUEST_URI"]
    path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
    body = seen(raw.partition("?")[0], path, environ["QUERY_STRING"], headers)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


class Asgi(AsgiMiddleware):
    """With the reason of a refusal in a header."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        reasons.last = ""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and reasons.last:
                message["headers"] = [*message["headers"], (b"x-reason", reasons.last.encode())]
            await send(message)

        await super().__call__(scope, receive, sending)


class Wsgi(WsgiMiddleware):
    """With the reason of a refusal in a header."""

    def __call__(self, environ: Message, start_response: Callable[..., Any]) -> Iterable[bytes]:
        reasons.last = ""

        @functools.wraps(start_response)  # what it belongs to is looked at
        def starting(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [*headers, ("X-Reason", reasons.last)] if reasons.last else headers, *rest)

        return super().__call__(dict(environ), starting)


asgi = Asgi(application, mesh)
wsgi = Wsgi(wsgi_application, mesh)
