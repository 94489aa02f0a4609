"""One HTTP/1.1 client connection, without any I/O: bytes in, events out.

::

            start()              head complete             body complete
    IDLE ────────────► HEAD ──────────────────► BODY ──────────────────────► IDLE     reusable
                        │  1xx: stays in HEAD     │                     └───► CLOSED   not reusable
                        └──────── any WireError ──┴─────────────────────────► CLOSED

The request side is only a flag (`request_sent`): a response that is complete before its request is makes the connection
unusable, because nobody knows where the peer stopped reading.

Heads are collected whole and then parsed by llhttp (httptools), so what is accepted does not depend on how the bytes were
split.  Bodies of a known length and those that end with the connection are cut here; chunked ones go through llhttp.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from meshlib.wire.errors import BodyTruncated, ProtocolViolation, Terminated, WireError
from meshlib.wire.response import END, Event, Framing, Informational, ResponseHead, Trailers

MAX_HEADERS: Final = 100
MAX_HEAD_BYTES: Final = 64 * 1024
MAX_INFORMATIONAL: Final = 32
_LONGEST_KEPT: Final = 2048  # bytes of a head that is remembered


class State(Enum):
    """See the picture at the top of this file."""

    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    CLOSED = "closed"


_IDLE, _HEAD, _BODY, _CLOSED = State.IDLE, State.HEAD, State.BODY, State.CLOSED
_SWITCHED: Final = "the peer switched protocols (101); this engine speaks HTTP/1.1 only, so the connection was closed"
_VERSIONS: Final = {"1.1": b"HTTP/1.1", "1.0": b"HTTP/1.0"}


class ClientConnection:
    """`start`, then `receive` what comes until END; again while `state` is IDLE."""

    __slots__ = (
        "_chunks",
        "_close_after",
        "_fields",
        "_fields_bytes",
        "_framing",
        "_head_only",
        "_head_parsed",
        "_informational",
        "_keep_alive",
        "_kept_bytes",
        "_kept_head",
        "_max_head_bytes",
        "_max_headers",
        "_message_ended",
        "_overhead",
        "_parser",
        "_pending",
        "_reason",
        "_remaining",
        "exchanges",
        "request_sent",
        "responded",
        "state",
    )

    def __init__(self, *, max_headers: int = MAX_HEADERS, max_head_bytes: int = MAX_HEAD_BYTES) -> None:
        self.state = _IDLE
        self.request_sent = True  # the shell sets it once the whole request is written
        self.responded = False  # a byte of the response to the current request came
        self.exchanges = 0
        self._max_headers = max_headers
        self._max_head_bytes = max_head_bytes
        self._head_only = False
        self._close_after = False
        self._informational = 0
        self._pending = bytearray()  # an incomplete head
        self._framing = Framing.NONE
        self._keep_alive = False
        self._remaining = 0
        # The last head that was parsed, as bytes and as object: servers repeat themselves, mostly to the byte.
        self._kept_bytes = b""
        self._kept_head: ResponseHead | None = None
        # llhttp, while it is needed, and what it reports.
        self._parser: HttpResponseParser | None = None
        self._reason = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._fields_bytes = 0
        self._head_parsed = False
        self._message_ended = False
        self._chunks: list[bytes] = []
        self._overhead = 0

    def start(self, *, head_only: bool = False, close: bool = False, sent: bool = True) -> None:
        """A request begins.  `head_only`: its method is HEAD; `close`: it asks to close; `sent`: it is written as a whole."""
        if self.state is not _IDLE:
            raise AssertionError(f"a request cannot start while the connection is {self.state.value}")
        self.state = _HEAD
        self.exchanges += 1
        self.responded = False
        self._head_only = head_only
        self._close_after = close
        self._informational = 0
        self.request_sent = sent

    def close(self) -> None:
        """Nothing more will be read or sent."""
        self.state = _CLOSED
        self._parser = None
        self._pending.clear()

    def receive(self, data: bytes) -> Sequence[Event]:
        """Bytes from the peer.  Raises WireError, and is CLOSED from then on."""
        head = self._kept_head
        if head is not None and self.state is _HEAD and not self._pending and data.startswith(self._kept_bytes):
            self.responded = True
            body = data[len(self._kept_bytes) :]
            if len(body) == head.length and not self._head_only:
                # By far the most frequent case: one segment, and a head that was parsed before.
                self.state = _IDLE if head.keep_alive and self.request_sent and not self._close_after else _CLOSED
                return head, body, END
            events: list[Event] = []
            self._begin_body(head, events)
            return self._receive_rest(body, events) if body else events
        if self.state is _BODY and self._framing is Framing.LENGTH and len(data) == self._remaining:
            # The next most frequent one: the body in a segment of its own.
            self.state = _IDLE if self._keep_alive and self.request_sent and not self._close_after else _CLOSED
            return data, END
        try:
            return self._receive(data)
        except WireError:
            self.close()
            raise

    def receive_eof(self) -> Sequence[Event]:
        """The peer sent its last byte.  Raises WireError if the response is not complete with that."""
        state, framing = self.state, self._framing
        self.close()
        if state is _HEAD:
            what = "in the middle of the response head" if self.responded else "without a response"
            raise Terminated(f"the peer closed the connection {what}", responded=self.responded, reused=self.exchanges > 1)
        if state is _BODY:
            if framing is not Framing.CLOSE:
                missing = f"{self._remaining} bytes" if framing is Framing.LENGTH else "its last chunk"
                raise BodyTruncated(f"the peer closed the connection before the end of the body: {missing} missing")
            return (END,)
        return ()

    # --- a response, piece by piece

    def _receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        if not data or self.state is _CLOSED:
            return events
        if self.state is _IDLE:
            raise ProtocolViolation("the peer sent bytes without a request", sent=False, responded=False)
        self.responded = True
        while self.state is _HEAD and data:
            data = self._receive_head(data, events)
        return self._receive_rest(data, events)

    def _receive_rest(self, data: bytes, events: list[Event]) -> list[Event]:
        """What follows a head, if there was one."""
        if self.state is _BODY:
            self._receive_body(data, events)
        elif self.state is _IDLE and data:
            self.state = _CLOSED  # bytes beyond the end: the response stands, the connection does not
        return events

    def _receive_head(self, data: bytes, events: list[Event]) -> bytes:
        """Take a head off `data`, if it is complete; returns what follows it."""
        pending = self._pending
        if pending:
            searched = max(0, len(pending) - 3)
            pending += data
            end = pending.find(b"\r\n\r\n", searched) + 4
            data = bytes(pending) if end >= 4 else b""
        else:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                pending += data
        if end > self._max_head_bytes or (end < 4 and len(pending) > self._max_head_bytes):
            raise ProtocolViolation(f"response head is larger than {self._max_head_bytes} bytes")
        if end < 4:
            self._check_beginning()
            return b""
        pending.clear()
        raw = data[:end]
        head = self._parse_head(raw)
        if head.status < 200:
            if head.status == 101:
                raise ProtocolViolation(_SWITCHED)
            self._parser = None
            self._informational += 1
            if self._informational > MAX_INFORMATIONAL:
                raise ProtocolViolation(f"more than {MAX_INFORMATIONAL} informational responses to one request")
            events.append(Informational(head.status, head.headers))
            return data[end:]
        if head.framing is Framing.LENGTH and end <= _LONGEST_KEPT:
            self._kept_bytes, self._kept_head = raw, head
        self._begin_body(head, events)
        return data[end:]

    def _check_beginning(self) -> None:
        """Refuse early what can never become a head, instead of waiting for the end of it."""
        pending = self._pending
        if not b"HTTP/1.".startswith(bytes(pending[:7])):
            raise ProtocolViolation(f"the peer does not speak HTTP/1.1: its response begins with {bytes(pending[:16])!r}")
        if b"\n\n" in pending:
            raise ProtocolViolation("lines of the response head end without CR")

    def _parse_head(self, raw: bytes) -> ResponseHead:
        self._fields = []
        self._fields_bytes = 0
        self._reason = b""
        self._head_parsed = self._message_ended = False
        self._chunks = []
        self._parser = parser = HttpResponseParser(self)
        self._feed(raw)
        version = _VERSIONS.get(parser.get_http_version())
        status: int = parser.get_status_code()
        strange = self._chunks or b"\0" in self._reason or not raw.startswith(b"HTTP/")
        if not self._head_parsed or version is None or status < 100 or strange:
            raise ProtocolViolation(f"the peer does not speak HTTP/1.1: its response begins with {raw[:16]!r}")
        return ResponseHead(status, self._reason, version, tuple(self._fields))

    def _begin_body(self, head: ResponseHead, events: list[Event]) -> None:
        events.append(head)
        self._keep_alive = head.keep_alive
        self._remaining = head.length
        self._framing = Framing.NONE if self._head_only else head.framing
        if self._framing is Framing.CHUNKED:
            self._fields = []
            self._fields_bytes = self._overhead = 0
        else:
            self._parser = None  # it refers back to us: no cycle is left behind
        if self._framing is Framing.NONE or (self._framing is Framing.LENGTH and not head.length):
            self._end(events)
        else:
            self.state = _BODY

    def _receive_body(self, data: bytes, events: list[Event]) -> None:
        if not data:
            return
        if self._framing is Framing.CHUNKED:
            self._receive_chunked(data, events)
        elif self._framing is Framing.CLOSE:
            events.append(data)
        elif len(data) < self._remaining:
            self._remaining -= len(data)
            events.append(data)
        else:
            extra = len(data) > self._remaining
            events.append(data[: self._remaining] if extra else data)
            self._end(events)
            if extra:
                self.state = _CLOSED

    def _receive_chunked(self, data: bytes, events: list[Event]) -> None:
        chunks = self._chunks
        try:
            self._feed(data)
        except ProtocolViolation:
            if not self._message_ended:
                raise
            self._keep_alive = False  # llhttp refuses what follows the end; the response itself is whole
        if chunks:
            events.append(chunks[0] if len(chunks) == 1 else b"".join(chunks))
            chunks.clear()
            self._overhead = 0
        else:
            # Chunk extensions and trailers carry no body: they may not go on for ever.
            self._overhead += len(data)
            if self._overhead > self._max_head_bytes and not self._message_ended:
                raise ProtocolViolation(f"more than {self._max_head_bytes} bytes of chunk extensions or trailers")
        if self._message_ended:
            if self._fields:
                events.append(Trailers(tuple(self._fields)))
            self._end(events)

    def _end(self, events: list[Event]) -> None:
        events.append(END)
        self._parser = None
        reusable = self._keep_alive and self.request_sent and not self._close_after
        self.state = _IDLE if reusable else _CLOSED

    # --- llhttp

    def _feed(self, data: bytes) -> None:
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            raise ProtocolViolation(_SWITCHED) from None
        except HttpParserError as error:
            if isinstance(error.__context__, ProtocolViolation):
                raise error.__context__ from None
            raise ProtocolViolation(f"response is not valid HTTP/1.1: {error}") from error

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields_bytes += len(name) + len(value)
        self._fields.append((name, value.rstrip(b" \t")))  # llhttp leaves the optional whitespace at the end
        if len(self._fields) > self._max_headers:
            raise ProtocolViolation(f"response has more than {self._max_headers} header fields")
        if self._fields_bytes > self._max_head_bytes:
            raise ProtocolViolation(f"response trailers are larger than {self._max_head_bytes} bytes")

    def on_headers_complete(self) -> None:
        self._head_parsed = True

    def on_body(self, data: bytes) -> None:
        self._chunks.append(data)

    def on_message_begin(self) -> None:
        if self._message_ended:
            raise ProtocolViolation("bytes after the end of the response")

    def on_message_complete(self) -> None:
        self._message_ended = True
