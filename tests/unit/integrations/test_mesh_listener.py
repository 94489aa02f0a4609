"""The middleware's own listener: opened when the process begins to serve, for the whole application, announced in its place."""

from __future__ import annotations

import asyncio
import http.client
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request

from meshlib import Mesh
from meshlib.errors import ConfigError
from meshlib.testing import StaticControl
from meshlib_integrations import _serving
from meshlib_integrations.asgi import MeshMiddleware
from meshlib_integrations.wsgi import MeshMiddleware as WsgiMiddleware
from tests.support.servers import free_port


class Setting:
    """A mesh with a port for its listener."""

    def __init__(self, mesh_port: int | None = None) -> None:
        self.control = StaticControl()
        self.port = mesh_port or free_port()
        self.mesh = Mesh(control=self.control, service="tests", port=8080, mesh_port=self.port, drain_seconds=0.0)

    def get(self, path: str = "/") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    async def aget(self, path: str = "/") -> tuple[int, bytes]:
        return await asyncio.to_thread(self.get, path)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise ValueError("lifespans are not for me")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


class Lifespan:
    """A server's: started when entered, stopped when left."""

    def __init__(self, app: Any, state: dict[str, Any] | None = None) -> None:
        self._scope: dict[str, Any] = {"type": "lifespan", **({"state": state} if state is not None else {})}
        self._app = app
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self._incoming: asyncio.Queue[Any] = asyncio.Queue()

    async def __aenter__(self) -> dict[str, Any]:
        self._task = asyncio.create_task(self._app(self._scope, self._incoming.get, self.sent.put))
        await self._incoming.put({"type": "lifespan.startup"})
        answer: dict[str, Any] = await self.sent.get()
        return answer

    async def __aexit__(self, *exc: object) -> None:
        await self._incoming.put({"type": "lifespan.shutdown"})
        await self._task


async def test_it_is_open_for_as_long_as_the_process_serves_and_announced() -> None:
    setting = Setting()
    async with Lifespan(MeshMiddleware(hello, setting.mesh)) as answer:
        assert answer["type"] == "lifespan.startup.complete"
        assert await setting.aget() == (200, b"hello")
        assert setting.control.announced == [setting.port]
        assert setting.mesh.listening.speaks_mtls
    with pytest.raises(ConnectionRefusedError):
        await setting.aget()


async def test_without_a_mesh_port_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_serving._serving, "speaks_mtls", False)  # another test's process may have loaded a server of ours
    control = StaticControl()
    mesh = Mesh(control=control, service="tests", port=8080, drain_seconds=0.0)
    async with Lifespan(MeshMiddleware(hello, mesh)):
        assert control.announced == [8080]
        assert not mesh.listening.speaks_mtls


async def test_a_frameworks_application_is_served_whole() -> None:
    """Also what is outside of the middleware that the framework was given; with the state of the server's lifespan."""
    setting = Setting()
    app = FastAPI()
    app.add_middleware(MeshMiddleware, mesh=setting.mesh)

    @app.get("/database")
    async def database(request: Request) -> str:
        found: str = request.state.database
        return found

    @app.middleware("http")
    async def outer(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.status_code += 1
        return response

    async with Lifespan(app, state={"database": "open"}) as answer:
        assert answer["type"] == "lifespan.startup.complete"
        assert await setting.aget("/database") == (201, b'"open"')


async def test_an_application_behind_the_middleware_is_never_served_without_it() -> None:
    """Frameworks put themselves into the scope, which the middleware has handed them."""
    setting = Setting()
    setting.mesh.drain()  # seen from outside: the middleware says close
    app = FastAPI()
    async with Lifespan(MeshMiddleware(app, setting.mesh)):
        with socket.create_connection(("127.0.0.1", setting.port)) as connected:
            connected.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            connected.settimeout(30)
            answer = await asyncio.to_thread(connected.recv, 65536)
    assert b"connection: close" in answer


async def test_without_a_lifespan_the_first_request_opens_it() -> None:
    setting = Setting()
    middleware = MeshMiddleware(hello, setting.mesh)
    sent: asyncio.Queue[Any] = asyncio.Queue()
    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": [(b"host", b"a")]}
    await middleware(scope, sent.get, sent.put)
    assert await setting.aget() == (200, b"hello")
    await middleware.end()


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as other:
        yield other.getsockname()[1]


async def test_a_port_that_is_taken_fails_the_start(taken: int) -> None:
    setting = Setting(taken)
    async with Lifespan(MeshMiddleware(hello, setting.mesh)) as answer:
        pass
    assert answer["type"] == "lifespan.startup.failed"
    assert f"mesh_port={taken} (MESHLIB_MESH_PORT) cannot be listened on" in answer["message"]
    assert setting.control.announced == []


async def test_a_missing_uvicorn_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn.config", None)
    async with Lifespan(MeshMiddleware(hello, Setting().mesh)) as answer:
        pass
    assert answer["type"] == "lifespan.startup.failed"
    assert "needs uvicorn: install meshlib-proxyless[listener]" in answer["message"]


# --- WSGI


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]


def test_a_wsgi_application_is_served_from_threads() -> None:
    setting = Setting()
    middleware = WsgiMiddleware(wsgi, setting.mesh)
    middleware.started()
    try:
        assert setting.get() == (200, b"hello")
        assert setting.control.announced == [setting.port]
    finally:
        middleware.stopped()
    with pytest.raises(ConnectionRefusedError):
        setting.get()


def test_wsgi_has_the_same_errors(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="cannot be listened on"):
        WsgiMiddleware(wsgi, Setting(taken).mesh).started()
    monkeypatch.setitem(sys.modules, "a2wsgi", None)
    with pytest.raises(ConfigError, match="needs a2wsgi: install"):
        WsgiMiddleware(wsgi, Setting().mesh).started()
