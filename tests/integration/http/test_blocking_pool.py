"""The blocking pool under threads: Envoy's limits, order, staleness, draining, and after a fork."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from meshlib.model.endpoint import Endpoint
from meshlib.model.outcome import Reset
from meshlib.runtime.http.blocking import BlockingPool
from meshlib.runtime.http.blocking_response import BlockingResponse
from meshlib.runtime.http.limits import Limits
from meshlib.runtime.http.settings import PoolSettings, Timeouts
from meshlib.wire.errors import CannotConnect, LimitReached, PoolTimedOut, RequestFailed, TimedOut
from meshlib.wire.request import encode_head
from tests.support.servers import ScriptedPeer, free_port, read_head

OK = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b"
GET = encode_head("GET", "/", [], authority="test")


class Gate:
    """A peer that answers each request with its connection's number, one for every `let`."""

    def __init__(self) -> None:
        self._permits = threading.Semaphore(0)
        self.requests = 0
        self.peer = ScriptedPeer(self._script)

    def _script(self, connected: socket.socket, number: int) -> None:
        while read_head(connected):
            self.requests += 1
            if not self._permits.acquire(timeout=30):
                return
            body = b"%d" % number
            connected.sendall(OK % (len(body), body))

    def let(self, count: int = 1) -> None:
        self._permits.release(count)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    with gate.peer:
        yield gate
        gate.let(1000)


Make = Callable[..., BlockingPool]


@pytest.fixture
def make(gate: Gate) -> Iterator[Make]:
    pools: list[BlockingPool] = []

    def made(*, limits: Limits | None = None, port: int | None = None, **settings: float) -> BlockingPool:
        options = PoolSettings(limits or Limits(), **settings)  # type: ignore[arg-type]
        pools.append(BlockingPool(Endpoint("127.0.0.1", port or gate.peer.port), options))
        return pools[-1]

    yield made
    for pool in pools:
        pool.close()


@pytest.fixture
def threads(gate: Gate) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as executor:
        yield executor
        gate.let(1000)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def start(pool: BlockingPool, gate: Gate, threads: ThreadPoolExecutor) -> Future[BlockingResponse]:
    """A request that has reached the peer."""
    before = gate.requests
    future = threads.submit(pool.send, GET)
    until(lambda: gate.requests > before)
    return future


def test_the_connection_used_last_is_used_next(make: Make, gate: Gate, threads: ThreadPoolExecutor) -> None:
    pool = make()
    futures = [start(pool, gate, threads), start(pool, gate, threads)]
    gate.let(7)
    assert sorted(future.result().read() for future in futures) == [b"0", b"1"]
    assert len({pool.send(GET).read() for _ in range(5)}) == 1


def test_requests_beyond_the_limit_wait_in_line(make: Make, gate: Gate, threads: ThreadPoolExecutor) -> None:
    limits = Limits(max_connections=1)
    pool = make(limits=limits)
    done: list[int] = []

    def numbered(number: int) -> None:
        pool.send(GET).read()
        done.append(number)

    first = start(pool, gate, threads)
    futures = []
    for number in range(5):
        futures.append(threads.submit(numbered, number))
        until(lambda: f"waiting={len(futures)}" in repr(pool))
    assert (limits.pending, limits.connections) == (5, 1)
    for served in range(6):
        gate.let()
        until(lambda: len(done) >= served)  # noqa: B023
    first.result()
    for future in futures:
        future.result()
    assert done == [0, 1, 2, 3, 4]
    assert (limits.pending, gate.peer.accepted) == (0, 1)


def test_requests_beyond_the_pending_limit_overflow(make: Make, gate: Gate, threads: ThreadPoolExecutor) -> None:
    limits = Limits(max_connections=1, max_pending_requests=1)
    pool = make(limits=limits)
    first = start(pool, gate, threads)
    second = threads.submit(pool.send, GET)
    until(lambda: "waiting=1" in repr(pool))
    with pytest.raises(LimitReached) as caught:
        pool.send(GET)
    assert (caught.value.reset, caught.value.sent) == (Reset.OVERFLOW, False)
    gate.let(2)
    assert (first.result().status, second.result().status, limits.pending) == (200, 200, 0)


def test_no_pending_allowed_means_no_connection_is_ever_opened(make: Make) -> None:
    with pytest.raises(LimitReached):
        make(limits=Limits(max_pending_requests=0)).send(GET)


def test_an_endpoint_without_a_connection_gets_one_beyond_the_limit(
    make: Make, gate: Gate, threads: ThreadPoolExecutor
) -> None:
    limits = Limits(max_connections=1)
    pools = [make(limits=limits), make(limits=limits)]
    futures = [start(pool, gate, threads) for pool in pools]
    assert limits.connections == 2
    gate.let(2)
    assert [future.result().status for future in futures] == [200, 200]


def test_waiting_ends_with_the_pool_timeout(make: Make, gate: Gate, threads: ThreadPoolExecutor) -> None:
    limits = Limits(max_connections=1)
    pool = make(limits=limits)
    first = start(pool, gate, threads)
    with pytest.raises(PoolTimedOut) as caught:
        pool.send(GET, timeouts=Timeouts(pool=0.05))
    assert (caught.value.reset, caught.value.which, caught.value.sent) == (Reset.POOL_TIMEOUT, "pool", False)
    with pytest.raises(TimedOut) as late:
        pool.send(GET, deadline=time.monotonic() + 0.05, deadline_name="route")
    assert (late.value.which, late.value.sent) == ("route", False)
    gate.let(2)
    first.result()
    assert (pool.send(GET).status, limits.pending) == (200, 0)


def test_a_connection_that_ends_makes_room_for_the_next_in_line(make: Make, gate: Gate, threads: ThreadPoolExecutor) -> None:
    pool = make(limits=Limits(max_connections=1), max_requests_per_connection=1)
    first = start(pool, gate, threads)
    second = threads.submit(pool.send, GET)
    until(lambda: "waiting=1" in repr(pool))
    gate.let(2)
    assert (first.result().read(), second.result().read()) == (b"0", b"1")


def test_a_failed_connect_fails_all_that_wait_for_the_endpoint(make: Make, threads: ThreadPoolExecutor) -> None:
    limits = Limits(max_connections=1)
    pool = make(limits=limits, port=free_port())
    errors = [threads.submit(pool.send, GET).exception() for _ in range(8)]
    assert {type(error) for error in errors} == {CannotConnect}
    assert (limits.connections, limits.pending) == (0, 0)


@pytest.mark.parametrize("setting", ["idle_timeout", "max_connection_duration"])
def test_overdue_connections_are_swept_and_never_used(make: Make, gate: Gate, setting: str) -> None:
    gate.let(4)
    pool = make(**{setting: 0.1})
    assert pool.send(GET).read() == b"0"
    time.sleep(0.15)
    assert pool.send(GET).read() == b"1"
    time.sleep(0.15)
    pool.sweep()
    assert pool.settings.limits.connections == 0


def test_drain_and_close(make: Make, gate: Gate, threads: ThreadPoolExecutor) -> None:
    pool = make()
    futures = [start(pool, gate, threads), start(pool, gate, threads)]
    gate.let()
    until(lambda: any(future.done() for future in futures))
    pool.drain()
    assert "idle=0 busy=1" in repr(pool)
    gate.let(2)
    assert {future.result().status for future in futures} == {200}
    assert pool.settings.limits.connections == 0
    assert pool.send(GET).status == 200
    pool.close()
    with pytest.raises(RequestFailed) as caught:
        pool.send(GET)
    assert (caught.value.sent, pool.settings.limits.connections) == (False, 0)


def test_a_body_is_read_as_it_comes_and_may_be_given_up(make: Make) -> None:
    closes: list[int] = []

    def script(connected: socket.socket, _number: int) -> None:
        read_head(connected)
        connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        connected.recv(1)

    with ScriptedPeer(script) as peer:
        pool = make(port=peer.port)
        response = pool.send(GET)
        response.on_close = lambda: closes.append(1)
        assert (next(response), response.body, closes) == (b"half", None, [])
        response.close()
        response.close()
        assert (closes, pool.settings.limits.connections) == ([1], 0)
        with pytest.raises(RequestFailed):
            response.read()


def test_a_large_body_arrives_whole_in_pieces(make: Make) -> None:
    def script(connected: socket.socket, _number: int) -> None:
        read_head(connected)
        connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 20000000\r\n\r\n" + b"x" * 20_000_000)

    with ScriptedPeer(script) as peer:
        sizes = [len(piece) for piece in make(port=peer.port).send(GET)]
    assert sum(sizes) == 20_000_000
    assert max(sizes) <= 64 * 1024


def test_many_threads_leave_exact_counters(make: Make, gate: Gate, threads: ThreadPoolExecutor) -> None:
    """F39: nothing is lost or counted twice, whatever the interleaving."""
    limits = Limits(max_connections=5)
    pool = make(limits=limits)
    gate.let(1000)
    futures = [threads.submit(lambda: pool.send(GET).read()) for _ in range(400)]
    assert all(future.result().isdigit() for future in futures)
    assert limits.pending == 0
    assert limits.connections <= 5
    pool.close()
    assert limits.connections == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 and later, because of the peer's threads
def test_a_forked_child_makes_its_own_pools(make: Make, gate: Gate) -> None:
    """Nothing is kept per module: the child starts anew, and the parent's connection is left alone."""
    gate.let(3)
    pool = make()
    assert pool.send(GET).read() == b"0"
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            own = BlockingPool(pool.endpoint, PoolSettings(Limits()))
            os.write(write_end, own.send(GET, timeouts=Timeouts(10, 10, 10)).read())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read_end, 10) == b"1"
    assert pool.send(GET).read() == b"0"
    os.close(read_end)
    os.close(write_end)
