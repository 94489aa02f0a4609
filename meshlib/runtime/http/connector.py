"""How a connection to an endpoint is opened: over TCP, or over TLS over TCP.  And until when it is good."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from random import Random
from time import monotonic
from typing import Final, NamedTuple, Protocol, TypeVar

from meshlib.model.cluster import TcpKeepalive, UpstreamTls
from meshlib.model.endpoint import Endpoint
from meshlib.runtime.http.settings import NEVER
from meshlib.runtime.tls.aio import TlsTransport
from meshlib.runtime.tls.blocking import TlsStream
from meshlib.runtime.tls.contexts import TlsContexts
from meshlib.runtime.tls.objects import Checked
from meshlib.runtime.tls.side import Side

P = TypeVar("P", bound=asyncio.Protocol)

MAX_AGE: Final = 3600.0
"""Seconds that a connection of the mesh's mTLS is used for, give or take a tenth: nobody is trusted for longer on the strength
of one handshake."""

_SPREAD: Final = 0.1


class Lifetime(NamedTuple):
    """Until when new requests may use a connection, on the monotonic clock; and the connector's `generation` that made it."""

    ends: float
    generation: int


FOR_EVER: Final = Lifetime(NEVER, 0)


class AsyncConnector(Protocol):
    """Opens a transport for `protocol_factory`'s protocol and returns the protocol, connected."""

    @property
    def generation(self) -> int:
        """Connections of an earlier one take no new requests."""
        ...

    async def open(self, endpoint: Endpoint, protocol_factory: Callable[[], P]) -> P:
        """Raises OSError; ssl.SSLError, which is one, when no trusted connection can be made."""
        ...

    def lifetime(self, transport: asyncio.Transport) -> Lifetime:
        """Of a connection that was made here."""
        ...


class Stream(Protocol):
    """What the engine uses of a blocking socket; its timeouts are the kernel's (SO_RCVTIMEO, SO_SNDTIMEO)."""

    def recv(self, size: int, flags: int = 0, /) -> bytes: ...

    def send(self, data: bytes | memoryview, flags: int = 0, /) -> int: ...

    def fileno(self) -> int: ...

    def setsockopt(self, level: int, name: int, value: int | bytes, /) -> None: ...

    def settimeout(self, seconds: float | None, /) -> None: ...

    def close(self) -> None: ...


class Connector(Protocol):
    """Opens a connected blocking socket within `timeout` seconds; raises OSError, TimeoutError and ssl.SSLError among them."""

    @property
    def generation(self) -> int:
        """Connections of an earlier one take no new requests."""
        ...

    def open(self, endpoint: Endpoint, timeout: float | None) -> Stream: ...

    def lifetime(self, connected: Stream) -> Lifetime:
        """Of a connection that was made here."""
        ...


class AsyncTcpConnector:
    """Plain TCP on the running loop; the loop switches Nagle's algorithm off."""

    generation = 0

    async def open(self, endpoint: Endpoint, protocol_factory: Callable[[], P]) -> P:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(protocol_factory, endpoint.address, endpoint.port)
        return protocol

    def lifetime(self, transport: asyncio.Transport) -> Lifetime:
        return FOR_EVER


class TcpConnector:
    """Plain TCP."""

    generation = 0

    def open(self, endpoint: Endpoint, timeout: float | None) -> Stream:
        connected = socket.create_connection((endpoint.address, endpoint.port), timeout)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def lifetime(self, connected: Stream) -> Lifetime:
        return FOR_EVER


class _Tls:
    """What both kinds of connections over TLS have in common."""

    def __init__(self, contexts: TlsContexts, tls: UpstreamTls, rng: Random) -> None:
        self._contexts = contexts
        self._side: Side = contexts.upstream(tls)
        self._mesh = tls.mesh
        self._rng = rng

    @property
    def generation(self) -> int:
        return self._contexts.generation if self._mesh else 0  # identity and trust of the mesh mean nothing outside

    def _lifetime(self, tls: object) -> Lifetime:
        """The shortest of our certificate's, the peer's, and MAX_AGE."""
        assert isinstance(tls, Checked)
        check, peer = tls.check, tls.peer
        assert check is not None
        if peer is None:
            return FOR_EVER
        age = MAX_AGE * (1.0 + _SPREAD * (2.0 * self._rng.random() - 1.0))
        left = min(peer.not_after, check.not_after) - self._contexts.wall()
        return Lifetime(monotonic() + min(age, left), check.generation)


class AsyncTlsConnector(_Tls):
    """TLS on the running loop, whichever it is."""

    async def open(self, endpoint: Endpoint, protocol_factory: Callable[[], P]) -> P:
        self._side.check_ready()
        loop = asyncio.get_running_loop()
        protocol = protocol_factory()
        ready: asyncio.Future[None] = loop.create_future()

        def done(error: BaseException | None) -> None:
            if ready.done():
                return
            if error is None:
                ready.set_result(None)
            else:
                ready.set_exception(error)

        def transport() -> TlsTransport:
            return TlsTransport(self._side, protocol, done, host=endpoint.hostname or endpoint.address)

        _, made = await loop.create_connection(transport, endpoint.address, endpoint.port)
        try:
            await ready
        except BaseException:
            made.abort()
            raise
        return protocol

    def lifetime(self, transport: asyncio.Transport) -> Lifetime:
        return self._lifetime(transport.get_extra_info("ssl_object"))


class TlsConnector(_Tls):
    """TLS on a blocking socket."""

    def open(self, endpoint: Endpoint, timeout: float | None) -> Stream:
        self._side.check_ready()
        until = None if timeout is None else monotonic() + timeout
        connected = socket.create_connection((endpoint.address, endpoint.port), timeout)
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = TlsStream(self._side, connected, host=endpoint.hostname or endpoint.address)
            stream.shake_hands(None if until is None else max(0.001, until - monotonic()))
        except BaseException:
            connected.close()
            raise
        return stream

    def lifetime(self, connected: Stream) -> Lifetime:
        assert isinstance(connected, TlsStream)
        return self._lifetime(connected.tls)


class SocketOptions(Protocol):
    """What of a socket `apply_keepalive` needs; uvloop's transports show only that much of theirs."""

    def setsockopt(self, level: int, name: int, value: int, /) -> None: ...


def apply_keepalive(connected: SocketOptions, keepalive: TcpKeepalive) -> None:
    """Switch TCP keep-alive on; 0 leaves the system's value.  Options that a platform lacks are skipped."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    values = (("TCP_KEEPIDLE", keepalive.time), ("TCP_KEEPINTVL", keepalive.interval), ("TCP_KEEPCNT", keepalive.probes))
    for name, value in values:
        option = getattr(socket, name, None)
        if value and option is not None:
            connected.setsockopt(socket.IPPROTO_TCP, option, max(1, round(value)))
