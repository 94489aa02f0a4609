"""ASGI, WSGI, functions; blocking and not; and the ways to call them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import fastapi
import flask
import httpx
import pytest
import requests
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from meshlib import errors
from meshlib.testing import Delay, Refuse, Stalled
from meshlib_control.lab import MeshLab, Received


def test_answers_of_plain_functions(mesh_lab: MeshLab) -> None:
    answers = [
        204,
        "text",
        b"\x00",
        {"a": 1},
        (201, "made"),
        (302, b"", {"Location": "/there"}),
        httpx.Response(418, text="tea"),
    ]
    left = iter(answers)
    mesh_lab.service("ratings", lambda request: next(left))
    client = mesh_lab.client()
    found = [client.get("http://ratings/") for _ in answers]
    assert [response.status_code for response in found] == [204, 200, 200, 200, 201, 302, 418]
    assert [response.content for response in found] == [b"", b"text", b"\x00", b'{"a": 1}', b"made", b"", b"tea"]
    assert found[3].headers["content-type"] == "application/json"
    assert found[5].headers["location"] == "/there"


def test_what_a_plain_function_is_told(mesh_lab: MeshLab) -> None:
    async def echo(request: Received) -> object:
        return {
            "method": request.method,
            "path": request.path,
            "query": request.query,
            "sent": request.json(),
            "by": request.instance,
        }

    mesh_lab.service("ratings", echo)
    response = mesh_lab.client("reviews").post("http://ratings/a%20b?x=1&x=2", json=[1])
    expected = {"method": "POST", "path": "/a b", "query": {"x": ["1", "2"]}, "sent": [1], "by": "ratings-0"}
    assert response.json() == expected
    (arrived,) = mesh_lab.requests("ratings")
    assert (arrived.path, arrived.header("Content-Type"), arrived.peer[-8:]) == ("/a%20b", "application/json", "/reviews")


def test_an_application_that_fails_answers_500_and_the_test_can_see_why(mesh_lab: MeshLab) -> None:
    mesh_lab.service("ratings", lambda request: request.headers["missing"])
    assert mesh_lab.client().get("http://ratings/").status_code == 500
    (error,) = mesh_lab.failures("ratings")
    assert isinstance(error, KeyError)


@pytest.mark.parametrize("app", [lambda: 200, lambda a, b, c, d: 200, 503])
def test_what_is_no_application_is_refused(mesh_lab: MeshLab, app: Any) -> None:
    with pytest.raises(TypeError, match="ASGI"):
        mesh_lab.service("ratings", app)


def test_wsgi(mesh_lab: MeshLab) -> None:
    app = flask.Flask(__name__)

    @app.post("/double/<int:number>")
    def double(number: int) -> Any:
        return {
            "result": 2 * number,
            "sent": flask.request.get_json(),
            "peer": str(flask.request.environ["meshlib"].peer),
            "stars": mesh_lab.client("ratings").get("http://stars/").text,
        }

    mesh_lab.service("ratings", app)
    mesh_lab.service("stars", lambda request: "five")
    response = mesh_lab.session("reviews").post("http://ratings/double/4", json="x")
    assert isinstance(response, requests.Response)
    assert response.json() == {
        "result": 8,
        "sent": "x",
        "peer": "spiffe://cluster.local/ns/default/sa/reviews",
        "stars": "five",
    }


def test_asgi_with_a_lifespan(mesh_lab: MeshLab) -> None:
    seen: list[str] = []

    async def lifespan(app: object) -> AsyncIterator[dict[str, str]]:
        seen.append("up")
        yield {"pool": "open"}
        seen.append("down")

    async def show(request: Request) -> JSONResponse:
        return JSONResponse({"pool": request.state.pool, "deadline": request.state.meshlib.deadline})

    from contextlib import asynccontextmanager

    mesh_lab.service("ratings", Starlette(routes=[Route("/", show)], lifespan=asynccontextmanager(lifespan)))
    assert seen == []
    assert mesh_lab.client(timeout=None).get("http://ratings/").json() == {"pool": "open", "deadline": None}
    mesh_lab.close()
    assert seen == ["up", "down"]


def test_endpoints_in_threads_take_no_time_of_the_labs(mesh_lab: MeshLab) -> None:
    """FastAPI runs plain functions in threads; what one of them calls runs in the lab."""
    app = fastapi.FastAPI()

    @app.get("/")
    def root() -> Any:
        return mesh_lab.client("ratings").get("http://stars/").json()

    mesh_lab.service("ratings", app)
    mesh_lab.service("stars", lambda request: {"stars": 5})
    mesh_lab.inject("stars", Refuse(), times=1)
    mesh_lab.inject("stars", Delay(0.5))
    began = mesh_lab.clock.now
    response = mesh_lab.mesh("reviews").request("GET", "http://ratings/", timeout=5.0)
    assert response.json() == {"stars": 5}
    assert began + 0.5 <= mesh_lab.clock.now < began + 1.0


def test_a_body_comes_piece_by_piece_in_its_own_time(mesh_lab: MeshLab) -> None:
    async def ticks() -> AsyncIterator[bytes]:
        for number in range(3):
            await asyncio.sleep(1.0)
            yield str(number).encode()

    mesh_lab.service("clock", Starlette(routes=[Route("/", lambda request: StreamingResponse(ticks()))]))
    began = mesh_lab.clock.now
    with mesh_lab.client().stream("GET", "http://clock/") as response:
        pieces = [(piece, mesh_lab.clock.now - began) for piece in response.iter_raw()]
    assert pieces == [(b"0", 1.0), (b"1", 2.0), (b"2", 3.0)]


def test_a_body_that_stops_runs_into_the_read_timeout(mesh_lab: MeshLab) -> None:
    async def stuck() -> AsyncIterator[bytes]:
        yield b"begin"
        await asyncio.sleep(3600.0)

    mesh_lab.service("clock", Starlette(routes=[Route("/", lambda request: StreamingResponse(stuck()))]))
    began = mesh_lab.clock.now
    with mesh_lab.client(timeout=2.0).stream("GET", "http://clock/") as response, pytest.raises(httpx.ReadTimeout):
        response.read()
    assert mesh_lab.clock.now == began + 2.0


def test_a_body_can_be_sent_in_pieces(mesh_lab: MeshLab) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"a"
        yield b"b"

    mesh_lab.service("ratings", lambda request: request.body)
    assert mesh_lab.client().post("http://ratings/", content=pieces()).content == b"ab"


Echo = Callable[[Received], Awaitable[object]]


def slow_echo(seconds: float) -> Echo:
    async def echo(request: Received) -> object:
        await asyncio.sleep(seconds)
        return request.path

    return echo


async def test_calls_of_a_test_with_a_loop_of_its_own_overlap(mesh_lab: MeshLab) -> None:
    mesh_lab.service("ratings", slow_echo(2.0))
    began = mesh_lab.clock.now
    async with mesh_lab.async_client() as client:
        found = await asyncio.gather(*(client.get(f"http://ratings/{number}") for number in range(5)))
    assert [response.text for response in found] == [f"/{number}" for number in range(5)]
    assert mesh_lab.clock.now == began + 2.0


async def test_time_is_moved_by_a_test_with_a_loop_of_its_own(mesh_lab: MeshLab) -> None:
    mesh_lab.service("ratings", slow_echo(60.0))
    began = mesh_lab.clock.now
    with pytest.raises(errors.TimeoutExceeded):
        await mesh_lab.mesh().arequest("GET", "http://ratings/", timeout=1.0)
    await mesh_lab.asleep(9.0)
    assert mesh_lab.clock.now == began + 10.0


async def test_a_stream_is_read_on_the_tests_own_loop(mesh_lab: MeshLab) -> None:
    async def ticks() -> AsyncIterator[bytes]:
        for number in range(3):
            await asyncio.sleep(1.0)
            yield str(number).encode()

    mesh_lab.service("clock", Starlette(routes=[Route("/", lambda request: StreamingResponse(ticks()))]))
    async with mesh_lab.async_client() as client, client.stream("GET", "http://clock/") as response:
        assert [piece async for piece in response.aiter_raw()] == [b"0", b"1", b"2"]


async def test_a_blocking_call_works_beside_a_running_loop(mesh_lab: MeshLab) -> None:
    mesh_lab.service("ratings", slow_echo(2.0))
    assert mesh_lab.client().get("http://ratings/x").text == "/x"


async def test_an_event_of_the_test_lets_an_application_go_on(mesh_lab: MeshLab) -> None:
    gate = asyncio.Event()

    async def waiting(request: Received) -> object:
        await gate.wait()
        return "open"

    mesh_lab.service("ratings", waiting)
    async with mesh_lab.async_client(timeout=None) as client:
        call = asyncio.create_task(client.get("http://ratings/"))
        await asyncio.sleep(0.01)
        assert not call.done()
        gate.set()
        assert (await call).text == "open"


def test_a_call_that_is_given_up_takes_nothing_with_it(mesh_lab: MeshLab) -> None:
    mesh_lab.service("ratings", slow_echo(60.0))

    async def main() -> str:
        async with mesh_lab.async_client(timeout=None) as client:
            call = asyncio.create_task(client.get("http://ratings/slow"))
            await asyncio.sleep(1.0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            return (await client.get("http://ratings/next")).text

    assert mesh_lab.run(main()) == "/next"
    assert all(upstream.active == 0 for upstream in mesh_lab.mesh().upstreams.values())


def test_a_blocking_call_in_a_coroutine_says_what_to_do(mesh_lab: MeshLab) -> None:
    async def wrong(request: Received) -> object:
        return mesh_lab.client("ratings").get("http://stars/").text

    mesh_lab.service("ratings", wrong)
    mesh_lab.service("stars")
    assert mesh_lab.client().get("http://ratings/").status_code == 500
    assert "asynchronous client" in str(mesh_lab.failures("ratings")[0])


def test_waiting_for_nothing_is_an_error_and_not_for_ever(mesh_lab: MeshLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshlib.testing.virtual_time.SILENCE", 0.01)

    async def forever(request: Received) -> object:
        return await asyncio.get_running_loop().create_future()

    mesh_lab.service("ratings", forever)
    with pytest.raises(Stalled, match="nobody is going to do"):
        mesh_lab.client(timeout=None).get("http://ratings/")


def test_copies_arrive_at_their_mirror(mesh_lab: MeshLab) -> None:
    mesh_lab.service("ratings")
    mesh_lab.service("shadow", slow_echo(60.0))
    mesh_lab.apply(
        json.dumps(
            {
                "apiVersion": "networking.istio.io/v1",
                "kind": "VirtualService",
                "metadata": {"name": "ratings"},
                "spec": {
                    "hosts": ["ratings"],
                    "http": [{"route": [{"destination": {"host": "ratings"}}], "mirror": {"host": "shadow"}}],
                },
            }
        )
    )
    began = mesh_lab.clock.now
    assert mesh_lab.client().post("http://ratings/", content=b"x").status_code == 200
    (copy,) = mesh_lab.requests("shadow")
    assert (copy.method, copy.body) == ("POST", b"x")
    assert mesh_lab.clock.now == began
