"""The asyncio pool under concurrency: Envoy's limits, order, cancellation, backpressure, draining, the clock."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from meshlib.model.endpoint import Endpoint
from meshlib.model.outcome import Reset
from meshlib.runtime.http.aio import AsyncPool
from meshlib.runtime.http.aio_response import HIGH_WATER, AsyncResponse
from meshlib.runtime.http.limits import Limits
from meshlib.runtime.http.settings import PoolSettings, Timeouts
from meshlib.wire.errors import CannotConnect, LimitReached, PoolTimedOut, RequestFailed, TimedOut, WireError
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


Make = Callable[..., AsyncPool]


@pytest.fixture
async def make(gate: Gate) -> AsyncIterator[Make]:
    """Pools to the gate, closed at the end."""
    pools: list[AsyncPool] = []

    def made(*, limits: Limits | None = None, port: int | None = None, **settings: float) -> AsyncPool:
        options = PoolSettings(limits or Limits(), **settings)  # type: ignore[arg-type]
        pools.append(AsyncPool(Endpoint("127.0.0.1", port or gate.peer.port), options))
        return pools[-1]

    yield made
    for pool in pools:
        pool.abort()
    await asyncio.sleep(0.01)


async def body(response: AsyncResponse) -> bytes:
    return await response.read()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def start(pool: AsyncPool, gate: Gate) -> asyncio.Task[AsyncResponse]:
    """A request that has reached the peer."""
    before = gate.requests
    task = asyncio.create_task(pool.send(GET))
    await until(lambda: gate.requests > before)
    return task


async def test_the_connection_used_last_is_used_next(make: Make, gate: Gate) -> None:
    pool = make()
    first, second = await start(pool, gate), await start(pool, gate)
    gate.let(2)
    await asyncio.gather(first, second)
    order = [await body(task.result()) for task in (first, second)]
    gate.let(5)
    used = {await body(await pool.send(GET)) for _ in range(5)}
    assert sorted(order) == [b"0", b"1"]
    assert len(used) == 1


async def test_requests_beyond_the_limit_wait_in_line(make: Make, gate: Gate) -> None:
    """First come, first served, over the one connection that the cluster may have."""
    limits = Limits(max_connections=1)
    pool = make(limits=limits)
    done: list[int] = []

    async def numbered(number: int) -> None:
        await body(await pool.send(GET))
        done.append(number)

    first = await start(pool, gate)
    tasks = []
    for number in range(5):
        tasks.append(asyncio.create_task(numbered(number)))
        await asyncio.sleep(0)
    assert (limits.pending, limits.connections) == (5, 1)
    gate.let(6)
    await asyncio.gather(first, *tasks)
    assert done == [0, 1, 2, 3, 4]
    assert (limits.pending, limits.connection_overflows, gate.peer.accepted) == (0, 5, 1)


async def test_requests_beyond_the_pending_limit_overflow(make: Make, gate: Gate) -> None:
    limits = Limits(max_connections=1, max_pending_requests=1)
    pool = make(limits=limits)
    first = await start(pool, gate)
    second = asyncio.create_task(pool.send(GET))
    await asyncio.sleep(0)
    with pytest.raises(LimitReached) as caught:
        await pool.send(GET)
    assert (caught.value.reset, caught.value.sent) == (Reset.OVERFLOW, False)
    gate.let(2)
    await asyncio.gather(first, second)
    assert (limits.pending, limits.pending_overflows) == (0, 1)


async def test_no_pending_allowed_means_no_connection_is_ever_opened(make: Make) -> None:
    """Envoy counts a request that has to wait for its own connection as pending."""
    with pytest.raises(LimitReached):
        await make(limits=Limits(max_pending_requests=0)).send(GET)


async def test_an_endpoint_without_a_connection_gets_one_beyond_the_limit(make: Make, gate: Gate) -> None:
    limits = Limits(max_connections=1)
    first, second = make(limits=limits), make(limits=limits)
    tasks = [await start(first, gate), await start(second, gate)]
    assert limits.connections == 2
    gate.let(2)
    await asyncio.gather(*tasks)


async def test_waiting_ends_with_the_pool_timeout(make: Make, gate: Gate) -> None:
    limits = Limits(max_connections=1)
    pool = make(limits=limits)
    first = await start(pool, gate)
    with pytest.raises(PoolTimedOut) as caught:
        await pool.send(GET, timeouts=Timeouts(pool=0.05))
    assert (caught.value.reset, caught.value.which, caught.value.sent) == (Reset.POOL_TIMEOUT, "pool", False)
    with pytest.raises(TimedOut) as late:
        await pool.send(GET, deadline=time.monotonic() + 0.05, deadline_name="route")
    assert (late.value.which, late.value.sent) == ("route", False)
    gate.let(2)
    await first
    assert (await pool.send(GET)).status == 200
    assert limits.pending == 0


async def test_a_cancelled_request_closes_its_connection(make: Make, gate: Gate) -> None:
    """Its answer would come to whoever is next; and the place in the limit is free again."""
    limits = Limits(max_connections=1)
    pool = make(limits=limits)
    first = await start(pool, gate)
    waiting = asyncio.create_task(pool.send(GET))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.let(2)
    assert await body(await waiting) == b"1"
    assert (limits.connections, limits.pending) == (1, 0)


async def test_a_cancelled_wait_leaves_the_line(make: Make, gate: Gate) -> None:
    pool = make(limits=Limits(max_connections=1))
    first = await start(pool, gate)
    waiting = [asyncio.create_task(pool.send(GET)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[1].cancel()
    gate.let(2)
    await first
    assert (await waiting[2]).status == 200
    assert "waiting=0" in repr(pool)
    assert pool.settings.limits.pending == 0


@pytest.mark.parametrize("steps", range(8))
async def test_cancelling_at_any_step_leaks_nothing(make: Make, gate: Gate, steps: int) -> None:
    """Connecting, waiting, being served: whenever the caller goes, counters return and the next request works."""
    limits = Limits(max_connections=2)
    pool = make(limits=limits)
    gate.let(1000)
    tasks = [asyncio.create_task(pool.send(GET)) for _ in range(4)]
    for _ in range(steps):
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (await pool.send(GET)).status == 200
    assert limits.pending == 0
    assert limits.connections <= 2
    assert "busy=0 opening=0 waiting=0" in repr(pool)


async def test_a_failed_connect_fails_all_that_wait_for_the_endpoint(make: Make) -> None:
    limits = Limits(max_connections=1)
    pool = make(limits=limits, port=free_port())
    results = await asyncio.gather(*(pool.send(GET) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [CannotConnect] * 3
    assert (limits.connections, limits.pending) == (0, 0)


async def test_max_requests_per_connection(make: Make, gate: Gate) -> None:
    gate.let(5)
    pool = make(max_requests_per_connection=2)
    assert [await body(await pool.send(GET)) for _ in range(5)] == [b"0", b"0", b"1", b"1", b"2"]


@pytest.mark.parametrize("setting", ["idle_timeout", "max_connection_duration"])
async def test_idle_connections_are_closed_in_time(make: Make, gate: Gate, setting: str) -> None:
    gate.let(3)
    pool = make(**{setting: 0.2})
    assert await body(await pool.send(GET)) == b"0"
    await until(lambda: "idle=0" in repr(pool))
    assert pool.settings.limits.connections == 0
    assert await body(await pool.send(GET)) == b"1"


async def test_a_busy_connection_outlives_its_duration_by_one_request(make: Make, gate: Gate) -> None:
    pool = make(max_connection_duration=0.05)
    task = await start(pool, gate)
    await asyncio.sleep(0.1)
    gate.let()
    assert await body(await task) == b"0"
    assert pool.settings.limits.connections == 0


async def test_drain(make: Make, gate: Gate) -> None:
    """Idle connections close at once, busy ones after their request; nobody is refused."""
    pool = make()
    gate.let()
    await pool.send(GET)
    first, second = await start(pool, gate), await start(pool, gate)
    gate.let()
    await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
    pool.drain()
    assert "idle=0 busy=1" in repr(pool)
    gate.let()
    await asyncio.gather(first, second)
    assert pool.settings.limits.connections == 0
    gate.let()
    assert (await pool.send(GET)).status == 200
    assert pool.settings.limits.connections == 0


async def test_close_and_abort(make: Make, gate: Gate) -> None:
    pool = make(limits=Limits(max_connections=1))
    busy = await start(pool, gate)
    waiting = asyncio.create_task(pool.send(GET))
    await asyncio.sleep(0)
    pool.close()
    for refused in (waiting, pool.send(GET)):
        with pytest.raises(RequestFailed) as caught:
            await refused
        assert caught.value.sent is False
    pool.abort()
    with pytest.raises(RequestFailed) as caught:
        await busy
    assert caught.value.sent is True
    assert (pool.settings.limits.connections, pool.settings.limits.pending) == (0, 0)


# --- bodies


def flood(connected: socket.socket, _number: int) -> None:
    read_head(connected)
    connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 20000000\r\n\r\n" + b"x" * 20_000_000)


async def test_a_slow_reader_makes_the_peer_wait(make: Make) -> None:
    """Not more than the high-water mark and one read is kept in memory, and every byte arrives."""
    with ScriptedPeer(flood) as peer:
        pool = make(port=peer.port)
        response = await pool.send(GET)
        await asyncio.sleep(0.2)
        largest = total = 0
        async for piece in response:
            largest = max(largest, len(piece))
            total += len(piece)
            await asyncio.sleep(0)
    assert total == 20_000_000
    assert HIGH_WATER < largest <= HIGH_WATER + 300_000


@pytest.mark.parametrize("how", ["aclose", "cancel"])
async def test_giving_up_a_body_closes_the_connection(make: Make, how: str) -> None:
    closes: list[str] = []

    def script(connected: socket.socket, _number: int) -> None:
        read_head(connected)
        connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        connected.recv(1)

    with ScriptedPeer(script) as peer:
        pool = make(port=peer.port)
        response = await pool.send(GET)
        response.on_close = lambda: closes.append(how)
        assert (response.body, closes) == (None, [])
        if how == "aclose":
            await response.aclose()
            await response.aclose()
        else:
            reader = asyncio.create_task(response.read())
            await asyncio.sleep(0.01)
            reader.cancel()
            await asyncio.wait([reader])
        assert (closes, pool.settings.limits.connections) == ([how], 0)
        with pytest.raises(RequestFailed):
            await response.read()


async def test_on_close_of_a_response_that_is_here_already(make: Make, gate: Gate) -> None:
    closes: list[int] = []
    gate.let()
    response = await make().send(GET)
    response.on_close = lambda: closes.append(1)
    await response.aclose()
    assert closes == [1]


async def test_body_and_read_agree_however_often(make: Make, gate: Gate) -> None:
    gate.let()
    response = await make().send(GET)
    assert (response.body, await response.read(), await response.read()) == (b"0", b"0", b"0")
    assert [piece async for piece in response] == [b"0"]


# --- the clock and the loops


async def test_a_blocked_loop_is_no_timeout(make: Make, gate: Gate) -> None:
    """F32: the answer is in the socket when the loop wakes up late; it counts, although the time is over.

    The block is inside an I/O callback: uvloop runs timers next, before it looks at sockets again.
    """
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    pool = make()
    task = asyncio.create_task(pool.send(GET, timeouts=Timeouts(30, 5, 30), deadline=time.monotonic() + 5))
    await until(lambda: gate.requests > 0)

    def block() -> None:
        loop.remove_reader(ours)
        gate.let()
        time.sleep(5.2)

    loop.add_reader(ours, block)
    theirs.send(b"x")
    assert await body(await task) == b"0"
    ours.close()
    theirs.close()


async def test_timeouts_of_earlier_requests_do_not_strike_later_ones(make: Make, gate: Gate) -> None:
    """The timer of a connection is left running; it must find out that its exchange is over."""
    pool = make()
    gate.let()
    await pool.send(GET, timeouts=Timeouts(read=0.1), deadline=time.monotonic() + 0.1)
    task = await start(pool, gate)
    await asyncio.sleep(0.25)
    gate.let()
    assert await body(await task) == b"0"


async def test_a_sooner_timeout_is_armed_over_a_later_one(make: Make, gate: Gate) -> None:
    pool = make()
    gate.let()
    await pool.send(GET, timeouts=Timeouts(read=30))
    with pytest.raises(TimedOut):
        await pool.send(GET, timeouts=Timeouts(read=0.05))


def test_loops_in_several_threads_share_limits(gate: Gate) -> None:
    """Each loop has its own pools; the cluster's counters are exact in the end."""
    limits = Limits()
    gate.let(1000)
    failures: list[BaseException] = []

    async def load() -> None:
        pool = AsyncPool(Endpoint("127.0.0.1", gate.peer.port), PoolSettings(limits))
        await asyncio.gather(*(pool.send(GET) for _ in range(40)))
        pool.abort()
        await asyncio.sleep(0.01)

    def thread() -> None:
        try:
            asyncio.run(load())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=thread) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failures == []
    assert (limits.connections, limits.pending) == (0, 0)


async def test_errors_are_wire_errors_with_an_outcome(make: Make) -> None:
    """What a flow gets from any failure."""
    with pytest.raises(WireError) as caught:
        await make(port=free_port()).send(GET)
    outcome = caught.value.outcome(at=7.0)
    assert (outcome.reset, outcome.sent, outcome.at, outcome.error) == (Reset.CONNECT_FAILURE, False, 7.0, caught.value)
