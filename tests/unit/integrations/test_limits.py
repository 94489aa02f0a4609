"""Requests that wait for a place in the application, through the middlewares of both kinds of servers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import MutableMapping
from typing import Any
from wsgiref.util import setup_testing_defaults

from meshlib import Mesh
from meshlib.model.inbound_limits import InboundLimits
from meshlib.model.listener import InboundListener
from meshlib.model.resilience import AdaptiveConcurrency, ServerResilience
from meshlib.testing import StaticControl, snapshot
from meshlib_integrations import asgi, wsgi

Message = MutableMapping[str, Any]
PORT = 8080


def limited(limits: InboundLimits) -> Mesh:
    mesh = Mesh(control=StaticControl(snapshot(inbound=[InboundListener("inbound", PORT, limits=limits)])), service="tests")
    mesh.start()
    return mesh


async def test_asgi_requests_wait_in_turn_and_are_sent_away_beyond_that() -> None:
    running, most, order = 0, 0, []
    gate = asyncio.Event()

    async def app(scope: Message, receive: Any, send: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        order.append(scope["path"])
        await gate.wait()
        running -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    mesh = limited(InboundLimits(max_active=2, max_pending=2))
    middleware = asgi.MeshMiddleware(app, mesh)

    async def request(number: int) -> int:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        path = f"/{number}"
        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
        await middleware({**scope, "headers": [(b"host", b"a")], "server": ("127.0.0.1", PORT)}, receive, send)
        return int(sent[0]["status"])

    tasks = [asyncio.create_task(request(number)) for number in range(6)]
    await asyncio.gather(*tasks[4:])  # sent away at once; the others are in, or wait
    gate.set()
    assert sorted(await asyncio.gather(*tasks)) == [200, 200, 200, 200, 503, 503]
    assert (most, order) == (2, ["/0", "/1", "/2", "/3"])
    mesh.close()


def test_wsgi_requests_wait_for_a_place() -> None:
    entered, answered, gate = threading.Semaphore(0), threading.Semaphore(0), threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        entered.release()
        gate.wait()
        start_response("200 OK", [])
        return []

    mesh = limited(InboundLimits(max_active=1, max_pending=1))
    middleware = wsgi.MeshMiddleware(app, mesh)
    statuses: list[str] = []

    def start(status: str, headers: Any, exc_info: Any = None) -> Any:
        statuses.append(status)
        answered.release()
        return lambda data: None

    def request() -> None:
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        environ |= {"SERVER_PORT": str(PORT), "SERVER_NAME": "127.0.0.1"}
        body = middleware(environ, start)
        list(body)
        close = getattr(body, "close", None)
        if close is not None:
            close()

    threads = [threading.Thread(target=request) for _ in range(3)]
    threads[0].start()
    entered.acquire()
    for thread in threads[1:]:
        thread.start()
    answered.acquire()  # of the two that find the application full one waits, the other is sent away
    gate.set()
    for thread in threads:
        thread.join()
    assert statuses[0].startswith("503")
    assert statuses[1:] == ["200 OK", "200 OK"]
    mesh.close()


async def test_how_soon_a_web_socket_is_accepted_is_no_latency_of_requests() -> None:
    """It would make every request look slow."""

    async def app(scope: Message, receive: Any, send: Any) -> None:
        kind = "websocket.accept" if scope["type"] == "websocket" else "http.response.start"
        await send({"type": kind, "status": 200, "headers": []})

    resilience = ServerResilience("default/p", adaptive_concurrency=AdaptiveConcurrency(min_rtt_requests=1))
    listener = InboundListener("inbound", PORT, resilience=resilience)
    mesh = Mesh(control=StaticControl(snapshot(inbound=[listener])), service="tests")
    mesh.start()
    middleware = asgi.MeshMiddleware(app, mesh)

    async def nothing(message: Message | None = None) -> Any:
        return {"type": "http.disconnect"}

    async def request(kind: str) -> None:
        scope = {
            "type": kind,
            "method": "GET",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "headers": [(b"host", b"a")],
        }
        await middleware({**scope, "server": ("127.0.0.1", PORT)}, nothing, nothing)

    shedder = mesh._running()._enforcement.shedding[PORT].shedder
    assert shedder.controller is not None
    for _ in range(3):
        await request("websocket")
    assert (shedder.admitted, shedder.active, shedder.controller.min_rtt) == (3, 0, 0.0)
    await request("http")
    assert shedder.controller.min_rtt > 0
    mesh.close()
