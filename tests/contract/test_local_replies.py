"""Responses of a route's own (redirect, fixed answer, injected fault), as the users of each client library get them.

There is nothing at the endpoint's address: whatever came from there would be an error.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshlib import Mesh
from meshlib.model.route import (
    DirectResponse,
    Fault,
    Forward,
    HeaderChanges,
    HeaderValue,
    PathMatch,
    Redirect,
    Route,
    RouteMatch,
    WeightedCluster,
)
from meshlib.testing import service, static_mesh
from tests.support.callers import Ask, Caller

Make = Callable[[Mesh], Caller]

FORWARD = Forward((WeightedCluster("outbound|80||reviews"),))
MARK = HeaderChanges(response_add=(HeaderValue(b"x-mark", b"1"),))


def at(path: str) -> RouteMatch:
    return RouteMatch(PathMatch("prefix", path))


def mesh() -> Mesh:
    routes = (
        Route("moved", at("/moved"), Redirect(302, path="/there", host="other.test")),
        Route("teapot", at("/teapot"), DirectResponse(418, b"short and stout"), headers=MARK),
        Route("empty", at("/empty"), DirectResponse(204)),
        Route("aborted", at("/aborted"), FORWARD, fault=Fault(http_status=503, abort_fraction=1.0)),
        Route("held up", at("/held-up"), FORWARD, fault=Fault(0.01, 1.0, http_status=429, abort_fraction=1.0)),
    )
    return static_mesh(service("reviews", ["127.0.0.1:9"], routes=routes))


CASES = [
    ("/moved?q=1", 302, b"", ()),
    ("/teapot", 418, b"short and stout", ()),
    ("/empty", 204, b"", ()),
    ("/aborted", 503, b"fault filter abort", ("FI",)),
    ("/held-up", 429, b"fault filter abort", ("DI", "FI")),
]


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
@pytest.mark.parametrize(("path", "status", "body", "flags"), CASES)
def test_users_get_them_as_any_other_response(
    client: Make, method: str, path: str, status: int, body: bytes, flags: tuple[str, ...]
) -> None:
    caller = client(mesh())
    reply = caller.send(Ask(f"http://reviews{path}", method, content=b"x" if method == "POST" else b""))
    assert (reply.status, reply.content) == (status, b"" if method == "HEAD" else body)
    assert reply.record is not None
    assert (reply.record.status, reply.record.attempts, reply.record.flags) == (status, 0, flags)
    assert reply.all("x-mark") == (["1"] if path == "/teapot" else [])
    assert reply.all("location") == (["http://other.test/there?q=1"] if path.startswith("/moved") else [])
    if body:
        assert reply.all("content-type") == ["text/plain"]
        assert reply.all("content-length") == [str(len(body))]


@pytest.mark.parametrize(("path", "status", "body", "flags"), CASES)
async def test_native_calls_get_them_too(path: str, status: int, body: bytes, flags: tuple[str, ...]) -> None:
    async with mesh() as running:
        blocking, waiting = (
            running.request("GET", f"http://reviews{path}"),
            await running.arequest("GET", f"http://reviews{path}"),
        )
    for response in (blocking, waiting):
        assert (response.status_code, response.content, response.info.flags) == (status, body, flags)
