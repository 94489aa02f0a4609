"""From a request that is served to the calls that are made for it: trace, deadline and attempt, wherever the call is made."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from wsgiref.util import setup_testing_defaults

import httpx
import pytest
import requests

from meshlib import Mesh, carried, errors
from meshlib.testing import service, static_mesh
from meshlib_integrations.asgi import MeshMiddleware as AsgiMiddleware
from meshlib_integrations.httpx import AsyncMeshTransport, MeshTransport
from meshlib_integrations.requests import MeshAdapter
from meshlib_integrations.wsgi import MeshMiddleware as WsgiMiddleware

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
HEADERS = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "a=b", "x-request-id": "r-1"}
ECHO = "http://reviews/echo"

Call = Callable[[], dict[str, str]]
AsyncCall = Callable[[], Awaitable[dict[str, str]]]


@pytest.fixture
def mesh(upstream: int) -> Iterator[Mesh]:
    with static_mesh(service("reviews", [f"127.0.0.1:{upstream}"])) as mesh:
        yield mesh


def arrived(content: bytes) -> dict[str, str]:
    return dict(json.loads(content)["headers"])


def belongs(headers: dict[str, str]) -> None:
    """These headers are those of a call that was made for the request."""
    version, trace, span, flags = headers["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span != SPAN
    assert (headers["tracestate"], headers["x-request-id"]) == ("a=b", "r-1")


# --- ASGI


async def here(call: AsyncCall, blocking: Call) -> dict[str, str]:
    return await call()


async def in_a_task(call: AsyncCall, blocking: Call) -> dict[str, str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_coroutine(call)) for _ in range(3)]
    return tasks[-1].result()


async def _coroutine(call: AsyncCall) -> dict[str, str]:
    return await call()


async def in_to_thread(call: AsyncCall, blocking: Call) -> dict[str, str]:
    return await asyncio.to_thread(blocking)


async def in_an_executor(call: AsyncCall, blocking: Call) -> dict[str, str]:
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, carried(blocking))


async def serve_asgi(mesh: Mesh, application: Callable[[Any], Awaitable[None]], headers: dict[str, str]) -> None:
    """One request, to the end of the application."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await application(send)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        pass

    raw = [(b"host", b"front"), *((name.encode(), value.encode()) for name, value in headers.items())]
    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": raw}
    await AsgiMiddleware(app, mesh)(scope, receive, send)
    await mesh.aclose_loop()


@pytest.mark.parametrize("way", [here, in_a_task, in_to_thread, in_an_executor])
async def test_an_asgi_requests_calls_belong_to_it(
    mesh: Mesh, way: Callable[[AsyncCall, Call], Awaitable[dict[str, str]]]
) -> None:
    seen: list[dict[str, str]] = []

    async def application(send: Any) -> None:
        async with httpx.AsyncClient(transport=AsyncMeshTransport(mesh)) as client:
            with httpx.Client(transport=MeshTransport(mesh)) as blocking:

                async def call() -> dict[str, str]:
                    return arrived((await client.get(ECHO)).content)

                seen.append(await way(call, lambda: arrived(blocking.get(ECHO).content)))

    await serve_asgi(mesh, application, HEADERS)
    belongs(seen[0])


async def test_calls_in_background_tasks_belong_to_their_request(mesh: Mesh) -> None:
    """After the response: as Starlette runs them."""
    seen: list[dict[str, str]] = []

    async def application(send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        async with httpx.AsyncClient(transport=AsyncMeshTransport(mesh)) as client:
            seen.append(arrived((await client.get(ECHO)).content))

    await serve_asgi(mesh, application, HEADERS)
    belongs(seen[0])


async def test_a_call_outside_of_requests_carries_nothing(mesh: Mesh) -> None:
    async with httpx.AsyncClient(transport=AsyncMeshTransport(mesh)) as client:
        headers = arrived((await client.get(ECHO)).content)
    await mesh.aclose_loop()
    assert not {"traceparent", "tracestate", "x-request-id"} & headers.keys()


async def test_the_applications_own_headers_win(mesh: Mesh) -> None:
    seen: list[dict[str, str]] = []

    async def application(send: Any) -> None:
        async with httpx.AsyncClient(transport=AsyncMeshTransport(mesh)) as client:
            seen.append(arrived((await client.get(ECHO, headers={"x-request-id": "mine"})).content))

    await serve_asgi(mesh, application, HEADERS)
    assert seen[0]["x-request-id"] == "mine"
    assert seen[0]["tracestate"] == "a=b"


async def test_the_callers_remaining_time_limits_our_calls(mesh: Mesh) -> None:
    caught: list[httpx.ReadTimeout] = []

    async def application(send: Any) -> None:
        async with httpx.AsyncClient(transport=AsyncMeshTransport(mesh), timeout=None) as client:
            with pytest.raises(httpx.ReadTimeout) as raised:
                await client.get("http://reviews/hang")
            caught.append(raised.value)

    await serve_asgi(mesh, application, {"x-envoy-expected-rq-timeout-ms": "300"})
    error = caught[0]
    assert isinstance(error, errors.TimeoutExceeded)
    assert error.which == "deadline"


async def test_the_callees_learn_what_is_left(mesh: Mesh) -> None:
    seen: list[dict[str, str]] = []

    async def application(send: Any) -> None:
        async with httpx.AsyncClient(transport=AsyncMeshTransport(mesh)) as client:
            seen.append(arrived((await client.get(ECHO)).content))

    await serve_asgi(mesh, application, {"grpc-timeout": "60S"})
    assert 0 < int(seen[0]["x-envoy-expected-rq-timeout-ms"]) <= 60_000


@pytest.mark.parametrize(("attempt", "status"), [("1", 200), ("2", 503)])
async def test_a_retry_of_our_caller_is_not_multiplied(mesh: Mesh, attempt: str, status: int) -> None:
    """The caller tries again anyway."""
    seen: list[int] = []

    async def application(send: Any) -> None:
        extensions = {"meshlib": {"retries": 2, "retry_on": ["5xx"]}}
        async with httpx.AsyncClient(transport=AsyncMeshTransport(mesh)) as client:
            url = f"http://reviews/flaky?key=retry-{attempt}&fails=1"
            seen.append((await client.get(url, extensions=extensions)).status_code)

    await serve_asgi(mesh, application, {"x-envoy-attempt-count": attempt})
    assert seen == [status]


# --- WSGI


def directly(call: Call) -> dict[str, str]:
    return call()


def in_a_pool(call: Call) -> dict[str, str]:
    work = carried(call)
    with ThreadPoolExecutor(2) as pool:
        return [pool.submit(work) for _ in range(3)][-1].result()


def serve_wsgi(mesh: Mesh, application: Callable[[], Iterable[bytes]]) -> bytes:
    """One request, to the end of its body."""
    environ: dict[str, Any] = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in HEADERS.items()}
    setup_testing_defaults(environ)
    body = WsgiMiddleware(lambda environ, start_response: application(), mesh)(environ, lambda *arguments: lambda data: None)
    try:
        return b"".join(body)
    finally:
        getattr(body, "close")()  # noqa: B009  # as servers do


@pytest.mark.parametrize("way", [directly, in_a_pool])
def test_a_wsgi_requests_calls_belong_to_it(mesh: Mesh, way: Callable[[Call], dict[str, str]]) -> None:
    seen: list[dict[str, str]] = []

    def application() -> list[bytes]:
        with requests.Session() as session:
            session.mount("http://", MeshAdapter(mesh))
            seen.append(way(lambda: arrived(session.get(ECHO).content)))
        return []

    serve_wsgi(mesh, application)
    belongs(seen[0])


def test_calls_while_a_wsgi_body_is_made_belong_to_it(mesh: Mesh) -> None:
    def body() -> Iterator[bytes]:
        with requests.Session() as session:
            session.mount("http://", MeshAdapter(mesh))
            yield session.get(ECHO).content

    belongs(arrived(serve_wsgi(mesh, body)))
