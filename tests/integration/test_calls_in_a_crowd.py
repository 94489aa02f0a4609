"""Threads, coroutines, cancellations, configurations that come and go, one hedged service: every answer is its caller's own."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from meshlib import Mesh, errors
from meshlib.flow.upstream import Upstream
from meshlib.model.cluster import LbPolicy, OutlierDetection
from meshlib.model.resilience import AdaptiveConcurrency, CircuitBreaker, Hedging, Resilience
from meshlib.model.snapshot import Target
from meshlib.testing import StaticControl, service, snapshot

PATIENCE = 30.0
RESILIENCE = Resilience(
    hedging=Hedging(delay=0.01, budget_percent=100.0),
    circuit_breaker=CircuitBreaker(min_requests=100_000),
    adaptive_concurrency=AdaptiveConcurrency(fixed_min_rtt=60.0, min_concurrency=500),
)


class Echo(socketserver.StreamRequestHandler):
    """Answers with the path that it was asked for; every few requests late."""

    def handle(self) -> None:
        dice = random.Random()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while head := self.rfile.readline():
            while self.rfile.readline().strip():
                pass
            path = head.split()[1]
            if dice.random() < 0.2:
                time.sleep(dice.random() * 0.05)
            try:
                self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(path), path))
            except OSError:
                return


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever was cut off has hung up."""


@pytest.fixture(scope="module")
def ports() -> Iterator[list[int]]:
    servers = [Server(("127.0.0.1", 0), Echo) for _ in range(3)]
    threads = [threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}) for server in servers]
    for thread in threads:
        thread.start()
    yield [server.server_address[1] for server in servers]
    for server in servers:
        server.shutdown()
    for thread in threads:
        thread.join()
    for server in servers:
        server.server_close()


def crowded(ports: list[int], *, detects: bool = True, policy: LbPolicy = LbPolicy.ROUND_ROBIN) -> Target:
    target = service("echo", [f"127.0.0.1:{port}" for port in ports], lb_policy=policy)
    ((name, config),) = target.clusters.items()
    assert config.cluster is not None
    detection = OutlierDetection(interval=0.05, base_ejection_time=0.05) if detects else None
    cluster = replace(config.cluster, resilience=RESILIENCE, outlier_detection=detection)
    return replace(target, clusters={name: replace(config, cluster=cluster)})


class Crowd:
    """Callers until `stop`; `wrong` is what should not have happened."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.stopped = threading.Event()
        self.answers = 0
        self.wrong: list[str] = []

    def blocking(self, number: int) -> None:
        for call in range(1_000_000):
            if self.stopped.is_set():
                return
            path = f"/{number}/{call}"
            try:
                response = self.mesh.request("GET", f"http://echo{path}", timeout=PATIENCE)
            except errors.MeshError as error:
                self.wrong.append(f"{path}: {error!r}")
                return
            if response.text != path:
                self.wrong.append(f"{path}: got {response.text}")
            self.answers += 1

    async def _one(self, path: str) -> None:
        response = await self.mesh.arequest("GET", f"http://echo{path}", timeout=PATIENCE)
        if response.text != path:
            self.wrong.append(f"{path}: got {response.text}")
        self.answers += 1

    async def coroutines(self, number: int) -> None:
        """One in three is cancelled somewhere on its way."""
        dice = random.Random(number)
        while not self.stopped.is_set():
            calls = [asyncio.create_task(self._one(f"/{number}/{dice.random()}")) for _ in range(8)]
            await asyncio.sleep(dice.random() * 0.01)
            for call in calls[: dice.randrange(4)]:
                call.cancel()
            for result in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(result, Exception):
                    self.wrong.append(repr(result))
        await self.mesh.aclose_loop()


def upstreams(mesh: Mesh) -> list[Upstream]:
    return list(mesh._running().client.destinations.upstreams.values())


def is_idle(upstream: Upstream) -> bool:
    calm = not upstream.active and not upstream.active_retries and not any(host.active for host in upstream.hosts.values())
    return calm and all(guard.controller.active == 0 for guard in upstream.guards if hasattr(guard, "controller"))


def test_every_answer_is_its_callers_own_and_nothing_is_held_in_the_end(ports: list[int]) -> None:
    control = StaticControl(snapshot(crowded(ports)))
    with Mesh(control=control) as mesh:
        crowd = Crowd(mesh)
        threads = [threading.Thread(target=crowd.blocking, args=(number,)) for number in range(6)]
        threads.append(threading.Thread(target=lambda: asyncio.run(crowd.coroutines(100))))
        for thread in threads:
            thread.start()
        dice = random.Random(5)
        deadline = time.monotonic() + PATIENCE
        for step in range(60):
            some = dice.sample(ports, dice.randint(2, 3))
            policy = dice.choice((LbPolicy.ROUND_ROBIN, LbPolicy.LEAST_REQUEST, LbPolicy.RING_HASH))
            control.publish(snapshot(crowded(some, detects=step % 3 != 0, policy=policy)))
            enough = crowd.answers + 10
            while crowd.answers < enough and not crowd.wrong and time.monotonic() < deadline:
                time.sleep(0.005)
        crowd.stopped.set()
        for thread in threads:
            thread.join()
        assert not crowd.wrong
        assert crowd.answers >= 600
        (upstream,) = upstreams(mesh)
        assert upstream.hedger is not None
        assert upstream.hedger.hedged > 0
        while not all(map(is_idle, upstreams(mesh))):
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_is_forked_in_the_crowd_calls_on_its_own(ports: list[int]) -> None:
    """Whatever locks are held and slots are taken at the moment of the fork belong to the parent."""
    with Mesh(control=StaticControl(snapshot(crowded(ports)))) as mesh:
        crowd = Crowd(mesh)
        threads = [threading.Thread(target=crowd.blocking, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        children = []
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    if mesh.request("GET", "http://echo/child", timeout=5.0).text == "/child" and all(
                        map(is_idle, upstreams(mesh))
                    ):
                        code = 0
                finally:
                    os._exit(code)
            children.append(pid)
            time.sleep(0.02)
        codes = [ended(pid) for pid in children]
        crowd.stopped.set()
        for thread in threads:
            thread.join()
        assert codes == [0] * len(children)
        assert not crowd.wrong


def ended(pid: int) -> int | None:
    """The exit code of a child; None: it hangs."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return None
