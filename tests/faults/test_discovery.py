"""F01, F02, F06, F07 and F11 from the caller's side: discovery falls silent, or says that nothing is left; calls go on.

Consul is a fake, since a real one cannot be made to lie; the control service between it and the client is real.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from meshlib import Mesh, errors
from meshlib.lowlevel import Timeouts
from tests.support.control import Control
from tests.support.control import eventually as until
from tests.support.fake_consul import FakeConsul
from tests.support.load import Load, leaking_nothing
from tests.support.origins import BODY, Origin
from tests.support.polling import eventually

pytestmark = pytest.mark.slow

RATE = 50.0
PATIENT = Timeouts(connect=30.0, read=30.0)
REVIEWS = "reviews.default.svc.cluster.local"


class Bench:
    """Three servers that Consul knows, a client that calls them, and what an operator would see."""

    def __init__(self, consul: FakeConsul, control: Control, mesh: Mesh, servers: list[Origin]) -> None:
        self.consul = consul
        self.mesh = mesh
        self.servers = servers
        self.control = control

    def register(self, *servers: Origin) -> None:
        self.consul.serve("reviews", [self.consul.instance("reviews", server.port) for server in servers])

    def endpoints(self) -> set[int]:
        """That the client balances over."""
        target = self.mesh._running().link.current.targets.get("reviews:80")
        clusters = target.clusters.values() if target is not None else ()
        return {endpoint.port for cluster in clusters for endpoint in cluster.endpoints}

    async def becomes_suspicious(self, *, so: bool = True) -> None:
        """What `meshctl status` shows."""

        def shown() -> bool:
            return bool(self.control.get("/v1/status")["suspicious"]) is so

        await asyncio.to_thread(until, shown, what=f"suspicious: {so}")

    async def call(self, number: int) -> bytes:
        response = await self.mesh.arequest("POST", f"http://reviews/{number}", content=b"x", timeout=PATIENT)
        assert response.status_code == 200
        return response.content


@asynccontextmanager
async def bench(folder: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        consul = await stack.enter_async_context(FakeConsul())
        servers = [await stack.enter_async_context(Origin()) for _ in range(3)]
        control = Control(folder, "--consul-catalog", consul.url)
        await asyncio.to_thread(control.start)
        stack.push_async_callback(asyncio.to_thread, control.kill)
        mesh = await stack.enter_async_context(Mesh(insecure_dev=True, control=control.xds))
        made = Bench(consul, control, mesh, servers)
        made.register(*servers)
        mesh.prefetch("reviews")
        await eventually(lambda: made.endpoints() == {server.port for server in servers})
        yield made


def empty(consul: FakeConsul) -> None:
    consul.serve("reviews", [])


def wiped(consul: FakeConsul) -> None:
    consul.wipe()


def one_of_three(consul: FakeConsul) -> None:
    consul.serve("reviews", consul.health["reviews"][:1])


@pytest.mark.parametrize("lie", [empty, wiped, one_of_three], ids=["F06 empty", "F11 wiped", "F07 one of three"])
async def test_calls_go_on_when_discovery_says_that_nobody_is_there(tmp_path: Path, lie: Callable[[FakeConsul], None]) -> None:
    async with bench(tmp_path) as made:
        await made.call(-1)
        await made.mesh.aclose_loop()
        known = made.endpoints()
        async with leaking_nothing():
            async with Load(made.call, RATE) as load:
                await load.more(20)
                lie(made.consul)
                await made.becomes_suspicious()
                await load.more(50)
                assert made.endpoints() == known
                made.register(*made.servers)
                await made.becomes_suspicious(so=False)
                await load.more(20)
            await made.mesh.aclose_loop()
        assert load.errors == []
        assert {result.answer for result in load.results} == {BODY}
        assert {count for server in made.servers for count in server.seen.values()} == {1}
        assert sum(len(server.seen) for server in made.servers) == load.sent + 1


async def test_an_instance_that_really_left_is_gone(tmp_path: Path) -> None:
    """The positive control: one of three is a change like any other."""
    async with bench(tmp_path) as made:
        leaving, *staying = made.servers
        async with Load(made.call, RATE) as load:
            await load.more(20)
            made.register(*staying)
            await eventually(lambda: made.endpoints() == {server.port for server in staying})
            await load.more(5)
            before = len(leaving.seen)
            await load.more(40)
        assert load.errors == []
        assert len(leaving.seen) == before
        await made.mesh.aclose_loop()


async def test_calls_go_on_without_a_control_service(tmp_path: Path) -> None:
    """F01 and F02: killed and started again, it costs nothing; meanwhile a new host fails at once and says why."""
    async with bench(tmp_path) as made, Load(made.call, RATE) as load:
        await load.more(20)
        known = made.endpoints()
        await asyncio.to_thread(made.control.kill)
        await eventually(lambda: "unreachable" in made.mesh._running().link.state)
        with pytest.raises(errors.TargetUnknown, match="unreachable"):
            await made.mesh.arequest("GET", "http://ratings/")
        await load.more(50)
        assert made.endpoints() == known
        made.register(*made.servers[1:])
        await asyncio.to_thread(made.control.start)
        await eventually(lambda: made.endpoints() == {server.port for server in made.servers[1:]})
        await load.more(20)
        assert load.errors == []
        await made.mesh.aclose_loop()
    assert load.errors == []
    assert {count for server in made.servers for count in server.seen.values()} == {1}
