"""TLS between a transport and a protocol of asyncio.

asyncio's own (and uvloop's) copies every record once more, keeps 256 KiB for each connection, and closes a connection whose
peer it refuses without saying why.  This one does as little as possible for a request: one write and one read of OpenSSL.
An alert is sent before a connection is closed, so that the other side knows that its request was not taken.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from meshlib.runtime.tls.objects import TlsObject
from meshlib.runtime.tls.side import Side
from meshlib.runtime.tls.verify import CertificateRejected

RECORD: Final = 16 * 1024
"""Bytes of plaintext in one TLS record, at most: what one read or write of OpenSSL handles."""

Done = Callable[[BaseException | None], None]


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """The protocol of a plain transport, and the transport of `app`, which learns of the connection when the peer is verified.

    `done` is called once: with None right after ``app.connection_made``, or with what the handshake failed with; `app` hears
    nothing of the connection then.
    """

    __slots__ = (
        "_app",
        "_closing",
        "_done",
        "_host",
        "_incoming",
        "_lost",
        "_made",
        "_open",
        "_outgoing",
        "_side",
        "_tls",
        "_transport",
    )

    _transport: asyncio.Transport
    _tls: TlsObject

    def __init__(self, side: Side, app: asyncio.Protocol, done: Done, *, host: str = "") -> None:
        super().__init__()
        self._side = side
        self._app = app
        self._done: Done | None = done
        self._host = host
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._made = False  # `app` knows of the connection
        self._open = False  # the same, and neither side has ended it
        self._closing = False
        self._lost: BaseException | None = None  # why the connection is about to end

    # --- the protocol of the plain transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        try:
            self._tls = self._side.wrap_bio(self._incoming, self._outgoing, host=self._host)
        except (OSError, ValueError) as error:
            self._end(error)
            return
        self._shake_hands()

    def data_received(self, data: bytes) -> None:
        incoming = self._incoming
        incoming.write(data)
        if not self._open:
            if self._done is None:
                return  # it has failed or was closed; what still comes is nobody's
            self._shake_hands()
            if not self._open:
                return
        try:
            piece = self._tls.read(RECORD)
        except ssl.SSLWantReadError:
            pass  # a record that is not whole yet
        except (OSError, ValueError) as error:
            self._end(error)
            return
        else:
            if not piece or incoming.pending:
                self._read_on(piece)
                return
            self._app.data_received(piece)  # nearly always: one record, and all of it
        if self._outgoing.pending:
            self._flush()  # what TLS itself answers: an update of keys

    def _read_on(self, piece: bytes) -> None:
        """More than one record, of which `piece` is the first; empty: the peer's close_notify."""
        incoming, tls = self._incoming, self._tls
        pieces: list[bytes] = []
        try:
            while piece:
                pieces.append(piece)
                if not incoming.pending:
                    break
                piece = tls.read(RECORD)
        except ssl.SSLWantReadError:
            pass
        except (OSError, ValueError) as error:
            self._deliver(pieces)
            self._end(error)
            return
        self._deliver(pieces)
        if not piece:
            self._peer_closed()
        elif self._outgoing.pending:
            self._flush()

    def eof_received(self) -> bool:
        """Without TLS's own end before it: somebody else may have cut the connection."""
        self._end(ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the connection ended without TLS's close_notify"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._open and isinstance(exc, OSError) and self._lost is None:
            self._lost = self._last_words()
        error = cast("Exception | None", self._lost or exc)
        self._open = False
        self._closing = True
        if self._made:
            self._app.connection_lost(error)
        else:
            self._finish(error or ConnectionResetError("the connection ended during the TLS handshake"))

    def pause_writing(self) -> None:
        self._app.pause_writing()

    def resume_writing(self) -> None:
        self._app.resume_writing()

    # --- the transport of the application

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._open:
            return
        try:
            size, written = len(data), self._tls.write(data)
            if written < size:
                with memoryview(data) as view:
                    while written < size:
                        written += self._tls.write(view[written:])
        except OSError as error:
            self._end(error)
            return
        self._transport.write(self._outgoing.read())

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        """Say good-bye, send what is still to be sent, and close."""
        if not self._closing:
            self._closing = True
            self._say_goodbye()
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._say_goodbye()
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def is_reading(self) -> bool:
        return self._transport.is_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._tls
        return self._transport.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._app = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._app

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def can_write_eof(self) -> bool:
        return False

    # --- steps

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except (OSError, ValueError) as error:
            self._end(error)
            return
        self._flush()
        self._made = self._open = True
        self._app.connection_made(self)
        self._finish(None)

    def _finish(self, error: BaseException | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(error)

    def _deliver(self, pieces: list[bytes]) -> None:
        if pieces:
            self._app.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _peer_closed(self) -> None:
        """The peer has said that it will send nothing more."""
        if self._open and not self._app.eof_received():
            self.close()

    def _end(self, error: BaseException) -> None:
        """`error` ends the connection; the peer is told what TLS has to say about it."""
        self._lost = error
        self._closing = True
        if isinstance(error, CertificateRejected):
            self._outgoing.read()  # our own part of the handshake, which was not for this peer
        self._say_goodbye()
        self._finish(error)
        self._transport.close()

    def _last_words(self) -> ssl.SSLError | None:
        """A write failed because the peer had closed; the alert by which it said why may lie in the socket, unread."""
        found = self._transport.get_extra_info("socket")
        try:
            with socket.socket(fileno=os.dup(found.fileno())) as connected:
                self._incoming.write(connected.recv(RECORD, socket.MSG_DONTWAIT))
            while self._incoming.pending and self._tls.read(RECORD):
                pass
        except (ssl.SSLWantReadError, ssl.SSLEOFError):
            return None
        except ssl.SSLError as error:
            return error
        except (OSError, ValueError):
            return None
        return None

    def _say_goodbye(self) -> None:
        """Send close_notify, or the alert that is waiting to be sent."""
        if self._open:
            self._open = False
            try:
                self._tls.unwrap()
            except OSError:
                pass  # the peer's own is not waited for
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._transport.write(self._outgoing.read())
