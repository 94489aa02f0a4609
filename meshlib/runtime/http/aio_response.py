"""A response of the asyncio engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from meshlib.errors import TimeoutName
from meshlib.runtime.http.settings import NEVER
from meshlib.wire.errors import RequestFailed, WireError
from meshlib.wire.response import HeaderPairs, ResponseHead

if TYPE_CHECKING:
    from meshlib.runtime.http.aio_connection import AsyncConnection

HIGH_WATER: Final = 256 * 1024  # bytes that are kept for a slow reader before the peer is made to wait


class AsyncResponse:
    """Status and headers are there; the body may still be on its way.

    Read it by `read`, or once by ``async for``; or give it up by `aclose`, which closes an unfinished connection.
    A body that ends too early raises WireError, always.
    """

    __slots__ = (
        "_buffered",
        "_chunks",
        "_connection",
        "_error",
        "_high_water",
        "_on_close",
        "_reader",
        "headers",
        "http_version",
        "reason",
        "status",
        "trailers",
    )

    _buffered: int  # these are there while the connection is
    _high_water: float
    _reader: asyncio.Future[None] | None

    def __init__(self, head: ResponseHead, chunks: list[bytes], connection: AsyncConnection | None) -> None:
        self.status = head.status
        self.reason = head.reason
        self.headers = head.headers
        self.http_version = head.http_version
        self.trailers: HeaderPairs = ()
        self._chunks = chunks
        self._connection = connection  # None once the response is complete, failed or given up
        self._error: WireError | None = None
        self._on_close: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<AsyncResponse {self.status} {'open' if self._connection else 'closed'}>"

    @property
    def closed(self) -> bool:
        """Nothing more will arrive; what did may still be unread."""
        return self._connection is None

    @property
    def on_close(self) -> Callable[[], None] | None:
        """Called once, when the last byte of the body arrived, or the body failed or was given up; at once if that was before.

        It runs inside the event loop's own callbacks: it must be short and must not raise.
        """
        return self._on_close

    @on_close.setter
    def on_close(self, callback: Callable[[], None]) -> None:
        if self._connection is None:
            callback()
        else:
            self._on_close = callback

    @property
    def body(self) -> bytes | None:
        """The whole body without waiting, if it is here already and nobody began to read; else None."""
        if self._connection is not None or self._error is not None:
            return None
        chunks = self._chunks
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def read(self) -> bytes:
        """The (rest of the) body.  Raises WireError if it does not arrive whole."""
        if self._connection is not None:
            self._high_water = NEVER  # all of it is wanted
            self._connection.resume_reading()
            while self._connection is not None:
                await self._wait()
        if self._error is not None:
            raise self._error
        chunks = self._chunks
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def __aiter__(self) -> AsyncResponse:
        return self

    async def __anext__(self) -> bytes:
        """What arrived since the last call, in pieces of the network's making.  Raises WireError as `read` does."""
        while not self._chunks:
            if self._connection is None:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            await self._wait()
        chunks = self._chunks
        piece = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        if self._connection is not None:
            self._buffered = 0
            self._connection.resume_reading()
        return piece

    async def aclose(self) -> None:
        """Give the rest up.  Does nothing if everything has arrived."""
        self.abandon()
        self._chunks.clear()

    def abandon(self) -> None:
        """`aclose` for callers that cannot await."""
        if self._connection is not None:
            self._connection.abort(RequestFailed("the response was closed before its end", responded=True))

    def limit(self, deadline: float | None, name: TimeoutName) -> None:
        """Give the rest of the body until `deadline` (None: for ever), in the place of what the request was sent with."""
        if self._connection is not None:
            self._connection.limit(deadline, name)

    async def _wait(self) -> None:
        connection = self._connection
        assert connection is not None
        self._reader = reader = connection.loop.create_future()
        connection.expect_read()
        try:
            await reader
        except asyncio.CancelledError:
            self.abandon()
            raise
        finally:
            self._reader = None
            connection.expect_nothing()

    # --- called by the connection

    def open(self, *, whole: bool) -> None:
        """The body did not come with the head: get ready for its pieces.  `whole`: keep them all."""
        self._reader = None
        self._buffered = 0
        self._high_water = NEVER if whole else HIGH_WATER

    def feed(self, piece: bytes) -> bool:
        """True: enough for now, the peer should wait."""
        self._chunks.append(piece)
        self._buffered += len(piece)
        self._wake()
        return self._buffered > self._high_water

    def finish(self, error: WireError | None) -> None:
        """No more pieces."""
        self._connection = None
        self._error = error
        self._wake()
        callback, self._on_close = self._on_close, None
        if callback is not None:
            callback()

    def _wake(self) -> None:
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)
