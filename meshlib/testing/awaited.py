"""A coroutine's response, for a caller that blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from meshlib.errors import TimeoutName
from meshlib.runtime.http.aio_response import AsyncResponse
from meshlib.runtime.http.blocking_response import BlockingResponse
from meshlib.runtime.response import AsyncExchange, Exchange
from meshlib.testing.virtual_time import VirtualTime
from meshlib.wire.response import HeaderPairs


class AwaitedResponse(BlockingResponse):
    """The engine's blocking response, on top of an asynchronous one whose event loop is that of `time`."""

    __slots__ = ("_awaited", "_time")

    def __init__(self, awaited: AsyncResponse, time: VirtualTime) -> None:
        self._awaited = awaited
        self._time = time
        self.status = awaited.status
        self.reason = awaited.reason
        self.headers = awaited.headers
        self.http_version = awaited.http_version

    @property
    def trailers(self) -> HeaderPairs:  # type: ignore[override]  # there it is an attribute
        return self._awaited.trailers

    @property
    def closed(self) -> bool:
        return self._awaited.closed

    @property
    def on_close(self) -> Callable[[], None] | None:
        return self._awaited.on_close

    @on_close.setter
    def on_close(self, callback: Callable[[], None]) -> None:
        self._awaited.on_close = callback

    @property
    def body(self) -> bytes | None:
        return self._awaited.body

    def read(self) -> bytes:
        return self._time.run(self._awaited.read())

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = self._time.run(self._next())
        if piece is None:
            raise StopIteration
        return piece

    def close(self) -> None:
        self._awaited.abandon()

    def limit(self, deadline: float | None, name: TimeoutName) -> None:
        self._awaited.limit(deadline, name)

    async def _next(self) -> bytes | None:
        """None: that was all.  No coroutine may raise StopIteration."""
        try:
            return await self._awaited.__anext__()
        except StopAsyncIteration:
            return None


class AwaitedExchange(Exchange):
    """An exchange that a coroutine has begun."""

    __slots__ = ()

    def __init__(self, awaited: AsyncExchange, time: VirtualTime) -> None:
        engine = awaited._engine
        self._call = awaited._call
        self._clock = awaited._clock
        self._engine = AwaitedResponse(engine, time) if engine is not None else None
        self._body = awaited._body
        self._headers = awaited._headers
        self.record = awaited.record
        self.status = awaited.status
