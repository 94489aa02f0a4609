"""One request's way back: what an instance answers, as a response of the engine reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from meshlib.errors import TimeoutName
from meshlib.model.call import Headers
from meshlib.runtime.http.aio_response import AsyncResponse
from meshlib.testing.virtual_time import VirtualTime
from meshlib.wire.errors import TimedOut, WireError
from meshlib.wire.response import ResponseHead

if TYPE_CHECKING:
    from meshlib.runtime.http.aio_connection import AsyncConnection

_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


class Stream:
    """Stands where a connection of the engine stands: an instance writes into it, a response takes from it.

    Everything is on the simulation's loop, but for what the response itself calls.
    """

    def __init__(self, time: VirtualTime, loop: asyncio.AbstractEventLoop, *, head_only: bool) -> None:
        """`loop`: the caller's."""
        self.loop = loop
        self.status = 0
        self.gone = asyncio.Event()
        self.on_end: Callable[[], None] | None = None
        self._time = time
        self._head_only = head_only
        self._head: ResponseHead | None = None
        self._chunks: list[bytes] = []
        self._error: WireError | None = None
        self._complete = False
        self._response: AsyncResponse | None = None
        self._news = asyncio.Event()
        self._deadline: float | None = None
        self._name: TimeoutName = "deadline"
        self._read: float | None = None
        self._per_try = False
        self._timer: asyncio.TimerHandle | None = None

    # --- for who sends

    def expect(self, deadline: float | None, name: TimeoutName, read: float | None, *, per_try: bool) -> None:
        """The request is under way.  `read`: seconds between two pieces of the response; `per_try`: up to its head only."""
        self._deadline, self._name, self._read, self._per_try = deadline, name, read, per_try
        self._arm()

    async def head(self, *, whole: bool) -> None:
        """Wait for the head, or for all of it.  Raises WireError."""
        try:
            while not self._complete and self._error is None and (whole or self._head is None):
                await self._next()
        except asyncio.CancelledError:
            self.ended_here()
            raise
        if self._error is not None and (whole or self._head is None):
            raise self._error

    def response(self) -> AsyncResponse:
        """The response, as far as it has come; what follows is handed to it."""
        assert self._head is not None
        response = AsyncResponse(self._head, self._chunks, None if self._complete else cast("AsyncConnection", self))
        if not self._complete:
            response.open(whole=False)
        if self._error is not None:
            response.finish(self._error)
        self._response, self._chunks = response, []
        return response

    def ended_here(self) -> None:
        """The caller has gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.gone.set()
        ended, self.on_end = self.on_end, None
        if ended is not None:
            ended()

    # --- for who answers (`Responding`)

    def start(self, status: int, headers: Headers) -> None:
        if self._is_over():
            return
        self.status = status
        self._head = ResponseHead(status, _PHRASES.get(status, b""), b"HTTP/1.1", tuple(headers))
        if self._per_try:
            self._deadline = None
        self._progress()

    def write(self, piece: bytes) -> None:
        if self._is_over() or not piece or self._head_only or self.status in (204, 304):
            return
        response = self._response
        if response is None:
            self._chunks.append(piece)
        else:
            self._hand(lambda: response.feed(piece))
        self._progress()

    def end(self, error: WireError | None = None) -> None:
        if self._is_over():
            return
        self._error = error
        self._complete = error is None
        self.ended_here()
        response = self._response
        if response is not None:
            self._hand(lambda: response.finish(error))
        self._news.set()

    # --- for the response (what it calls of its connection)

    def expect_read(self) -> None:
        """The caller waits: let time pass for it."""
        if self.loop is not self._time.loop:
            self._time.attend(self.loop)

    def expect_nothing(self) -> None:
        if self.loop is not self._time.loop:
            self._time.leave(self.loop)

    def resume_reading(self) -> None:
        """Nothing was held back."""

    def limit(self, deadline: float | None, name: TimeoutName) -> None:
        self._deadline, self._name = deadline, name
        self._time.loop.call_soon_threadsafe(self._arm)

    def abort(self, error: WireError) -> None:
        """The caller gives the rest up."""
        self._error = self._error or error
        self._time.loop.call_soon_threadsafe(self.ended_here)
        if self._response is not None:
            self._response.finish(error)

    # --- both

    def _is_over(self) -> bool:
        return self._complete or self._error is not None

    async def _next(self) -> None:
        if not self._is_over():
            self._news.clear()
            await self._news.wait()

    def _progress(self) -> None:
        self._news.set()
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_over():
            return
        loop = self._time.loop
        at, name = self._deadline, self._name
        if self._read is not None and (at is None or loop.time() + self._read < at):
            at, name = loop.time() + self._read, "read"
        if at is not None:
            self._timer = loop.call_at(at, self._expire, name)

    def _expire(self, name: TimeoutName) -> None:
        self.end(TimedOut(f"no response in time ({name} timeout)", name, responded=self._head is not None))

    def _hand(self, act: Callable[[], object]) -> None:
        """On the caller's own loop, if it has another one."""
        if self.loop is self._time.loop:
            act()
        else:
            try:
                self.loop.call_soon_threadsafe(act)
            except RuntimeError:
                pass  # it is closed, and its callers with it
