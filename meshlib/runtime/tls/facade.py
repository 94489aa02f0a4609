"""An `ssl.SSLContext` for others: clients and servers that know nothing of the mesh.

It has no certificate and no roots of its own.  `wrap_bio` and `wrap_socket` are the only ways by which a context is used, and
they ask the side behind it, so a connection always begins with the certificate and the trust of the moment.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any

from meshlib.runtime.tls.side import Side, wrap_accepted


class Facade(ssl.SSLContext):
    """See the top of this file.  Who the peer may be is the side's business: names that callers give are for SNI outside."""

    def __new__(cls, side: Side, *, server: bool) -> Facade:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, side: Side, *, server: bool) -> None:
        self._side = side
        self._server = server
        self.check_hostname = False  # what this says is read by urllib3, which would look for a DNS name otherwise
        self.verify_mode = ssl.CERT_REQUIRED

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        self._expect(server_side=server_side)
        return self._side.wrap_bio(incoming, outgoing, host=_text(server_hostname))

    def wrap_socket(
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        self._expect(server_side=server_side)
        if server_side:
            return wrap_accepted(self._side, sock, handshake=do_handshake_on_connect)
        wrapped = self._side.wrap_socket(sock, host=_text(server_hostname), suppress_ragged_eofs=suppress_ragged_eofs)
        try:
            if do_handshake_on_connect:
                wrapped.do_handshake()
        except BaseException:
            wrapped.close()
            raise
        return wrapped

    def set_alpn_protocols(self, alpn_protocols: Any) -> None:
        self._side.alpn = tuple(alpn_protocols)

    def _expect(self, *, server_side: bool) -> None:
        if server_side is not self._server:
            raise ssl.SSLError(f"this context is for {'servers' if self._server else 'clients'}")


def _text(name: str | bytes | None) -> str:
    return name.decode("ascii") if isinstance(name, bytes) else name or ""
