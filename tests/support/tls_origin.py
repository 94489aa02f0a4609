"""A tiny HTTP/1.1 server behind the mesh's mTLS, in a thread of its own; it says who asked."""

from __future__ import annotations

import asyncio
import ssl
import threading
from types import TracebackType

from meshlib.model.identity import Peer
from meshlib.runtime.tls.objects import peer_of


class Origin:
    """Answers every request with the SPIFFE ID of the client, or "nobody".  `context` None: plaintext."""

    def __init__(self, context: ssl.SSLContext | None, *, delay: float = 0.0) -> None:
        self.peers: list[Peer | None] = []  # of each connection
        self.requests = 0
        self._context = context
        self._delay = delay
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Origin:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(30)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        self._connections: set[_Connection] = set()
        return await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, ssl=self._context)

    async def _stop(self) -> None:
        self._server.close()
        for _ in range(5):  # some may have been accepted a moment ago
            for connection in list(self._connections):
                connection.transport.abort()
            await asyncio.sleep(0.02)


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._origin._connections.add(self)
        peer = peer_of(transport.get_extra_info("ssl_object"))
        self._origin.peers.append(peer)
        body = str(peer or "nobody").encode()
        self._answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    def data_received(self, data: bytes) -> None:
        if not self._buffer and not data[:1].isalpha():  # a ClientHello, say
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            self.transport.close()
            return
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            _, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            self._origin.requests += 1
            if self._origin._delay:
                asyncio.get_running_loop().call_later(self._origin._delay, self.transport.write, self._answer)
            else:
                self.transport.write(self._answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._origin._connections.discard(self)
