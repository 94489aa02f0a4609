"""A TCP proxy in front of a server, on the test's own event loop, whose responses suffer on their way.

::

    async with FaultProxy(origin.port) as proxy:
        proxy.add(latency(0.05, jitter=0.01))
        proxy.add(reset_peer(), toxicity=0.5)       # half of the connections, drawn from a seeded generator
        proxy.heal()                                # connections made from now on are well again

Faults work on the way back: the server has executed the request whatever the client hears of it.  That is the hard case for
whoever wants to repeat it.  (The names are those of Shopify's toxiproxy.)
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from random import Random

_RST = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 seconds: close() sends RST


class Link:
    """One connection through the proxy, as its faults see it."""

    def __init__(self, client: asyncio.StreamWriter, rng: Random) -> None:
        self.rng = rng
        self.frozen = False  # nothing is read any more, from either side
        self._client = client

    async def reset(self) -> None:
        """RST towards the client, once it has had time to see what was sent before."""
        await asyncio.sleep(0.02)
        self._client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        self._client.transport.abort()

    async def hang(self) -> None:
        """Until the proxy is closed."""
        await asyncio.get_running_loop().create_future()


Toxic = Callable[[AsyncIterator[bytes], Link], AsyncIterator[bytes]]
"""Makes of the bytes that the server sends those that the client gets.  When it ends, so does the connection."""


def latency(seconds: float, *, jitter: float = 0.0) -> Toxic:
    async def toxic(stream: AsyncIterator[bytes], link: Link) -> AsyncIterator[bytes]:
        async for data in stream:
            await asyncio.sleep(seconds + jitter * link.rng.random())
            yield data

    return toxic


def reset_peer(after: int = 0) -> Toxic:
    """RST once the server has answered, in the place of all but the first `after` bytes of what it says."""

    async def toxic(stream: AsyncIterator[bytes], link: Link) -> AsyncIterator[bytes]:
        left = after
        async for data in stream:
            if len(data) > left:
                if left:
                    yield data[:left]
                await link.reset()
                return
            left -= len(data)
            yield data

    return toxic


def limit_data(after: int) -> Toxic:
    """An orderly end of the connection after `after` bytes."""

    async def toxic(stream: AsyncIterator[bytes], link: Link) -> AsyncIterator[bytes]:
        left = after
        async for data in stream:
            yield data[:left]
            left -= len(data)
            if left <= 0:
                return

    return toxic


def half_open() -> Toxic:
    """Once the server has answered: silence both ways, with the sockets still there."""

    async def toxic(stream: AsyncIterator[bytes], link: Link) -> AsyncIterator[bytes]:
        async for _ in stream:
            link.frozen = True
            await link.hang()
            yield b""

    return toxic


def stall_after_headers(seconds: float | None = None) -> Toxic:
    """The head of the response, and the body `seconds` later; None: never."""

    async def toxic(stream: AsyncIterator[bytes], link: Link) -> AsyncIterator[bytes]:
        held = b""
        async for data in stream:
            held += data
            head, separator, rest = held.partition(b"\r\n\r\n")
            if not separator:
                continue
            yield head + separator
            await (link.hang() if seconds is None else asyncio.sleep(seconds))
            yield rest
            held = b""

    return toxic


def slicer(size: int = 1, *, pause: float = 0.0) -> Toxic:
    """Pieces of `size` bytes, each on its own."""

    async def toxic(stream: AsyncIterator[bytes], link: Link) -> AsyncIterator[bytes]:
        async for data in stream:
            for start in range(0, len(data), size):
                yield data[start : start + size]
                await asyncio.sleep(pause)

    return toxic


class FaultProxy:
    """Forwards to `port` of this machine.  Equal seeds draw equal victims."""

    def __init__(self, port: int, *, seed: int = 1) -> None:
        self.accepted = 0
        self._upstream = port
        self._rng = Random(seed)
        self._toxics: list[tuple[Toxic, float]] = []
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._frozen = False
        self.swallowed = 0  # pieces of requests that a frozen connection was given

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def freeze(self) -> None:
        """The machine behind is gone without a word: connections, old and new, take everything and say nothing."""
        self._frozen = True

    def add(self, toxic: Toxic, *, toxicity: float = 1.0) -> None:
        """For this share of the connections that are made from now on."""
        self._toxics.append((toxic, toxicity))

    def heal(self) -> None:
        self._toxics.clear()

    async def __aenter__(self) -> FaultProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        with suppress(OSError, asyncio.CancelledError):
            await self._forward(reader, writer)
        self._links.discard(task)
        writer.close()

    async def _forward(self, client: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(writer, self._rng)
        server, server_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        upward = asyncio.create_task(self._upward(client, server_writer, link))
        try:
            stream = _received(server)
            for toxic, toxicity in self._toxics:
                if self._rng.random() < toxicity:
                    stream = toxic(stream, link)
            async for data in stream:
                writer.write(data)
                await writer.drain()
        finally:
            upward.cancel()
            await asyncio.gather(upward, return_exceptions=True)
            server_writer.close()

    async def _upward(self, client: asyncio.StreamReader, server: asyncio.StreamWriter, link: Link) -> None:
        with suppress(OSError):
            while data := await client.read(65536):
                if self._frozen:
                    self.swallowed += 1
                    continue
                if link.frozen:
                    return
                server.write(data)
                await server.drain()
        if not link.frozen and not self._frozen:
            server.close()


async def _received(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while data := await reader.read(65536):
        yield data
