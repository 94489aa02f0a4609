"""One of several endpoints is a black hole (F14) or resets what it was given (F15), under load.

Servers count attempts by themselves: what a client believes to have sent once must have been executed at most once.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import Any

import pytest

from meshlib import Mesh, errors
from meshlib.flow.record import CallRecord
from meshlib.lowlevel import Timeouts
from meshlib.model.cluster import CircuitBreakers
from meshlib.model.snapshot import Target
from meshlib.runtime.native import build_request
from meshlib.testing import service, static_mesh
from tests.support.faultproxy import FaultProxy, Toxic, half_open, limit_data, reset_peer, slicer, stall_after_headers
from tests.support.load import Load, Result, leaking_nothing
from tests.support.origins import BODY, RESPONSE, Origin

RATE = 80.0
PATIENT = Timeouts(connect=30.0, read=30.0, write=30.0, pool=30.0)
BUDGET = CircuitBreakers(min_retry_concurrency=1000)
"""The retry budget is tested elsewhere; here, a stalled machine that fires a burst must not run into it."""

Send = Callable[[str, str], Awaitable[tuple[bytes, CallRecord]]]
"""``send(method, target)``: the body and what the call went through."""


@asynccontextmanager
async def on_the_loop(mesh: Mesh) -> AsyncIterator[Send]:
    async def send(method: str, target: str) -> tuple[bytes, CallRecord]:
        exchange = await mesh.aexchange(build_request(method, f"http://shop{target}", None, b"", PATIENT, None))
        assert exchange is not None
        return b"".join([piece async for piece in exchange]), exchange.record

    yield send
    await mesh.aclose_loop()


@asynccontextmanager
async def in_threads(mesh: Mesh) -> AsyncIterator[Send]:
    def call(method: str, target: str) -> tuple[bytes, CallRecord]:
        response = mesh.request(method, f"http://shop{target}", timeout=PATIENT)
        return response.content, response.info

    with ThreadPoolExecutor(64) as pool:
        loop = asyncio.get_running_loop()
        yield lambda method, target: loop.run_in_executor(pool, call, method, target)


@pytest.fixture(params=[on_the_loop, in_threads])
def calling(request: pytest.FixtureRequest) -> Any:
    return request.param


@asynccontextmanager
async def origins(count: int) -> AsyncIterator[list[Origin]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Origin()) for _ in range(count)]


def shop(*addresses: str, **options: Any) -> Target:
    return service("shop", addresses, breakers=BUDGET, **options)


def executed(servers: list[Origin]) -> Counter[tuple[str, str]]:
    return sum((server.seen for server in servers), Counter[tuple[str, str]]())


def alternating(send: Send) -> Callable[[int], Awaitable[tuple[bytes, CallRecord]]]:
    """Every other request may be executed twice, the others must not."""
    return lambda number: send("POST" if number % 2 else "GET", f"/{number}")


def is_post(result: Result) -> bool:
    return result.number % 2 == 1


# --- F14


@pytest.fixture
def blackhole() -> Iterator[str]:
    """The accept queue is full, so the kernel drops SYNs as an unreachable machine would."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


async def test_f14_a_blackhole_costs_nobody_a_call(blackhole: str, calling: Any) -> None:
    """POST as well as GET: no connection was made, so nothing was executed.  Few calls pay the connect timeout."""
    connect_timeout = 0.4
    async with leaking_nothing(), origins(4) as servers:
        target = shop(*(server.address for server in servers), blackhole, connect_timeout=connect_timeout)
        with static_mesh(target) as mesh:
            async with calling(mesh) as send, Load(alternating(send), RATE) as load:
                await load.more(250)
    assert load.errors == []
    assert {result.answer[0] for result in load.results} == {BODY}
    seen = executed(servers)
    assert len(seen) == load.sent
    assert set(seen.values()) == {1}
    assert max(result.seconds for result in load.results) < connect_timeout + 10.0, "the kernel's own limit is two minutes"
    slow = [result for result in load.results if result.answer[1].attempts > 1]
    assert 1 <= len(slow) < load.sent / 10
    # A probe each backoff (1 s, then longer), and those that met the hole before the first timeout told anybody.
    in_the_dark = [result for result in slow if result.number < RATE * connect_timeout * 2]
    assert len(slow) - len(in_the_dark) <= 1 + load.sent / RATE * 2


async def test_f14_where_all_are_blackholes_the_error_says_so(blackhole: str, calling: Any) -> None:
    """After the policy's tries, each as long as the connect timeout: none hangs for longer."""
    async with leaking_nothing():
        with static_mesh(shop(blackhole, connect_timeout=0.1)) as mesh:
            async with calling(mesh) as send:
                with pytest.raises(errors.ConnectTimeout) as caught:
                    await send("POST", "/")
    assert caught.value.flags == ("UF", "URX")
    assert caught.value.attempts == 3


# --- F15


async def test_f15_reset_before_the_first_byte(calling: Any) -> None:
    """The server has executed it, and its answer is lost: only what may be executed twice is sent again."""
    async with leaking_nothing(), origins(4) as servers, FaultProxy(servers[0].port) as proxy:
        proxy.add(reset_peer())
        with static_mesh(shop(proxy.address, *(server.address for server in servers[1:]))) as mesh:
            async with calling(mesh) as send, Load(alternating(send), RATE) as load:
                await load.more(200)
    lost = [result for result in load.results if result.error is not None]
    assert lost
    assert all(is_post(result) for result in lost)
    assert {type(result.error) for result in lost} == {errors.ConnectionTerminated}
    seen = executed(servers)
    assert len(seen) == load.sent
    assert {count for (method, _), count in seen.items() if method == "POST"} == {1}
    again = [target for (method, target), count in seen.items() if method == "GET" and count > 1]
    assert again, "the fault was not met"
    told = {f"/{result.number}" for result in load.results if result.error is None and result.answer[1].attempts > 1}
    assert set(again) <= told


FAULTS: dict[str, Callable[[], Toxic]] = {
    "reset after the head": lambda: reset_peer(60),
    "reset in the body": lambda: reset_peer(700),
    "orderly end in the body": lambda: limit_data(700),
    "orderly end before the last byte": lambda: limit_data(len(RESPONSE) - 1),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_f15_a_body_cut_short_is_an_error_and_never_a_short_body(fault: str, calling: Any) -> None:
    """And after a byte of a response nothing is sent again, not even a GET."""
    async with leaking_nothing(), origins(2) as servers, FaultProxy(servers[0].port) as proxy:
        proxy.add(FAULTS[fault](), toxicity=0.5)
        with static_mesh(shop(proxy.address, servers[1].address)) as mesh:
            async with calling(mesh) as send, Load(alternating(send), RATE) as load:
                await load.more(60)
    cut = [result for result in load.results if result.error is not None]
    assert 0 < len(cut) < load.sent
    assert all(isinstance(result.error, errors.ConnectionTerminated | errors.UpstreamProtocolError) for result in cut)
    assert {result.answer[0] for result in load.results if result.error is None} == {BODY}
    assert set(executed(servers).values()) == {1}
    assert len(executed(servers)) == load.sent


async def test_f15_a_response_in_single_bytes_is_whole(calling: Any) -> None:
    """The positive control: slow is not broken."""
    async with leaking_nothing(), origins(1) as servers, FaultProxy(servers[0].port) as proxy:
        proxy.add(slicer(1))
        with static_mesh(shop(proxy.address)) as mesh:
            async with calling(mesh) as send:
                assert (await send("POST", "/"))[0] == BODY
    assert set(executed(servers).values()) == {1}


@pytest.mark.parametrize("fault", [half_open, stall_after_headers], ids=["half open", "stall after the head"])
async def test_a_connection_that_fell_silent_is_not_used_again(fault: Callable[[], Toxic]) -> None:
    """The caller's read timeout ends the call, and the connection with it; the next call has a new one."""
    async with leaking_nothing(), origins(1) as servers, FaultProxy(servers[0].port) as proxy:
        proxy.add(fault())
        with static_mesh(shop(proxy.address)) as mesh:
            with pytest.raises(errors.TimeoutExceeded) as caught:
                await mesh.arequest("POST", "http://shop/1", timeout=Timeouts(read=0.2))
            assert caught.value.which == "read"
            proxy.heal()
            assert (await mesh.arequest("POST", "http://shop/2", timeout=PATIENT)).content == BODY
            assert proxy.accepted == 2
            await mesh.aclose_loop()
    assert executed(servers) == {("POST", "/1"): 1, ("POST", "/2"): 1}
