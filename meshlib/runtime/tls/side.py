"""One side of TLS connections: what the engines wrap sockets and memory BIOs with.

Not an `ssl.SSLContext`: that costs 14 KiB, and a process calls hundreds of clusters.  `facade.Facade` makes one of it for those
who need it.
"""

from __future__ import annotations

import socket
import ssl
from typing import Protocol

from meshlib.runtime.tls.objects import TlsObject, TlsSocket


class Side(Protocol):
    """`alpn` may be replaced; it holds for the connections after that."""

    alpn: tuple[str, ...]

    def check_ready(self) -> None:
        """Raises what wrapping would raise: before a connection is opened in vain."""
        ...

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *, host: str = "") -> TlsObject:
        """A TLS object for one new connection to `host`, as its user calls it.  Raises ssl.SSLError, OSError."""
        ...

    def wrap_socket(self, connected: socket.socket, *, host: str = "", suppress_ragged_eofs: bool = True) -> TlsSocket:
        """The same for a socket, which is taken over; the handshake is still to be done.  Raises ssl.SSLError, OSError."""
        ...


def wrap_accepted(side: Side, connected: socket.socket, *, handshake: bool) -> TlsSocket:
    """`wrap_socket` and, if it is wanted, the handshake: of this socket, or of all that it accepts if it listens."""
    wrapped = side.wrap_socket(connected)
    wrapped.handshake_accepted = handshake
    try:
        if handshake and wrapped.is_connected:
            wrapped.do_handshake()
    except BaseException:
        wrapped.close()
        raise
    return wrapped
