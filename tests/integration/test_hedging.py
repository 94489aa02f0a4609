"""Hedged calls against real servers: one that holds its answers back, and one that does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from meshlib import Mesh
from meshlib.model.cluster import LbPolicy
from meshlib.model.resilience import Hedging, Resilience
from meshlib.testing import service, static_mesh
from tests.support.meshcalls import Fetch, astreamed, awhole, streamed, whole

PATIENCE = 20.0


class Replica:
    """Answers at once, unless its answers are held back until somebody hangs up or `released` is set."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.slow = False
        self.released = threading.Event()
        self.requests = 0
        self.hung_up = 0
        replica = self

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                replica.requests += 1
                if replica.slow:
                    replica.hold(self)
                    return
                body = replica.name.encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def hold(self, handler: BaseHTTPRequestHandler) -> None:
        """Until the caller hangs up."""
        handler.close_connection = True
        handler.connection.settimeout(0.05)
        while not self.released.is_set():
            try:
                if not handler.connection.recv(1):
                    self.hung_up += 1
                    return
            except TimeoutError:
                continue
            except OSError:
                self.hung_up += 1
                return

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def on_time(condition: Callable[[], bool]) -> None:
    """Holds soon; the other side learns of a hang-up a little later."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def replicas() -> Iterator[tuple[Replica, Replica]]:
    pair = Replica("a"), Replica("b")
    yield pair
    for replica in pair:
        replica.close()


def hedged_mesh(*replicas: Replica, delay: float = 0.05) -> Mesh:
    addresses = [f"127.0.0.1:{replica.port}" for replica in replicas]
    target = service("reviews", addresses, retry=None, lb_policy=LbPolicy.ROUND_ROBIN)
    ((name, config),) = target.clusters.items()
    assert config.cluster is not None
    policy = Resilience(hedging=Hedging(delay=delay, budget_percent=100.0))
    cluster = replace(config.cluster, resilience=policy)
    return static_mesh(replace(target, clusters={name: replace(config, cluster=cluster)}))


@pytest.mark.parametrize("fetch", [whole, streamed, awhole, astreamed])
def test_the_fast_replica_answers_for_the_slow_one(replicas: tuple[Replica, Replica], fetch: Fetch) -> None:
    """Whoever begins at the slow one is answered by the fast one, and the slow one sees him hang up."""
    slow, fast = replicas
    slow.slow = True
    with hedged_mesh(slow, fast) as mesh:
        answers = [fetch(mesh, "GET", "http://reviews/", timeout=PATIENCE) for _ in range(6)]
        assert [answer.content for answer in answers] == [b"b"] * 6
        assert {answer.info.endpoint for answer in answers} == {f"127.0.0.1:{fast.port}"}
        copies = sum(answer.info.attempts - 1 for answer in answers)
        assert copies > 0
        on_time(lambda: slow.hung_up == slow.requests == copies)


@pytest.mark.parametrize("fetch", [whole, awhole])
def test_quick_answers_cost_one_request_each(replicas: tuple[Replica, Replica], fetch: Fetch) -> None:
    with hedged_mesh(*replicas, delay=PATIENCE) as mesh:
        for _ in range(6):
            fetch(mesh, "GET", "http://reviews/", timeout=PATIENCE)
        assert replicas[0].requests + replicas[1].requests == 6


def test_connections_of_winners_are_used_again(replicas: tuple[Replica, Replica]) -> None:
    """What was cut off is gone; what was not still serves."""
    slow, fast = replicas
    with hedged_mesh(slow, fast) as mesh:
        mesh.request("GET", "http://reviews/", timeout=PATIENCE)
        mesh.request("GET", "http://reviews/", timeout=PATIENCE)
        slow.slow = True
        for _ in range(4):
            assert mesh.request("GET", "http://reviews/", timeout=PATIENCE).content == b"b"
        slow.slow = False
        assert {mesh.request("GET", "http://reviews/", timeout=PATIENCE).content for _ in range(4)} == {b"a", b"b"}
