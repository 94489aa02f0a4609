"""The asyncio shell of one connection: moves bytes between a transport and `wire.ClientConnection`, and keeps the time.

One exchange costs one future and one write.  There is no task and, with timeouts, no timer per request: a connection has at
most one timer, which is left running when an exchange ends early and looks at the clock again when it fires.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from time import monotonic
from typing import Final, Protocol, cast

from meshlib.errors import TimeoutName
from meshlib.runtime.http.aio_response import AsyncResponse
from meshlib.runtime.http.connector import AsyncConnector
from meshlib.runtime.http.failures import lost
from meshlib.runtime.http.settings import NEVER, NO_TIMEOUTS, PoolSettings, Timeouts
from meshlib.wire.connection import ClientConnection, State
from meshlib.wire.errors import RequestFailed, TimedOut, WireError
from meshlib.wire.request import LAST_CHUNK, announced_length, encode_chunk, expects_continue
from meshlib.wire.response import END, Event, Informational, ResponseHead, Trailers

CONTINUE_WAIT: Final = 1.0  # seconds for a server to say 100 before the body is sent anyway (RFC 9110 section 10.1.1)
_IDLE: Final = State.IDLE
PIECE: Final = 128 * 1024  # a long body is written in pieces of this size


class Owner(Protocol):
    """What a connection tells its pool."""

    def connection_ready(self, connection: AsyncConnection) -> None: ...

    def connection_gone(self, connection: AsyncConnection) -> None: ...


class AsyncConnection(asyncio.Protocol):
    """See the top of this file.  Everything happens on `loop`."""

    transport: asyncio.Transport  # since connection_made, which comes first

    __slots__ = (
        "_deadline",
        "_deadline_name",
        "_expires",
        "_expires_name",
        "_go_on",
        "_held",
        "_owner",
        "_reading_paused",
        "_response",
        "_sender",
        "_timeouts",
        "_timer",
        "_timer_at",
        "_waiter",
        "_whole",
        "_writing_paused",
        "closed",
        "connector",
        "ends",
        "generation",
        "idle_since",
        "loop",
        "opened_at",
        "transport",
        "wire",
    )

    def __init__(self, owner: Owner, settings: PoolSettings, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.wire = ClientConnection(max_headers=settings.max_response_headers, max_head_bytes=settings.max_response_head_bytes)
        self.closed = False
        self.opened_at = monotonic()
        self.idle_since = self.opened_at
        self.connector: AsyncConnector | None = None  # what opened it; None: it is not open yet
        self.ends = NEVER  # no new request from then on
        self.generation = 0  # of the connector
        self._owner = owner
        self._waiter: asyncio.Future[AsyncResponse] | None = None
        self._response: AsyncResponse | None = None
        self._whole = False
        self._held: ResponseHead | None = None  # of a response that shall be handed over whole
        # Time.
        self._timeouts = NO_TIMEOUTS
        self._deadline: float | None = None
        self._deadline_name: TimeoutName = "deadline"
        self._expires = NEVER
        self._expires_name: TimeoutName = "read"
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = NEVER
        # Backpressure, both ways.
        self._reading_paused = False
        self._writing_paused = False
        self._go_on: asyncio.Future[None] | None = None  # the body's sender waits: for the transport, or for 100
        self._sender: asyncio.Task[None] | None = None

    # --- an exchange

    def begin(self, timeouts: Timeouts, deadline: float | None, deadline_name: TimeoutName, *, whole: bool) -> None:
        """The time that the next exchange has, and whether its caller wants the head only when the body is `whole`."""
        self._whole = whole
        self._timeouts = timeouts
        self._deadline = deadline
        self._deadline_name = deadline_name

    def exchange(self, data: bytes, *, head_only: bool, close: bool) -> asyncio.Future[AsyncResponse]:
        """Write a whole request.  The future gets the response, or a WireError."""
        self.wire.start(head_only=head_only, close=close)
        if self._deadline is not None or self._timeouts.read is not None:
            self.expect_read()
        self._waiter = waiter = self.loop.create_future()
        self.transport.write(data)
        return waiter

    def stream(
        self, head: bytes, body: bytes | AsyncIterable[bytes], *, head_only: bool, close: bool
    ) -> asyncio.Future[AsyncResponse]:
        """Write the head now, and the body piece by piece as the peer takes it; else as `exchange`."""
        pieces = _pieces(body) if isinstance(body, bytes) else aiter(body)
        self.wire.start(head_only=head_only, close=close, sent=False)
        self.expect_nothing()
        self._waiter = waiter = self.loop.create_future()
        self.transport.write(head)
        self._sender = self.loop.create_task(self._send_body(pieces, announced_length(head), expect=expects_continue(head)))
        return waiter

    def cancelled(self, waiter: asyncio.Future[AsyncResponse]) -> None:
        """Whoever waited for `waiter` does so no more."""
        if waiter is self._waiter:
            self.abort(None)
        elif not waiter.cancelled() and waiter.exception() is None:
            waiter.result().abandon()

    def abort(self, error: WireError | None) -> None:
        """Close at once; the exchange under way gets `error`."""
        if self.closed:
            return
        self.closed = True
        self.wire.close()
        self._expires = NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._stop_sending()
        self.transport.abort()
        self._owner.connection_gone(self)
        waiter, self._waiter = self._waiter, None
        response, self._response = self._response, None
        if response is not None:
            response.finish(error or RequestFailed("the connection was closed"))
        if waiter is not None and not waiter.done() and error is not None:
            waiter.set_exception(error)

    def fail(self, error: WireError) -> None:
        """`abort`, with what is known about the exchange put into `error`."""
        error.responded = error.responded or self.wire.responded
        error.reused = self.wire.exchanges > 1
        self.abort(error)

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            events = self.wire.receive(data)
        except WireError as error:
            self.fail(error)
            return
        waiter, count = self._waiter, len(events)
        if waiter is not None:
            # Nearly all responses come in one piece, or in two: head and body.
            head, first = self._held, events[0] if count else None
            if count == 3 and type(first) is ResponseHead and events[2] is END:
                body: bytes = events[1]  # type: ignore[assignment]  # nothing else stands between them
                self._answer(waiter, AsyncResponse(first, [body] if body else [], None))
                return
            if head is not None:
                self._held = None
                if count == 2 and events[1] is END:
                    self._answer(waiter, AsyncResponse(head, [cast("bytes", first)], None))
                    return
                self._begin(head, events)
            elif count == 1 and self._whole and self._sender is None and type(first) is ResponseHead:
                self._held = first
                self.expect_read()
                return
        self._take(events)
        if self._whole and self._waiter is not None:
            self.expect_read()  # nobody else watches over the body

    def eof_received(self) -> bool:
        try:
            events = self.wire.receive_eof()
            head, self._held = self._held, None
            if head is not None:
                self._begin(head, events)
            self._take(events)
        except WireError as error:
            self.fail(error)
        self.abort(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed:
            first = self.wire.exchanges <= 1 and not self.wire.responded
            self.fail(lost(exc, first=first, replayable=self._sender is None))

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._continue_sending()

    # --- the response

    def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            response = self._response
            if type(event) is bytes:
                if response is not None and response.feed(event) and not self._reading_paused:
                    self._reading_paused = True
                    self.transport.pause_reading()
            elif event is END:
                self._complete()
            elif type(event) is ResponseHead:
                self._begin(event, events)
            elif type(event) is Trailers:
                if response is not None:
                    response.trailers = event.headers
            elif type(event) is Informational and event.status == 100:
                self._continue_sending()

    def _begin(self, head: ResponseHead, events: Sequence[Event]) -> None:
        """The head is there, and the body is not, or not whole."""
        if self._deadline_name == "per_try" and not self._whole:
            self._deadline = None  # it was for the head; `limit` says what the body has
        self.expect_nothing()
        # The peer made its mind up without the rest of the request; what it still reads is anybody's guess.
        self._stop_sending()
        waiter = self._waiter
        self._waiter = None
        self._response = response = AsyncResponse(head, [], self)
        response.open(whole=self._whole)
        if waiter is None or waiter.done():
            self.abort(None)
        elif self._whole or events[-1] is END:
            # Handed over by `_complete`, after the pieces: a body that is here must be seen to be here.
            self._waiter = waiter
        else:
            waiter.set_result(response)

    def _complete(self) -> None:
        response, waiter = self._response, self._waiter
        self._response = self._waiter = None
        if response is None:
            return
        response.finish(None)
        if waiter is not None:
            self._answer(waiter, response)
        else:
            self._end_exchange()

    def _answer(self, waiter: asyncio.Future[AsyncResponse], response: AsyncResponse) -> None:
        self._waiter = None
        if waiter.done():
            self.abort(None)  # cancelled, and `cancelled` did not run yet
            return
        if self.wire.state is _IDLE and not self._reading_paused:
            self._expires = NEVER
            self._owner.connection_ready(self)
        else:
            self._end_exchange()
        waiter.set_result(response)

    def _end_exchange(self) -> None:
        self._expires = NEVER
        self.resume_reading()
        if self.wire.state is _IDLE:
            self._owner.connection_ready(self)
        else:
            self.abort(None)

    def resume_reading(self) -> None:
        if self._reading_paused and not self.closed:
            self._reading_paused = False
            self.transport.resume_reading()

    # --- the request's body

    async def _send_body(self, pieces: AsyncIterator[bytes | memoryview], length: int | None, *, expect: bool) -> None:
        try:
            if expect:
                await self._pause(CONTINUE_WAIT)
            try:
                await self._send_pieces(pieces, length)
            finally:
                if isinstance(pieces, AsyncGenerator):
                    await pieces.aclose()
        except WireError as error:
            self.fail(error)
        except (Exception, asyncio.CancelledError) as error:
            if self._sender is None:
                return  # `_stop_sending` has cancelled it: nobody waits for this body any more
            failed = RequestFailed(f"the request's body failed: {error!r}")
            failed.__cause__ = error
            self.fail(failed)
        else:
            self._sender = None
            self.wire.request_sent = True
            self.expect_read()

    async def _send_pieces(self, pieces: AsyncIterator[bytes | memoryview], length: int | None) -> None:
        transport = self.transport
        sent = 0
        async for piece in pieces:
            sent += len(piece)
            if length is not None and sent > length:
                raise RequestFailed(f"the request's body is longer than its content-length of {length} bytes")
            transport.write(encode_chunk(piece) if length is None else piece)
            if self._writing_paused:
                await self._drain()
        if length is None:
            transport.write(LAST_CHUNK)
        elif sent < length:
            raise RequestFailed(f"the request's body ended after {sent} bytes of its content-length of {length}")
        while self._writing_paused:
            await self._drain()

    async def _drain(self) -> None:
        while self._writing_paused:
            if not await self._pause(self._timeouts.write) and self._writing_paused:
                raise TimedOut(f"the peer took nothing for {self._timeouts.write} s (write timeout)", "write")

    async def _pause(self, seconds: float | None) -> bool:
        """Until `_continue_sending`; False if `seconds` passed before."""
        self._go_on = self.loop.create_future()
        try:
            async with asyncio.timeout(seconds):
                await self._go_on
        except TimeoutError:
            return False
        finally:
            self._go_on = None
        return True

    def _stop_sending(self) -> None:
        sender, self._sender = self._sender, None
        # The body's own failure comes through here too: a task does not cancel itself.
        if sender is not None and sender is not asyncio.current_task():
            sender.cancel()

    def _continue_sending(self) -> None:
        if self._go_on is not None and not self._go_on.done():
            self._go_on.set_result(None)

    # --- time

    def expect_read(self) -> None:
        """From now on the peer has to send something within the read timeout."""
        read, deadline = self._timeouts.read, self._deadline
        if read is None and deadline is None:
            return
        now = monotonic()
        if read is None or (deadline is not None and deadline < now + read):
            self._expires = expires = cast("float", deadline)
            self._expires_name = self._deadline_name
        else:
            self._expires = expires = now + read
            self._expires_name = "read"
        if expires < self._timer_at:
            self._arm(expires, now)

    def limit(self, deadline: float | None, name: TimeoutName) -> None:
        """Another deadline for the response that is under way."""
        self._deadline = deadline
        self._deadline_name = name
        self.expect_nothing()

    def expect_nothing(self) -> None:
        """Only the deadline counts: nobody waits for the peer."""
        self._expires_name = self._deadline_name
        if self._deadline is None or self.closed:
            self._expires = NEVER
        else:
            self._expires = self._deadline
            if self._deadline < self._timer_at:
                self._arm(self._deadline, monotonic())

    def _arm(self, at: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self.loop.call_later(max(0.0, at - now), self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._timer_at = NEVER
        if self._expires == NEVER:
            return
        now = monotonic()
        if self._expires > now:
            self._arm(self._expires, now)
            return
        # If the loop was blocked, the answer may lie in the socket, unread: let the loop look before judging.  (Not with a
        # delay of 0: uvloop would run that before it polls.)
        self.loop.call_later(0.001, self._expire, self._expires)

    def _expire(self, expired: float) -> None:
        if self.closed or self._expires == NEVER:
            return
        if self._expires != expired:
            self._arm(self._expires, monotonic())
            return
        what = "no complete response" if self._response is None else "the response's body did not arrive"
        self.fail(TimedOut(f"{what} in time ({self._expires_name} timeout)", self._expires_name))


async def _pieces(body: bytes) -> AsyncIterator[memoryview]:
    view = memoryview(body)
    for start in range(0, len(body), PIECE):
        yield view[start : start + PIECE]
