"""The blocking shell of one connection: moves bytes between a socket and `wire.ClientConnection`.

Timeouts are the kernel's (SO_RCVTIMEO, SO_SNDTIMEO): Python's own would cost a poll, and one more fight for the interpreter
lock, for every call.  One thread uses a connection at a time; its pool hands it on.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from time import monotonic
from typing import Final, Protocol

from meshlib.errors import TimeoutName
from meshlib.runtime.http.blocking_response import BlockingResponse
from meshlib.runtime.http.connector import Connector, Stream
from meshlib.runtime.http.failures import lost
from meshlib.runtime.http.settings import NEVER, NO_TIMEOUTS, PoolSettings, Timeouts, earlier
from meshlib.runtime.tls.blocking import TlsStream
from meshlib.wire.connection import ClientConnection, State
from meshlib.wire.errors import RequestFailed, TimedOut, WireError
from meshlib.wire.request import LAST_CHUNK, announced_length, encode_chunk, expects_continue
from meshlib.wire.response import END, Event, Informational, ResponseHead, Trailers

CONTINUE_WAIT: Final = 1.0  # seconds for a server to say 100 before the body is sent anyway (RFC 9110 section 10.1.1)
PIECE: Final = 128 * 1024  # a long body is written in pieces of this size
_RECEIVE: Final = 64 * 1024
_TIMEVAL: Final = struct.Struct("@ll")


class Owner(Protocol):
    """What a connection tells its pool."""

    def connection_ready(self, connection: BlockingConnection) -> None: ...

    def connection_gone(self, connection: BlockingConnection) -> None: ...


class BlockingConnection:
    """See the top of this file."""

    def __init__(self, owner: Owner, settings: PoolSettings, connected: Stream) -> None:
        self.wire = ClientConnection(max_headers=settings.max_response_headers, max_head_bytes=settings.max_response_head_bytes)
        self.closed = False
        self.opened_at = self.idle_since = monotonic()
        self.connector: Connector | None = None  # what opened it
        self.ends = NEVER  # no new request from then on
        self.generation = 0  # of the connector
        self.exchanged = 0  # exchanges that are over; the pool counts them
        self._owner = owner
        self._socket = connected
        self._tls = connected if isinstance(connected, TlsStream) else None
        self._read_timeout = self._write_timeout = NEVER
        connected.settimeout(None)
        self._readable = select.poll()
        self._readable.register(connected, select.POLLIN)
        self._response: BlockingResponse | None = None
        self._whole = False
        self._streaming = False  # the body comes from the caller piece by piece
        self._early: list[Event] = []  # what the peer sent while we were still sending
        self._ending = (
            threading.Lock()
        )  # a socket's number may be another's as soon as it is closed: `shut` comes before or never
        self._timeouts = NO_TIMEOUTS
        self._deadline: float | None = None
        self._deadline_name: TimeoutName = "deadline"

    def is_stale(self) -> bool:
        """The peer closed it, or sent what nobody asked for, since the last exchange."""
        if not self._readable.poll(0) and (self._tls is None or not self._tls.holds_back):
            return False
        return self._tls is None or self._tls.has_news()

    # --- an exchange

    def begin(self, timeouts: Timeouts, deadline: float | None, deadline_name: TimeoutName, *, whole: bool) -> None:
        """The time that the next exchange has, and whether its caller wants the head only when the body is `whole`."""
        self._whole = whole
        self._timeouts = timeouts
        self._deadline = deadline
        self._deadline_name = deadline_name

    def exchange(self, data: bytes, *, head_only: bool, close: bool) -> BlockingResponse:
        """Write a whole request and wait for the head of its response.  Raises WireError, and is closed then."""
        self.wire.start(head_only=head_only, close=close)
        self._streaming = False
        try:
            self._send(data)
            return self._response_head()
        except BaseException as error:
            self._fail(error)
            raise

    def stream(self, head: bytes, body: bytes | Iterable[bytes], *, head_only: bool, close: bool) -> BlockingResponse:
        """As `exchange`, with the body sent piece by piece; an early answer of the peer ends the sending."""
        self.wire.start(head_only=head_only, close=close, sent=False)
        self._streaming = not isinstance(body, bytes)
        self._early = []
        pieces: Iterator[bytes | memoryview] | None = None
        try:
            pieces = _pieces(body) if isinstance(body, bytes) else iter(body)
            self._send(head)
            if not (expects_continue(head) and self._await_continue()):
                self._send_body(pieces, announced_length(head))
            return self._response_head()
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            if isinstance(pieces, Generator):
                pieces.close()

    def advance(self, response: BlockingResponse) -> None:
        """Wait for some more of the response's body.  A failure goes to `response`; only an interruption is raised."""
        try:
            self._take(self._receive(), response)
        except WireError as error:
            self._fail(error)
        except BaseException as error:
            self._fail(error)
            raise

    def shut(self) -> None:
        """End the exchange that goes on here, from any thread: whoever waits for the peer finds the connection at its end."""
        with self._ending:
            if self.closed:
                return
            try:
                with socket.socket(fileno=os.dup(self._socket.fileno())) as same:  # closing it here would free a number in use
                    same.shutdown(socket.SHUT_RDWR)
            except (OSError, ValueError):
                pass  # the peer has ended it

    def abort(self, error: WireError | None) -> None:
        """Close at once; a response under way ends with `error`."""
        if self.closed:
            return
        with self._ending:
            self.closed = True
            self._socket.close()
        self.wire.close()
        self._owner.connection_gone(self)
        response, self._response = self._response, None
        if response is not None:
            response.finish(error or RequestFailed("the connection was closed"))

    def _fail(self, error: BaseException) -> None:
        """`abort`, with what is known about the exchange put into `error`."""
        if not isinstance(error, WireError):
            self.abort(RequestFailed(f"the exchange was interrupted: {error!r}"))
            return
        error.responded = error.responded or self.wire.responded
        error.reused = self.wire.exchanges > 1
        self.abort(error)

    # --- the response

    def _response_head(self) -> BlockingResponse:
        events: Sequence[Event] = self._early
        self._early = []
        while True:
            for index, event in enumerate(events):
                if type(event) is ResponseHead:
                    response = BlockingResponse(event, [], self)
                    self._response = response
                    if self._deadline_name == "per_try" and not self._whole:
                        self._deadline = None  # it was for the head; `limit` says what the body has
                    self._take(events[index + 1 :], response)
                    while self._whole and not response.closed:
                        self._take(self._receive(), response)
                    return response
            events = self._receive()

    def _take(self, events: Sequence[Event], response: BlockingResponse) -> None:
        for event in events:
            if type(event) is bytes:
                if event:
                    response.feed(event)
            elif event is END:
                self._response = None
                response.finish(None)
                if self.wire.state is State.IDLE:
                    self._owner.connection_ready(self)
                else:
                    self.abort(None)
            elif type(event) is Trailers:
                response.trailers = event.headers

    def _receive(self, flags: int = 0) -> Sequence[Event]:
        seconds, which = self._time_left(self._timeouts.read, "read")
        if seconds != self._read_timeout:
            self._read_timeout = seconds
            self._set_timeout(socket.SO_RCVTIMEO, seconds)
        try:
            data = self._socket.recv(_RECEIVE, flags)
        except (BlockingIOError, TimeoutError) as error:
            if flags:
                return ()
            raise TimedOut(f"the peer sent nothing in time ({which} timeout)", which) from error
        except OSError as error:
            first = self.wire.exchanges <= 1 and not self.wire.responded
            raise lost(error, first=first, replayable=not self._streaming) from error
        return self.wire.receive(data) if data else self.wire.receive_eof()

    # --- the request

    def _send(self, data: bytes) -> None:
        """All of it, without looking at what comes back."""
        view = data
        sent = 0
        while True:
            seconds, which = self._time_left(self._timeouts.write, "write")
            if seconds != self._write_timeout:
                self._write_timeout = seconds
                self._set_timeout(socket.SO_SNDTIMEO, seconds)
            try:
                sent += self._socket.send(view)
            except (BlockingIOError, TimeoutError) as error:
                raise TimedOut(f"the peer took nothing in time ({which} timeout)", which, sent=sent > 0) from error
            except OSError as error:
                failure = lost(error, first=self.wire.exchanges <= 1, replayable=not self._streaming)
                failure.sent = failure.sent and sent > 0
                raise failure from error
            if sent == len(data):
                return
            view = data[sent:]

    def _send_body(self, pieces: Iterator[bytes | memoryview], length: int | None) -> None:
        """Until it is sent, or the peer has answered."""
        sent = 0
        while True:
            try:
                piece = next(pieces, None)
            except Exception as error:
                raise RequestFailed(f"the request's body failed: {error!r}") from error
            if piece is None:
                break
            sent += len(piece)
            if length is not None and sent > length:
                raise RequestFailed(f"the request's body is longer than its content-length of {length} bytes")
            if not self._transmit(encode_chunk(piece) if length is None else piece):
                return
        if length is not None and sent < length:
            raise RequestFailed(f"the request's body ended after {sent} bytes of its content-length of {length}")
        if length is None and not self._transmit(LAST_CHUNK):
            return
        self.wire.request_sent = True

    def _transmit(self, data: bytes | memoryview) -> bool:
        """Send `data` as the peer takes it.  False: it has answered instead."""
        view = memoryview(data)
        ready = select.poll()
        ready.register(self._socket, select.POLLIN | select.POLLOUT)
        while view or (self._tls is not None and self._tls.unsent):
            seconds, which = self._time_left(self._timeouts.write, "write")
            found = ready.poll(None if seconds == NEVER else seconds * 1000)
            if not found:
                raise TimedOut(f"the peer took nothing in time ({which} timeout)", which)
            if found[0][1] & ~select.POLLOUT:
                if self._answered():
                    return False
                continue
            try:
                view = view[self._send_some(view) :]
            except OSError:
                # The peer may have answered before it closed: that is what counts then.
                if self._answered():
                    return False
        return True

    def _send_some(self, view: memoryview) -> int:
        """As much as the peer takes now, which may be nothing."""
        try:
            if self._tls is not None and not view:
                self._tls.flush(socket.MSG_DONTWAIT)  # the rest of the last record
                return 0
            return self._socket.send(view, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def _answered(self) -> bool:
        """Receive while sending: True once the final response has begun.  Raises WireError if the connection ended."""
        self._early += self._receive(socket.MSG_DONTWAIT)  # what made the socket readable may be no data, but TLS's own
        return any(type(event) is ResponseHead for event in self._early)

    def _await_continue(self) -> bool:
        """Until the peer says 100 or enough time passed (False: send the body), or it answers (True)."""
        until = monotonic() + CONTINUE_WAIT
        while (left := until - monotonic()) > 0:
            seconds, _ = self._time_left(left, "read")
            if self._readable.poll(seconds * 1000):
                if self._answered():
                    return True
                if any(type(event) is Informational and event.status == 100 for event in self._early):
                    return False
        return False

    # --- time

    def limit(self, deadline: float | None, name: TimeoutName) -> None:
        """Another deadline for the response that is under way."""
        self._deadline = deadline
        self._deadline_name = name

    def _time_left(self, seconds: float | None, name: TimeoutName) -> tuple[float, TimeoutName]:
        """How long the next step may take, and which timeout says so."""
        if self._deadline is None:
            return (NEVER if seconds is None else seconds), name
        now = monotonic()
        at, which = earlier(self._deadline, self._deadline_name, now=now, seconds=seconds, name=name)
        if at <= now:
            raise TimedOut(f"no complete response in time ({which} timeout)", which)
        return at - now, which

    def _set_timeout(self, option: int, seconds: float) -> None:
        whole = 0 if seconds == NEVER else max(1, int(seconds * 1_000_000))  # 0 would be none
        self._socket.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(*divmod(whole, 1_000_000)))


def _pieces(body: bytes) -> Iterator[memoryview]:
    view = memoryview(body)
    return (view[start : start + PIECE] for start in range(0, len(body), PIECE))
