"""The HTTP/1.1 engine alone, without any mesh: `python -m benchmarks.engine [--json FILE] [--rounds N]`.

Against aiohttp and httpx, and against the practical limit: an asyncio.Protocol that parses with httptools, pools by a list and
does nothing else that a client has to do (no timeouts, no checks, no errors).  One uvicorn, 1 KiB bodies, keep-alive, uvloop;
CPU is the client's alone.  Blocking: against httpx.Client and the standard library's http.client, on one thread and on eight.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import aiohttp
import httptools
import httpx
import uvloop

from benchmarks.harness import AsyncCall, Figures, Ratio, blocking_round, report, round_of, table, uvicorn
from meshlib.model.endpoint import Endpoint
from meshlib.runtime.http.aio import AsyncPool
from meshlib.runtime.http.blocking import BlockingPool
from meshlib.runtime.http.limits import Limits
from meshlib.runtime.http.settings import PoolSettings, Timeouts
from meshlib.wire.request import encode_head

REQUESTS = {1: 2000, 32: 6400}
TIMEOUTS = Timeouts(5, 5, 5, pool=5)  # what httpx has as installed
HEADERS = [(b"accept", b"*/*"), (b"accept-encoding", b"gzip, deflate"), (b"user-agent", b"engine")]


class Limit(asyncio.Protocol):
    """Nothing that could be left out."""

    transport: asyncio.Transport
    waiter: asyncio.Future[int]

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.headers: list[tuple[bytes, bytes]] = []
        self.body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_message_complete(self) -> None:
        self.waiter.set_result(self.parser.get_status_code())


def practical_limit(port: int) -> AsyncCall:
    idle: list[Limit] = []
    loop = asyncio.get_running_loop()
    request = b"GET /x HTTP/1.1\r\nhost: reviews\r\naccept: */*\r\naccept-encoding: gzip, deflate\r\nuser-agent: engine\r\n\r\n"

    async def call() -> bytes:
        while idle and idle[-1].transport.is_closing():
            idle.pop()  # uvicorn closes after five idle seconds, while other peers have their turn
        connection = idle.pop() if idle else (await loop.create_connection(Limit, "127.0.0.1", port))[1]
        connection.headers, connection.body = [], []
        connection.waiter = loop.create_future()
        connection.transport.write(request)
        await connection.waiter
        idle.append(connection)
        return b"".join(connection.body)

    return call


async def asynchronous(port: int, rounds: int) -> dict[tuple[str, int], Figures]:
    figures: dict[tuple[str, int], Figures] = {}
    url = f"http://127.0.0.1:{port}/x"
    pool = AsyncPool(Endpoint("127.0.0.1", port), PoolSettings(Limits()))
    async with httpx.AsyncClient() as bare, aiohttp.ClientSession() as session:

        async def engine() -> bytes:
            head = encode_head("GET", "/x", HEADERS, authority="reviews")
            response = await pool.send(head, timeouts=TIMEOUTS, whole=True)
            return await response.read()

        async def with_aiohttp() -> bytes:
            async with session.get(url) as response:
                return await response.read()

        peers: dict[str, AsyncCall] = {
            "practical limit": practical_limit(port),
            "engine": engine,
            "aiohttp": with_aiohttp,
            "httpx": lambda: bare.get(url),
        }
        for concurrency, requests in REQUESTS.items():
            for peer in peers.values():
                await round_of(peer, 64, concurrency, [], Figures())
            for _ in range(rounds):
                for name, peer in peers.items():
                    count = requests // 8 if name == "httpx" else requests
                    await round_of(peer, count, concurrency, [], figures.setdefault((name, concurrency), Figures()))
    pool.abort()
    return figures


def blocking(port: int, rounds: int) -> dict[tuple[str, int], Figures]:
    figures: dict[tuple[str, int], Figures] = {}
    url = f"http://127.0.0.1:{port}/x"
    pool = BlockingPool(Endpoint("127.0.0.1", port), PoolSettings(Limits()))
    local = threading.local()

    def engine() -> bytes:
        head = encode_head("GET", "/x", HEADERS, authority="reviews")
        return pool.send(head, timeouts=TIMEOUTS).read()

    def standard() -> bytes:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        local.connection.request("GET", "/x", headers={"user-agent": "engine", "accept": "*/*"})
        body: bytes = local.connection.getresponse().read()
        return body

    with httpx.Client() as bare:
        peers: dict[str, Callable[[], object]] = {
            "blocking engine": engine,
            "http.client": standard,
            "blocking httpx": lambda: bare.get(url),
        }
        for threads in (1, 8):
            for _ in range(rounds):
                for name, peer in peers.items():
                    blocking_round(peer, 1600, threads, [], figures.setdefault((name, threads), Figures()))
    pool.close()
    return figures


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("--rounds", type=int, default=7)
    options = arguments.parse_args()
    with uvicorn() as (port, _pid):
        figures = uvloop.run(asynchronous(port, options.rounds))
        figures |= blocking(port, options.rounds)
    print("\nengine: medians over the rounds; CPU of the client alone")
    details = table({f"{name}, {count}": each for (name, count), each in figures.items()})

    def faster(name: str, other: str, count: int) -> float:
        return figures[name, count].median("rate") / figures[other, count].median("rate")

    ratios = [
        Ratio(f"{name} against {other}, {count} {unit}: throughput", faster(name, other, count), goal)
        for name, other, count, unit, goal in (
            ("engine", "aiohttp", 1, "in flight", 1.3),
            ("engine", "aiohttp", 32, "in flight", 1.3),
            ("engine", "httpx", 1, "in flight", 5.0),
            ("engine", "httpx", 32, "in flight", 5.0),
            ("engine", "practical limit", 1, "in flight", 0.75),
            ("engine", "practical limit", 32, "in flight", 0.75),
            ("blocking engine", "blocking httpx", 1, "thread", 1.3),
            ("blocking engine", "blocking httpx", 8, "threads", 1.3),
        )
    ]
    report("engine", ratios, details, options.json)


if __name__ == "__main__":
    main()
