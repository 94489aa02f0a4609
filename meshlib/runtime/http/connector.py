"""How a connection to an endpoint is opened.  The seam where TLS will come in: plain TCP here."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol, TypeVar

from meshlib.model.cluster import TcpKeepalive
from meshlib.model.endpoint import Endpoint

P = TypeVar("P", bound=asyncio.Protocol)


class AsyncConnector(Protocol):
    """Opens a transport for `protocol_factory`'s protocol and returns the protocol, connected."""

    async def open(self, endpoint: Endpoint, protocol_factory: Callable[[], P]) -> P: ...


class Connector(Protocol):
    """Opens a connected blocking socket within `timeout` seconds; raises OSError, TimeoutError among them."""

    def open(self, endpoint: Endpoint, timeout: float | None) -> socket.socket: ...


class AsyncTcpConnector:
    """Plain TCP on the running loop; the loop switches Nagle's algorithm off."""

    async def open(self, endpoint: Endpoint, protocol_factory: Callable[[], P]) -> P:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(protocol_factory, endpoint.address, endpoint.port)
        return protocol


class TcpConnector:
    """Plain TCP."""

    def open(self, endpoint: Endpoint, timeout: float | None) -> socket.socket:
        connected = socket.create_connection((endpoint.address, endpoint.port), timeout)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected


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
