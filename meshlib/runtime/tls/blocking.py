"""TLS over a blocking socket, by memory BIOs.

`ssl.SSLSocket` reads the head and the body of each record by a system call of its own, tries before it polls, and does not heed
the kernel's timeouts (SO_RCVTIMEO, SO_SNDTIMEO).  Here all that has arrived is read at once, and the timeouts are the socket's.
"""

from __future__ import annotations

import socket
import ssl
from time import monotonic
from typing import Final

from meshlib.runtime.tls.aio import RECORD
from meshlib.runtime.tls.objects import TlsObject
from meshlib.runtime.tls.side import Side
from meshlib.runtime.tls.verify import CertificateRejected

_CHUNK: Final = 64 * 1024


class TlsStream:
    """What the engine uses of a socket.  One thread at a time."""

    def __init__(self, side: Side, connected: socket.socket, *, host: str = "") -> None:
        """Takes `connected` over when `shake_hands` is called.  Raises ssl.SSLError, OSError."""
        self._socket = connected
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls: TlsObject = side.wrap_bio(self._incoming, self._outgoing, host=host)
        self._unsent: memoryview | None = None  # encrypted already
        self._ended = False  # the peer has said that nothing more will come
        self._error: OSError | None = None  # for the next read: what came before it counts first

    def shake_hands(self, timeout: float | None) -> None:
        """Raises OSError, among them ssl.SSLError and TimeoutError."""
        until = None if timeout is None else monotonic() + timeout
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self._socket.settimeout(None if until is None else max(0.001, until - monotonic()))
                self._flush_handshake()
                self._feed(self._socket.recv(_CHUNK))
            except CertificateRejected:
                raise  # without our own part of the handshake, which was not for this peer
            except ssl.SSLError:
                self._flush_handshake()  # the alert that says why
                raise
            else:
                self._flush_handshake()
                self._socket.settimeout(None)
                return

    # --- as a socket

    def recv(self, size: int, flags: int = 0) -> bytes:
        """What has arrived, decrypted; b"" after TLS's own end.  An end without it is an ssl.SSLEOFError."""
        while True:
            if self._incoming.pending and (pieces := self._decrypted()):
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            self._feed(self._socket.recv(size, flags))

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        """At most one record.  Raises BlockingIOError when not all of it was taken in time: then nothing of it can be read.

        With MSG_DONTWAIT a record may be left over, see `unsent`; it goes out before the next one.
        """
        if self._unsent is not None:
            self._push(flags)
        written = self.tls.write(data if len(data) <= RECORD else memoryview(data)[:RECORD])
        self._unsent = memoryview(self._outgoing.read())
        try:
            self._push(flags)
        except BlockingIOError:
            if not flags & socket.MSG_DONTWAIT:
                raise
        return written

    @property
    def unsent(self) -> bool:
        """Something that `send` has accepted is still here."""
        return self._unsent is not None

    def flush(self, flags: int = 0) -> None:
        """Send it.  Raises BlockingIOError."""
        if self._unsent is not None:
            self._push(flags)

    @property
    def holds_back(self) -> bool:
        """Something was received and not handed on."""
        return self._incoming.pending > 0 or self._ended or self._error is not None

    def has_news(self) -> bool:
        """Data, an end or an error; not merely TLS's own (session tickets, say).  Never waits."""
        try:
            while not self._ended and self._error is None:
                if self._incoming.pending:
                    return True
                self._feed(self._socket.recv(_CHUNK, socket.MSG_DONTWAIT))
                if self._decrypted():
                    return True
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def fileno(self) -> int:
        return self._socket.fileno()

    def setsockopt(self, level: int, name: int, value: int | bytes) -> None:
        self._socket.setsockopt(level, name, value)

    def settimeout(self, seconds: float | None) -> None:
        self._socket.settimeout(seconds)

    def close(self) -> None:
        """Says good-bye if that is possible without waiting."""
        if self.tls.verified and self._unsent is None:
            try:
                self.tls.unwrap()
            except OSError:
                pass  # the peer's own is not waited for
            try:
                self._socket.send(self._outgoing.read(), socket.MSG_DONTWAIT)
            except OSError:
                pass
        self._socket.close()

    # --- steps

    def _feed(self, data: bytes) -> None:
        if not data:
            raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the connection ended without TLS's close_notify")
        self._incoming.write(data)

    def _decrypted(self) -> list[bytes]:
        pieces: list[bytes] = []
        try:
            while self._incoming.pending:
                piece = self.tls.read(RECORD)
                if not piece:
                    self._ended = True
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass  # a record that is not whole yet
        except OSError as error:
            self._error = error
        return pieces

    def _push(self, flags: int) -> None:
        view = self._unsent
        try:
            while view:
                sent = self._socket.send(view, flags)
                if sent == len(view):
                    break
                self._unsent = view = view[sent:]
        except BlockingIOError:
            raise
        except OSError as error:
            raise self._last_words() or error from None
        self._unsent = None

    def _last_words(self) -> OSError | None:
        """The peer has closed; the alert by which it said why may lie in the socket, unread."""
        try:
            while self._error is None and not self._ended:
                self._feed(self._socket.recv(_CHUNK, socket.MSG_DONTWAIT))
                self._decrypted()
        except OSError:
            pass
        return self._error

    def _flush_handshake(self) -> None:
        if self._outgoing.pending:
            self._socket.sendall(self._outgoing.read())
