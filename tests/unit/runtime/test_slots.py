"""What a call holds (its endpoint's slot, its connection) is given back, however the call ends."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from meshlib import Mesh, errors
from meshlib.flow.upstream import Upstream
from meshlib.lowlevel import Request
from meshlib.model.cluster import CircuitBreakers
from meshlib.model.route import RetryPolicy
from meshlib.model.snapshot import Target
from meshlib.runtime.pools import Pools
from meshlib.testing import DEFAULT_RETRY, StaticControl, service, snapshot, static_mesh
from tests.support.backends import Backend, running
from tests.support.meshcalls import on_a_loop
from tests.support.polling import eventually
from tests.support.servers import ScriptedPeer, read_head, until_closed

DEADLINE = 30.0
SLOW_RETRIES = replace(DEFAULT_RETRY, retry_on=frozenset({"5xx"}), base_interval=60.0, max_interval=60.0)
QUICK_RETRIES = replace(SLOW_RETRIES, base_interval=0.0, max_interval=0.0)


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def get(target: str = "/") -> Request:
    return Request("GET", "http", "reviews:80", target, [])


def upstream(mesh: Mesh) -> Upstream:
    (only,) = mesh._running().client.destinations.upstreams.values()
    return only


def connections(mesh: Mesh) -> int:
    pools = mesh._running().client._pools
    assert isinstance(pools, Pools)
    return sum(limits.connections for limits in pools._limits.values())


def is_idle(mesh: Mesh) -> bool:
    found = upstream(mesh)
    return found.active == 0 and found.active_retries == 0 and all(host.active == 0 for host in found.hosts.values())


def reviews(*ports: int, retry: RetryPolicy | None = None, breakers: CircuitBreakers | None = None) -> Target:
    return service("reviews", [f"127.0.0.1:{port}" for port in ports], retry=retry, breakers=breakers)


def silent(connected: socket.socket, _number: int) -> None:
    read_head(connected)
    until_closed(connected)


def half_a_body(connected: socket.socket, _number: int) -> None:
    read_head(connected)
    connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
    until_closed(connected)


def unavailable(connected: socket.socket, _number: int) -> None:
    """A refusal whose body never ends."""
    read_head(connected)
    connected.sendall(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9\r\n\r\nhalf")
    until_closed(connected)


@pytest.mark.parametrize("script", [silent, unavailable], ids=["waiting for the head", "waiting to retry"])
def test_a_cancelled_call_gives_everything_back(script: Callable[[socket.socket, int], None]) -> None:
    with ScriptedPeer(script) as peer, static_mesh(reviews(peer.port, retry=SLOW_RETRIES)) as mesh:

        async def run() -> None:
            task = asyncio.create_task(mesh.aexchange(get()))
            waiting = upstream(mesh)
            await eventually(lambda: waiting.active_retries if script is unavailable else peer.accepted)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert is_idle(mesh)
            assert connections(mesh) == 0

        asyncio.run(run())


def test_a_call_that_ends_between_two_tries_closes_the_response_before() -> None:
    """The endpoints vanish while it waits; what the first try brought must not stay open."""
    retry = replace(QUICK_RETRIES, base_interval=1.0, max_interval=1.0)
    with ScriptedPeer(unavailable) as peer:
        control = StaticControl(snapshot(reviews(peer.port, retry=retry)))
        with Mesh(control=control) as mesh, ThreadPoolExecutor(1) as pool:
            found = upstream(mesh)
            for call in (lambda: mesh.exchange(get()), lambda: asyncio.run(mesh.aexchange(get()))):
                control.publish(snapshot(reviews(peer.port, retry=retry)))
                pending = pool.submit(call)
                until(lambda: found.active_retries, "it waits to retry")
                control.publish(snapshot(reviews(retry=retry)))
                with pytest.raises(errors.NoHealthyUpstream):
                    pending.result(DEADLINE)
                assert is_idle(mesh)
                assert connections(mesh) == 0


def test_the_slot_is_held_until_the_body_was_read_or_given_up() -> None:
    with ScriptedPeer(half_a_body) as peer, static_mesh(reviews(peer.port)) as mesh:
        exchange = mesh.exchange(get())
        assert exchange is not None
        assert upstream(mesh).active == 1
        exchange.close()
        exchange.close()  # idempotent
        assert is_idle(mesh)
        assert connections(mesh) == 0

        async def run() -> None:
            found = await mesh.aexchange(get())
            assert found is not None
            assert upstream(mesh).active == 1
            await found.aclose()
            await found.aclose()
            assert is_idle(mesh)

        on_a_loop(mesh, run)
        assert connections(mesh) == 0


def test_a_cancelled_reader_gives_everything_back() -> None:
    with ScriptedPeer(half_a_body) as peer, static_mesh(reviews(peer.port)) as mesh:

        async def run() -> None:
            found = await mesh.aexchange(get())
            assert found is not None
            task = asyncio.create_task(found.read())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert is_idle(mesh)
            assert connections(mesh) == 0

        asyncio.run(run())


def test_one_call_too_many_is_refused_at_once_and_not_counted() -> None:
    with ScriptedPeer(half_a_body) as peer, static_mesh(reviews(peer.port, breakers=CircuitBreakers(max_requests=1))) as mesh:
        first = mesh.exchange(get())
        assert first is not None
        with pytest.raises(errors.Overflow, match="http2MaxRequests") as caught:
            mesh.exchange(get())
        assert caught.value.attempts == 0
        first.close()
        second = mesh.exchange(get())
        assert second is not None
        second.close()
        assert is_idle(mesh)


# --- pools


def test_connections_to_an_endpoint_that_left_are_closed() -> None:
    """Idle ones at once, a busy one after its request; on a loop and off it."""
    with running(["a", "b"]) as backends:
        control = StaticControl(snapshot(reviews(backends["a"].port)))
        with Mesh(control=control) as mesh:
            assert mesh.request("GET", "http://reviews/").text == "a"

            async def run() -> None:
                assert (await mesh.arequest("GET", "http://reviews/")).text == "a"
                assert connections(mesh) == 2
                await asyncio.to_thread(control.publish, snapshot(reviews(backends["b"].port)))
                await eventually(lambda: connections(mesh) == 0)
                assert (await mesh.arequest("GET", "http://reviews/")).text == "b"
                await mesh.aclose_loop()

            asyncio.run(run())
            assert mesh.request("GET", "http://reviews/").text == "b"
            assert connections(mesh) == 1
        assert connections_after_close(mesh) == 0


def connections_after_close(mesh: Mesh) -> int:
    return 0 if mesh._processes.current is None else connections(mesh)


def test_a_response_under_way_survives_its_endpoints_leaving() -> None:
    release = threading.Event()

    def script(connected: socket.socket, _number: int) -> None:
        read_head(connected)
        connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf")
        release.wait(DEADLINE)
        connected.sendall(b"half")
        until_closed(connected)

    with ScriptedPeer(script) as peer:
        control = StaticControl(snapshot(reviews(peer.port)))
        with Mesh(control=control) as mesh:
            exchange = mesh.exchange(get())
            assert exchange is not None
            control.publish(snapshot(reviews()))
            release.set()
            assert exchange.read() == b"halfhalf"
            assert connections(mesh) == 0  # not kept for an endpoint that is gone


def test_a_call_that_was_balanced_before_its_endpoint_left_leaves_no_connection_behind() -> None:
    """Its pool is made after the others were drained."""
    with running(["a"]) as backends:
        control = StaticControl(snapshot(reviews(backends["a"].port)))
        with Mesh(control=control) as mesh:
            client = mesh._running().client
            (host,) = upstream(mesh).hosts.values()
            control.publish(snapshot(reviews()))
            pool = client._pools.blocking(host, upstream(mesh).cluster)
            pool.send(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n").read()
            assert connections(mesh) == 0


def test_several_loops_in_several_threads_and_threads_without_a_loop() -> None:
    """Each loop has connections of its own, all threads without one share theirs, and all count as one process."""
    calls = 20

    async def on_loop(mesh: Mesh) -> int:
        responses = await asyncio.gather(*(mesh.arequest("GET", "http://reviews/") for _ in range(calls)))
        await mesh.aclose_loop()
        return sum(response.status_code == 200 for response in responses)

    def blocking(mesh: Mesh) -> int:
        return sum(mesh.request("GET", "http://reviews/").status_code == 200 for _ in range(calls))

    with running(["a", "b"]) as backends, static_mesh(reviews(*(server.port for server in backends.values()))) as mesh:
        with ThreadPoolExecutor(6) as pool:
            pending = [pool.submit(lambda: asyncio.run(on_loop(mesh))) for _ in range(3)]
            pending += [pool.submit(blocking, mesh) for _ in range(3)]
            assert [each.result(DEADLINE) for each in pending] == [calls] * 6
        assert sum(len(server.requests) for server in backends.values()) == 6 * calls
        assert is_idle(mesh)


def test_pools_of_loops_that_ended_are_forgotten() -> None:
    """An application that makes a loop for each call must not grow."""
    with running(["a"]) as backends, static_mesh(reviews(backends["a"].port)) as mesh:
        for _ in range(5):
            asyncio.run(closing(mesh, backends["a"]))
            gc.collect()
        (host,) = upstream(mesh).hosts.values()
        assert len(host.shells) <= 1


async def closing(mesh: Mesh, backend: Backend) -> None:
    """A server that closes, so that no connection is left to a loop that ends without letting go."""
    response = await mesh.arequest("GET", "http://reviews/", headers={"connection": "close"})
    assert response.text == backend.name


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # since Python 3.12; it is what servers do
def test_a_forked_child_makes_its_own_calls() -> None:
    with running(["a"]) as backends, static_mesh(reviews(backends["a"].port)) as mesh:
        assert mesh.request("GET", "http://reviews/parent").text == "a"
        with mesh._running().client._lock:  # held by a thread that the child does not have
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    mine = mesh.request("GET", "http://reviews/child").text, asyncio.run(in_child(mesh))
                except BaseException as error:
                    mine = repr(error), ""
                with os.fdopen(writing, "wb") as pipe:
                    pickle.dump(mine, pipe)
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            assert pickle.load(pipe) == ("a", "a")
        os.waitpid(pid, 0)
        assert mesh.request("GET", "http://reviews/parent").text == "a"  # on the connection that it had before
        assert [path for _, path, _ in backends["a"].requests].count("/child") == 2


async def in_child(mesh: Mesh) -> str:
    response = await mesh.arequest("GET", "http://reviews/child")
    await mesh.aclose_loop()
    return response.text
