"""Waiting in line for a connection, and leaving the line in the very moment that one is given."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable

import pytest

from meshlib.model.endpoint import Endpoint
from meshlib.runtime.http.aio import AsyncPool
from meshlib.runtime.http.aio_response import AsyncResponse
from meshlib.runtime.http.limits import Limits
from meshlib.runtime.http.settings import PoolSettings
from tests.support.polling import eventually
from tests.support.servers import ScriptedPeer, read_head

HEAD = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n"


class Gate:
    """A script that sends heads at once, and bodies once it is opened."""

    def __init__(self) -> None:
        self._opened = threading.Event()

    def open(self) -> None:
        self._opened.set()

    def __call__(self, connected: socket.socket, _number: int) -> None:
        while read_head(connected):
            connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
            self._opened.wait(30)
            connected.sendall(b"ok")


def pool_of_one(port: int) -> tuple[AsyncPool, Limits]:
    limits = Limits(max_connections=1)
    return AsyncPool(Endpoint("127.0.0.1", port), PoolSettings(limits)), limits


async def waiting(pool: AsyncPool, count: int) -> list[asyncio.Task[AsyncResponse]]:
    tasks = [asyncio.create_task(pool.send(HEAD)) for _ in range(count)]
    await eventually(lambda: len(pool._waiting) == count)
    return tasks


async def is_served(task: asyncio.Task[AsyncResponse]) -> bool:
    response = await asyncio.wait_for(task, 30)
    return await response.read() == b"ok"


async def left_nothing(pool: AsyncPool, limits: Limits) -> None:
    pool.close()
    await asyncio.sleep(0)
    assert (limits.connections, limits.pending, pool._opening) == (0, 0, 0)


async def test_the_right_to_open_goes_to_the_next_in_line() -> None:
    gate = Gate()
    with ScriptedPeer(gate) as peer:
        pool, limits = pool_of_one(peer.port)
        first = await pool.send(HEAD)
        one, two = await waiting(pool, 2)
        first.abandon()  # the connection ends: `one` may open another, and is cancelled before it knows
        one.cancel()
        gate.open()
        assert await is_served(two)
        with pytest.raises(asyncio.CancelledError):
            await one
        await left_nothing(pool, limits)


def when_given(response: AsyncResponse, *callbacks: Callable[[], object]) -> None:
    """Call these when the connection of `response` was given to the first in line, who does not know yet."""
    loop = asyncio.get_running_loop()

    def complete() -> None:
        for callback in callbacks:
            loop.call_soon(callback)

    response.on_close = complete


@pytest.mark.parametrize("ends", [False, True], ids=["alive", "ended meanwhile"])
async def test_a_connection_goes_to_the_next_in_line(*, ends: bool) -> None:
    gate = Gate()
    with ScriptedPeer(gate) as peer:
        pool, limits = pool_of_one(peer.port)
        first = await pool.send(HEAD)
        (connection,) = pool._connections
        one, two = await waiting(pool, 2)
        when_given(first, one.cancel, *([lambda: connection.abort(None)] if ends else []))
        gate.open()
        assert await first.read() == b"ok"
        assert await is_served(two)
        with pytest.raises(asyncio.CancelledError):
            await one
        assert peer.accepted == (2 if ends else 1)
        await left_nothing(pool, limits)


async def test_whoever_was_given_a_connection_that_ended_meanwhile_gets_another() -> None:
    gate = Gate()
    with ScriptedPeer(gate) as peer:
        pool, limits = pool_of_one(peer.port)
        first = await pool.send(HEAD)
        (connection,) = pool._connections
        (one,) = await waiting(pool, 1)
        when_given(first, lambda: connection.abort(None))
        gate.open()
        assert await first.read() == b"ok"
        assert await is_served(one)
        assert peer.accepted == 2
        await left_nothing(pool, limits)
