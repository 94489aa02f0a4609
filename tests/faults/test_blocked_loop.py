"""F32: the application blocks its event loop.  A sidecar would not notice; nor may what runs inside of the process.

The control stream and the registration live in threads of their own.  What arrived while nobody could look at it has
arrived in time: it is the loop that was late, not the endpoint.
"""

from __future__ import annotations

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import uvloop

from meshlib import Mesh, errors
from meshlib.lowlevel import Timeouts
from meshlib.model.cluster import CircuitBreakers
from meshlib.model.snapshot import Target
from meshlib.testing import service, static_mesh
from tests.support.backends import Backend, running
from tests.support.control import Control, eventually

BLOCKED = 0.5
SHORT = 0.2  # of every timeout: all of them pass while the loop is blocked

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def block() -> None:
    time.sleep(BLOCKED)


def shop(server: Backend, **options: Any) -> Target:
    return service("shop", [f"127.0.0.1:{server.port}"], retry=None, **options)


@pytest.fixture(params=list(LOOPS))
def runner(request: pytest.FixtureRequest) -> asyncio.Runner:
    return asyncio.Runner(loop_factory=LOOPS[request.param])


@pytest.mark.parametrize(
    ("timeouts", "route"),
    [
        (Timeouts(read=SHORT), 0.0),
        (Timeouts(total=SHORT), 0.0),
        (Timeouts(), SHORT),
    ],
    ids=["read", "total", "route"],
)
def test_f32_an_answer_that_lay_in_the_socket_is_no_timeout(runner: asyncio.Runner, timeouts: Timeouts, route: float) -> None:
    with running(["a"]) as backends, runner:
        mesh = static_mesh(shop(backends["a"], timeout=route))

        async def run() -> None:
            async with mesh:
                await mesh.arequest("GET", "http://shop/warm")
                call = asyncio.create_task(mesh.arequest("GET", "http://shop/", timeout=timeouts))
                await asyncio.sleep(0)  # it is sent
                block()
                assert (await call).text == "a"

        runner.run(run())


@pytest.mark.parametrize("whose", ["caller", "cluster"])
def test_f32_a_connection_that_was_made_meanwhile_is_no_timeout(runner: asyncio.Runner, whose: str) -> None:
    """A false one would have the endpoint avoided, and the request tried elsewhere."""
    timeouts = Timeouts(connect=SHORT if whose == "caller" else 30.0)
    cluster = SHORT if whose == "cluster" else 30.0
    with running(["a"]) as backends, runner:
        mesh = static_mesh(shop(backends["a"], connect_timeout=cluster))

        async def run() -> None:
            async with mesh:
                calls = [asyncio.create_task(mesh.arequest("GET", "http://shop/", timeout=timeouts)) for _ in range(20)]
                await asyncio.sleep(0)  # connections are under way
                block()
                assert [(await call).text for call in calls] == ["a"] * 20
                (upstream,) = mesh._running().client.destinations.upstreams.values()
                assert not upstream.reachability.refused_by, "it is taken for an endpoint that refuses connections"

        runner.run(run())


def test_f32_a_peer_that_is_really_silent_still_times_out(runner: asyncio.Runner) -> None:
    """The negative control: blocking does not switch timeouts off."""
    with socket.create_server(("127.0.0.1", 0)) as silent, runner:
        mesh = static_mesh(service("shop", [f"127.0.0.1:{silent.getsockname()[1]}"], retry=None))

        async def run() -> None:
            async with mesh:
                call = asyncio.create_task(mesh.arequest("GET", "http://shop/", timeout=Timeouts(read=SHORT)))
                await asyncio.sleep(0.05)
                block()
                with pytest.raises(errors.TimeoutExceeded) as caught:
                    await call
                assert caught.value.which == "read"

        runner.run(run())


def test_f32_a_connection_that_became_free_meanwhile_is_no_timeout(runner: asyncio.Runner) -> None:
    """Of a cluster with one connection, which both calls want."""
    with running(["a"]) as backends, runner:
        mesh = static_mesh(shop(backends["a"], breakers=CircuitBreakers(max_connections=1)))

        async def run() -> None:
            async with mesh:
                await mesh.arequest("GET", "http://shop/warm")
                calls = [
                    asyncio.create_task(mesh.arequest("GET", "http://shop/", timeout=Timeouts(pool=SHORT))) for _ in range(2)
                ]
                await asyncio.sleep(0)
                block()
                assert [(await call).text for call in calls] == ["a", "a"]

        runner.run(run())


@pytest.mark.slow
async def test_f32_stream_and_registration_go_on(tmp_path: Path) -> None:
    """A lease of a second outlives a loop that is blocked for three, and what changes meanwhile is known at its end."""
    with (
        Control(tmp_path, "--lease-ttl", "1", "--debounce", "0.02") as control,
        running(["a", "b"]) as backends,
        ThreadPoolExecutor(1) as observer,
    ):
        a, b = (backends[name].port for name in "ab")

        def healthy() -> list[int]:
            found = control.get("/v1/endpoints")["endpoints"]
            return sorted(each["port"] for each in found if each["health"] == "healthy")

        def observe() -> list[list[int]]:
            with Mesh(insecure_dev=True, control=control.xds, service="late", port=b, drain_seconds=0.0) as late:
                late.serve_started()
                eventually(lambda: b in healthy(), what="another service has come")
                deadline = time.monotonic() + 3.0
                seen = []
                while time.monotonic() < deadline:
                    seen.append(healthy())
                    time.sleep(0.1)
            return seen

        async with Mesh(insecure_dev=True, control=control.xds, service="shop", port=a, drain_seconds=0.0) as mesh:
            mesh.serve_started()
            await asyncio.to_thread(eventually, lambda: healthy() == [a], what="registered")
            mesh.prefetch("late")
            seen = observer.submit(observe).result(60)  # blocks the loop
            assert "late:80" in mesh._running().link.current.targets
            assert {tuple(ports) for ports in seen} == {tuple(sorted((a, b)))}
            assert (await mesh.arequest("GET", "http://shop/")).text == "a"
