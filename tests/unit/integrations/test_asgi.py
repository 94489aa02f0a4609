"""The ASGI middleware, driven by hand: lifespans of every kind, scopes of every server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pytest

from meshlib import Mesh, RequestContext
from meshlib.flow.inbound import NO_POLICY, InboundPlan
from meshlib.model.listener import MtlsMode
from meshlib.testing import StaticControl
from meshlib_integrations.asgi import MeshMiddleware

Message = MutableMapping[str, Any]


class Driver:
    """A server of one application; `sent` is what came back."""

    def __init__(self, app: Any) -> None:
        self.control = StaticControl()
        self.mesh = Mesh(control=self.control, service="tests", port=8080, drain_seconds=0.0)
        self.middleware = MeshMiddleware(app, self.mesh)
        self.sent: list[Message] = []
        self.scopes: list[Message] = []

    async def run(self, scope: Message, *incoming: Message) -> None:
        waiting = list(incoming)

        async def receive() -> Message:
            return waiting.pop(0)

        async def send(message: Message) -> None:
            self.sent.append(message)

        await self.middleware(scope, receive, send)

    async def lifespan(self) -> None:
        await self.run({"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})

    @property
    def types(self) -> list[str]:
        return [message["type"] for message in self.sent]


def http(**changes: Any) -> Message:
    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": [(b"host", b"a")]}
    return {**scope, **changes}


# --- lifespan


async def supporting(scope: Message, receive: Any, send: Any) -> None:
    for phase in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{phase}"
        await send({"type": f"lifespan.{phase}.complete"})


async def refusing(scope: Message, receive: Any, send: Any) -> None:
    raise ValueError("lifespans are not for me")


async def ignoring(scope: Message, receive: Any, send: Any) -> None:
    return


async def failing(scope: Message, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def crashing(scope: Message, receive: Any, send: Any) -> None:
    await receive()
    raise RuntimeError("no database")


@pytest.mark.parametrize("app", [supporting, refusing, ignoring])
async def test_the_mesh_has_a_lifespan_whatever_the_application_does(app: Any) -> None:
    driver = Driver(app)
    await driver.lifespan()
    assert driver.types == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert driver.mesh.draining
    assert driver.control.announced == []  # withdrawn again


async def test_it_is_announced_when_the_application_is_ready() -> None:
    announced: list[list[int]] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        announced.append(list(driver.control.announced))
        await send({"type": "lifespan.startup.complete"})
        announced.append(list(driver.control.announced))
        await receive()

    driver = Driver(app)
    await driver.lifespan()
    assert announced == [[], [8080]]


async def test_a_failed_startup_is_passed_on() -> None:
    driver = Driver(failing)
    await driver.lifespan()
    assert driver.types == ["lifespan.startup.failed"]
    assert driver.sent[0]["message"] == "no database"
    assert not driver.mesh.draining


async def test_a_crash_in_the_startup_is_passed_on() -> None:
    driver = Driver(crashing)
    with pytest.raises(RuntimeError, match="no database"):
        await driver.lifespan()
    assert driver.sent == []
    assert driver.control.announced == []


async def test_without_a_lifespan_the_first_request_announces() -> None:
    driver = Driver(ignoring)
    for _ in range(2):
        await driver.run(http())
    assert driver.control.announced == [8080]


# --- requests


async def seen(scope: Message) -> Message:
    """The scope that the application gets."""
    scopes: list[Message] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        scopes.append(scope)

    await Driver(app).run(scope)
    return scopes[0]


@pytest.mark.parametrize("changes", [{}, {"state": None}, {"state": {"db": 1}}])
async def test_the_context_joins_the_requests_state(changes: Message) -> None:
    state = (await seen(http(**changes)))["state"]
    assert isinstance(state.pop("meshlib"), RequestContext)
    assert state == (changes.get("state") or {})


@pytest.mark.parametrize(
    ("changes", "path", "raw_path", "query"),
    [
        ({"path": "/a b", "raw_path": b"/a%20b"}, "/a b", b"/a%20b", b""),
        ({"raw_path": b"http://a/x%20y?q=1", "path": "http://a/x y"}, "/x y", b"/x%20y", b"q=1"),
        ({"raw_path": b"http://a", "query_string": b"q=%20"}, "/", b"/", b"q=%20"),
    ],
)
async def test_the_application_gets_the_origin_form(changes: Message, path: str, raw_path: bytes, query: bytes) -> None:
    given = await seen(http(**changes))
    assert (given["path"], given["raw_path"], given["query_string"]) == (path, raw_path, query)


@pytest.mark.parametrize("path", ["/plain", "/a b/ü%", "/a;b=c,d"])
async def test_a_server_without_raw_path_is_served(path: str) -> None:
    scope = http(path=path)
    del scope["raw_path"]
    assert (await seen(scope))["path"] == path


async def test_a_path_that_cannot_have_been_sent_is_refused() -> None:
    """Without `raw_path` the decoded one is all there is: a NUL in it was an encoded one."""
    scope = http(path="/a\0b")
    del scope["raw_path"]
    driver = Driver(ignoring)
    await driver.run(scope)
    assert driver.sent[0]["status"] == 400


@pytest.mark.parametrize("port", [8081, "8081"], ids=["number", "text, as granian has it"])
async def test_what_holds_for_a_port_is_found_whatever_the_server_calls_it(port: object) -> None:
    driver = Driver(ignoring)
    plan = InboundPlan(mtls=MtlsMode.STRICT)
    await driver.run(http(server=("127.0.0.1", port)))
    assert driver.sent == []
    driver.mesh._inbound.publish({8081: NO_POLICY, 8080: plan})
    await driver.run(http(server=("127.0.0.1", port)))
    assert driver.sent == []
    await driver.run(http(server=("127.0.0.1", 8080)))
    assert driver.sent[0]["status"] == 403


@pytest.mark.parametrize(("version", "closes"), [("1.1", True), ("1.0", True), ("2", False), ("3", False)])
async def test_only_http_1_has_connections_to_close(version: str, closes: bool) -> None:
    driver = Driver(ignoring)
    await driver.run(http(raw_path=b"/%00", http_version=version))
    assert ((b"connection", b"close") in driver.sent[0]["headers"]) == closes


async def answering(scope: Message, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"Connection", b"keep-alive"), (b"x", b"1")]})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(
    ("version", "headers"),
    [("1.1", [(b"x", b"1"), (b"connection", b"close")]), ("2", [(b"Connection", b"keep-alive"), (b"x", b"1")])],
)
async def test_draining_is_said_in_responses(version: str, headers: list[tuple[bytes, bytes]]) -> None:
    driver = Driver(answering)
    driver.mesh.drain()
    await driver.run(http(http_version=version))
    assert driver.sent[0]["headers"] == headers


@pytest.mark.parametrize(
    ("extensions", "types"),
    [
        (None, ["websocket.close"]),
        ({"websocket.http.response": {}}, ["websocket.http.response.start", "websocket.http.response.body"]),
    ],
)
async def test_a_websocket_is_refused_before_it_is_accepted(extensions: Any, types: list[str]) -> None:
    driver = Driver(ignoring)
    scope = http(type="websocket", raw_path=b"/%00", extensions=extensions)
    del scope["method"]
    await driver.run(scope)
    assert driver.types == types


async def test_other_scopes_pass() -> None:
    scope = {"type": "something.new"}
    assert await seen(scope) is scope


async def typed_with_dicts(
    scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    await send({"type": "http.response.start", "status": 204})


async def test_applications_may_be_typed_as_they_like() -> None:
    """mypy reads this test as well: dict is what most hand-written applications say."""
    driver = Driver(typed_with_dicts)
    driver.middleware = MeshMiddleware(typed_with_dicts, driver.mesh)
    await driver.run(http())
    assert driver.types == ["http.response.start"]


async def test_a_process_that_cannot_prove_who_it_is_lets_nobody_in() -> None:
    """Without a lifespan nothing stops the server, so each request is refused; one without identities by choice is open."""
    for mesh, status in (
        (Mesh(service="tests", port=8080), 403),
        (Mesh(control=StaticControl(), service="tests", port=8080), 200),
    ):
        driver = Driver(answering)
        driver.middleware = MeshMiddleware(answering, mesh)
        for _ in range(2):  # the second one does not try again
            await driver.run(http())
        assert [message["status"] for message in driver.sent if "status" in message] == [status, status]
        mesh.close()
