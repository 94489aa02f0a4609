"""The TLS objects of the mesh's contexts: their handshake ends with a look at who the peer is, or not at all.

`ssl.SSLContext` lets subclasses say which classes its `wrap_bio` and `wrap_socket` make, and every Python server and client
that uses `ssl` calls their `do_handshake`.  Some leave the handshake to the first read or write, which OpenSSL then does by
itself; so these are guarded too.
"""

from __future__ import annotations

import _ssl
import socket
import ssl
from typing import TYPE_CHECKING, Any, Protocol

from meshlib.model.identity import Peer

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Check(Protocol):
    """What happens at the end of a handshake.  `generation` and `not_after` are those of our own side."""

    generation: int
    not_after: float  # Unix seconds: when the certificate that we have shown ends

    def __call__(self, tls: Checked) -> Peer | None:
        """The peer; None where it has no mesh identity.  Raises ssl.SSLCertVerificationError to refuse it."""
        ...

    def accepted(self, connected: socket.socket, *, handshake: bool) -> ssl.SSLSocket:
        """TLS for a connection that a listening socket of this context has accepted."""
        ...


class Checked:
    """What `TlsObject` and `TlsSocket` have in common; for those who get either."""

    check: Check | None = None  # set right after wrapping; without one, no handshake succeeds
    peer: Peer | None = None
    verified = False
    server_name: str | None = None  # of a server: what the client has asked for (SNI)
    _sslobj: Any

    def _finish(self) -> None:
        check = self.check
        if check is None:
            raise ssl.SSLError("a TLS context of the mesh is used by itself: wrap with what TlsContexts gives out")
        self.peer = check(self)
        self.verified = True


class TlsObject(Checked, ssl.SSLObject):
    """For memory BIOs: asyncio, uvloop, anyio, and the engine's own transport."""

    def do_handshake(self) -> None:
        super().do_handshake()
        if not self.verified:
            self._finish()

    def read(self, len: int = 1024, buffer: Buffer | None = None) -> Any:  # noqa: A002  # as in ssl
        if not self.verified:
            self.do_handshake()
        return self._sslobj.read(len) if buffer is None else self._sslobj.read(len, buffer)

    def write(self, data: Buffer) -> int:
        if not self.verified:
            self.do_handshake()
        written: int = self._sslobj.write(data)
        return written


class TlsSocket(Checked, ssl.SSLSocket):
    """For blocking sockets."""

    handshake_accepted = True  # of a listening socket: whether `accept` does the handshake, too

    @property
    def is_connected(self) -> bool:
        """False for a listening socket."""
        return self._sslobj is not None

    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        if not self.verified:
            self._finish()

    def read(self, len: int = 1024, buffer: Buffer | None = None) -> Any:  # noqa: A002  # as in ssl
        if not self.verified and self._sslobj is not None:
            self.do_handshake()
        return super().read(len, buffer)

    def write(self, data: Buffer) -> int:
        if not self.verified and self._sslobj is not None:
            self.do_handshake()
        return super().write(data)

    def send(self, data: Buffer, flags: int = 0) -> int:
        if not self.verified and self._sslobj is not None:
            self.do_handshake()
        return super().send(data, flags)

    def accept(self) -> tuple[ssl.SSLSocket, Any]:
        """A listening socket was wrapped: what it accepts is wrapped with what holds now, not with what held then."""
        connected, address = socket.socket.accept(self)
        if self.check is None:
            connected.close()
            raise ssl.SSLError("a TLS context of the mesh is used by itself: wrap with what TlsContexts gives out")
        try:
            return self.check.accepted(connected, handshake=self.handshake_accepted), address
        except BaseException:
            connected.close()
            raise


def verified_chain(tls: Checked) -> tuple[bytes, ...]:
    """DER, leaf first, root last: the path that OpenSSL has verified.  Empty for a resumed session, which verifies none."""
    return _chain(tls, "get_verified_chain")


def sent_chain(tls: ssl.SSLSocket | Checked) -> tuple[bytes, ...]:
    """DER, leaf first, as the peer sent it; nothing of it is verified by being here."""
    return _chain(tls, "get_unverified_chain")


def _chain(tls: ssl.SSLSocket | Checked, method: str) -> tuple[bytes, ...]:
    public = getattr(tls, method, None)
    if public is not None:  # Python 3.13 and later
        return tuple(public())
    # Python 3.11 and 3.12 have the same method on the object below, which is private; a test guards it.
    private: Any = tls
    found = getattr(private._sslobj, method)()
    return tuple(certificate.public_bytes(_ssl.ENCODING_DER) for certificate in found or ())


def peer_of(tls: object) -> Peer | None:
    """Who is at the other end of a TLS object or socket: None before the handshake, and for peers without an identity.

    asyncio: ``peer_of(transport.get_extra_info("ssl_object"))``.  Anything that is not of the mesh's contexts has no peer.
    """
    return tls.peer if isinstance(tls, Checked) and tls.verified else None
