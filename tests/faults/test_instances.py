"""Instances come and go under load, as processes behind a real control service: F33 (SIGTERM) and F34 (SIGKILL)."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from meshlib import Mesh, errors
from meshlib_control.demo.processes import free_ports
from meshlib_integrations.httpx import AsyncMeshTransport
from tests.support.control import Control, eventually
from tests.support.load import Load, Result, leaking_nothing
from tests.support.servers import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(240)]

RATE = 80.0
INSTANCES = 5
ROUNDS = 2  # of rolling restarts, each of all instances
LEASE = 2.0
GRACE = 30.0  # seconds in which a process ends after SIGTERM
SLACK = 15.0  # seconds for a busy machine


class Instance:
    """One uvicorn that serves `tests.support.counted`."""

    def __init__(self, control: Control, folder: Path) -> None:
        (self.port,) = free_ports(1)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("MESHLIB_")}
        environ |= {
            "PYTHONPATH": str(ROOT),
            "MESHLIB_CONTROL": control.xds,
            "MESHLIB_INSECURE_DEV": "1",
            "MESHLIB_SERVICE": "shop",
            "MESHLIB_PORT": str(self.port),
            "EXECUTED_FOLDER": str(folder),
        }
        command = [sys.executable, "-m", "uvicorn", "tests.support.counted:app", "--port", str(self.port)]
        self.process = subprocess.Popen([*command, "--log-level", "warning"], cwd=ROOT, env=environ, stdin=subprocess.DEVNULL)

    def end(self, number: int) -> float:
        """Send the signal; the seconds that it took the process to end."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(GRACE)
        return time.monotonic() - began


class Fleet:
    """The instances that are there now, and everything that any of them has ever executed."""

    def __init__(self, folder: Path) -> None:
        self.executed_in = folder / "executed"
        self.executed_in.mkdir()
        self.control = Control(folder, "--lease-ttl", str(int(LEASE)))
        self.instances: list[Instance] = []

    def add(self) -> Instance:
        instance = Instance(self.control, self.executed_in)
        self.instances.append(instance)
        return instance

    def settle(self) -> None:
        """Until those that are there are those that are known."""
        eventually(lambda: self.known() == self.ports(), what="all are registered")

    def ports(self) -> set[int]:
        return {instance.port for instance in self.instances}

    def known(self) -> set[int]:
        return {each["port"] for each in self.control.get("/v1/endpoints")["endpoints"] if each["health"] == "healthy"}

    def executed(self) -> Counter[tuple[str, str]]:
        lines = (line for file in self.executed_in.iterdir() for line in file.read_text().splitlines())
        return Counter((method, target) for method, _, target in (line.partition(" ") for line in lines))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    found = Fleet(tmp_path_factory.mktemp("fleet"))
    with found.control:
        try:
            for _ in range(INSTANCES):
                found.add()
            found.settle()
            yield found
        finally:
            for instance in found.instances:
                instance.process.kill()
                instance.process.wait(GRACE)


def endpoints(mesh: Mesh) -> set[int]:
    """That the client balances over."""
    target = mesh._running().link.current.targets.get("shop:80")
    clusters = target.clusters.values() if target is not None else ()
    return {endpoint.port for cluster in clusters for endpoint in cluster.endpoints}


@asynccontextmanager
async def loading(fleet: Fleet, run: str) -> AsyncIterator[tuple[Mesh, Load]]:
    """Every other request is a GET, the others are POSTs; each has a target of its own: ``/run/number``."""
    async with Mesh(insecure_dev=True, control=fleet.control.xds) as mesh:
        mesh.prefetch("shop")
        await asyncio.to_thread(eventually, lambda: endpoints(mesh) == fleet.ports(), what="the client knows them all")
        async with httpx.AsyncClient(transport=AsyncMeshTransport(mesh), timeout=SLACK) as client:

            async def send(number: int) -> str:
                url = f"http://shop/{run}/{number}"
                response = await (client.post(url, content=b"an order") if number % 2 else client.get(url))
                return response.raise_for_status().text

            await send(-1)
            await mesh.aclose_loop()
            async with leaking_nothing():
                async with Load(send, RATE) as load:
                    await load.more(20)
                    yield mesh, load
                await mesh.aclose_loop()


def counted(fleet: Fleet, run: str, load: Load) -> tuple[Counter[int], Counter[int]]:
    """How often each request was executed: GETs and POSTs by number."""
    gets: Counter[int] = Counter()
    posts: Counter[int] = Counter()
    for (method, target), count in fleet.executed().items():
        _, its_run, number = target.split("/")
        if its_run == run and number != "-1":
            (posts if method == "POST" else gets)[int(number)] = count
    assert gets.keys() <= set(range(0, load.sent, 2))
    assert posts.keys() <= set(range(1, load.sent, 2))
    return gets, posts


async def test_f33_rolling_restarts_cost_no_call(fleet: Fleet) -> None:
    """Not one GET and not one POST, and no POST is executed twice; each process ends within its grace."""
    seconds: list[float] = []

    def restart_one() -> None:
        leaving = fleet.instances.pop(0)
        fleet.add()
        seconds.append(leaving.end(signal.SIGTERM))
        fleet.settle()

    async with loading(fleet, "f33") as (_, load):
        for _ in range(ROUNDS * INSTANCES):
            await asyncio.to_thread(restart_one)
        await load.more(20)
    assert load.errors == []
    assert len(load.results) == load.sent
    gets, posts = counted(fleet, "f33", load)
    assert len(gets) + len(posts) == load.sent
    assert set(posts.values()) == {1}
    assert max(seconds) < GRACE
    served_by = {result.answer for result in load.results}
    assert {str(instance.process.pid) for instance in fleet.instances[:-1]} <= served_by
    assert len(served_by) >= (ROUNDS + 1) * INSTANCES - 1


def lost(load: Load) -> list[Result]:
    return [result for result in load.results if result.error is not None]


async def test_f34_a_killed_instance_costs_no_call_that_may_be_repeated(fleet: Fleet) -> None:
    """POSTs that it was executing are lost, and said to be: nobody can know what became of them."""

    def kill_one() -> tuple[int, float]:
        victim = fleet.instances.pop(0)
        victim.end(signal.SIGKILL)
        return victim.port, time.monotonic()

    async with loading(fleet, "f34") as (mesh, load):
        for _ in range(2):
            port, killed = await asyncio.to_thread(kill_one)
            assert port in endpoints(mesh)  # the client has to find out by itself
            before = load.sent
            await asyncio.to_thread(eventually, lambda gone=port: gone not in endpoints(mesh), what="its lease has ended")
            assert time.monotonic() - killed < LEASE + SLACK
            assert [result for result in lost(load) if result.number >= before] == [], "only what was in flight may be lost"
        await load.more(20)
    assert [result for result in lost(load) if result.number % 2 == 0] == []
    assert all(isinstance(error, errors.ConnectionTerminated | httpx.RemoteProtocolError) for error in load.errors)
    gets, posts = counted(fleet, "f34", load)
    assert len(gets) == len(range(0, load.sent, 2))
    assert set(posts.values()) == {1}
    for _ in range(2):
        fleet.add()
    await asyncio.to_thread(fleet.settle)
