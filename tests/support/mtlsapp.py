"""An application behind meshlib's middleware with a mesh identity, as ASGI (`asgi`) and WSGI (`wsgi`).

::

    ANY  /who               what the application sees: peer, connection, scheme, headers, body length, process, as JSON
    GET  /plain?size=N      N bytes
    GET  /slow?seconds=S    200 after S seconds, and the peer
    websocket               each message back, with the peer

Who it is, whom it trusts and the mode of its ports are read from the JSON file MTLS_STATE whenever that changes; a process that
has taken a change over writes its number into ``MTLS_STATE.d/PID``.  MTLS_LIMITS (JSON) makes limits small that are large; with
MTLS_ANONYMOUS it has no certificate before the first change.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from meshlib import Mesh
from meshlib.flow.inbound import InboundPlan
from meshlib.lowlevel import TrustBundles
from meshlib.model.inbound import Inspection, Refusal
from meshlib.model.listener import MtlsMode
from meshlib.runtime.identity import pem
from meshlib.runtime.identity.material import Material, PrivateKey
from meshlib.runtime.identity.static import StaticIdentity
from meshlib.runtime.tls.contexts import TlsContexts
from meshlib.testing import StaticControl
from meshlib_integrations.asgi import MeshMiddleware as AsgiMiddleware
from meshlib_integrations.wsgi import MeshMiddleware as WsgiMiddleware

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

CHANGES: dict[bytes, bytes | None] = {b"x-forwarded-client-cert": None, b"x-verified": b"yes"}


def sanitize(inspection: Inspection) -> Refusal | None:
    """Stands for the flow's own changes of headers."""
    inspection.header_changes.update(CHANGES)
    inspection.response_headers.append((b"x-mesh", b"1"))
    return None


mesh = Mesh.from_env(control=StaticControl(), service="tests")


class State:
    """Follows the file, in a thread of the process that serves."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity = StaticIdentity()
        self._contexts = TlsContexts(self._identity)
        self._generation = -1
        mesh.start()  # which begins with neither
        mesh.listening.contexts = self._contexts
        self.follow()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(0.01)
            self.follow()

    def follow(self) -> None:
        state = json.loads(self._path.read_text())
        if state["generation"] == self._generation:
            return
        roots = {domain: pem.certificates(text) for domain, text in state["roots"].items()}
        chain = pem.certificates(state["chain"])
        if chain and (state["generation"] or "MTLS_ANONYMOUS" not in os.environ):
            material = Material.of(chain, PrivateKey.parse(state["key"].encode()), TrustBundles(roots))
            self._identity.set(material)
        self._contexts.set_trust(TrustBundles(roots))
        plan = InboundPlan(mtls=MtlsMode(state["mode"]), steps=(sanitize,))
        mesh.listening.inbound.publish({mesh.settings.mesh_port or mesh.settings.port or 0: plan})
        self._generation = state["generation"]
        folder = self._path.with_suffix(".d")
        folder.mkdir(exist_ok=True)
        written = folder / f".{os.getpid()}"
        written.write_text(str(self._generation))
        written.rename(folder / str(os.getpid()))


def limit(**limits: float) -> None:
    import meshlib.runtime.listening as listening
    from meshlib_integrations._mesh_protocol import MeshProtocol

    listening.MAX_AGE = limits.get("age", listening.MAX_AGE)
    MeshProtocol.handshake_timeout = limits.get("handshake", MeshProtocol.handshake_timeout)
    MeshProtocol.max_half_open = int(limits.get("half_open", MeshProtocol.max_half_open))


def described(peer: object, connection: Any, more: dict[str, object]) -> bytes:
    about = {
        "peer": str(peer) if peer is not None else None,
        "tls": connection.tls,
        "port": connection.local_port,
        "remote": connection.remote_address,
        "server_name": connection.server_name,
        "connection": id(connection),
        "pid": os.getpid(),
    }
    return json.dumps({**about, **more}).encode()


# --- ASGI


async def application(scope: Message, receive: Receive, send: Send) -> None:
    match scope["type"]:
        case "lifespan":
            await _lifespan(scope, receive, send)
        case "websocket":
            await _websocket(scope, receive, send)
        case _:
            await _http(scope, receive, send)


async def _lifespan(scope: Message, receive: Receive, send: Send) -> None:
    await receive()
    if "state" in scope:
        scope["state"]["database"] = "open"
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def _websocket(scope: Message, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    peer = scope["state"]["meshlib"].peer
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": f"{message['text']} {peer} {scope['scheme']}"})


async def _http(scope: Message, receive: Receive, send: Send) -> None:
    query = {key: values[-1] for key, values in parse_qs(scope["query_string"].decode("latin-1")).items()}
    length, more = 0, True
    while more:
        message = await receive()
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    state = scope["state"]
    if scope["path"] == "/slow":
        await asyncio.sleep(float(query["seconds"]))
    if scope["path"] == "/plain":
        body = b"x" * int(query["size"])
    else:
        headers = sorted((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
        more_fields = {
            "scheme": scope["scheme"],
            "length": length,
            "headers": headers,
            "database": state.get("database"),
        }
        connection = state.get("meshlib.connection") or mesh_connection(scope)
        body = described(state["meshlib"].peer, connection, more_fields)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


def mesh_connection(scope: Message) -> Any:
    """Of a server that is none of the mesh's: nothing is known."""
    from meshlib.model.inbound import UNKNOWN_CONNECTION

    return UNKNOWN_CONNECTION


# --- WSGI


def wsgi_application(environ: Message, start_response: Callable[..., Any]) -> Iterable[bytes]:
    query = {key: values[-1] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    length = len(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
    if environ["PATH_INFO"] == "/slow":
        time.sleep(float(query["seconds"]))
    if environ["PATH_INFO"] == "/plain":
        body = b"x" * int(query["size"])
    else:
        headers = sorted((key[5:].replace("_", "-").lower(), text) for key, text in environ.items() if key.startswith("HTTP_"))
        fields = {"scheme": environ["wsgi.url_scheme"], "length": length, "headers": headers}
        body = described(environ["meshlib"].peer, environ["meshlib.connection"], fields)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


limit(**json.loads(os.environ.get("MTLS_LIMITS", "{}")))
asgi = AsgiMiddleware(application, mesh)
wsgi = WsgiMiddleware(wsgi_application, mesh)
state = State(Path(os.environ["MTLS_STATE"]))
