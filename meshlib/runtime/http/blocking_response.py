"""A response of the blocking engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from meshlib.errors import TimeoutName
from meshlib.wire.errors import RequestFailed, WireError
from meshlib.wire.response import HeaderPairs, ResponseHead

if TYPE_CHECKING:
    from meshlib.runtime.http.blocking_connection import BlockingConnection


class BlockingResponse:
    """Status and headers are there; the body is read from the socket as it is asked for.

    Read it by `read`, or once by iteration; or give it up by `close`, which closes an unfinished connection.  A body that
    ends too early raises WireError, always.  For one thread at a time.
    """

    __slots__ = ("_chunks", "_connection", "_error", "_on_close", "headers", "http_version", "reason", "status", "trailers")

    def __init__(self, head: ResponseHead, chunks: list[bytes], connection: BlockingConnection | None) -> None:
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
        return f"<BlockingResponse {self.status} {'open' if self._connection else 'closed'}>"

    @property
    def closed(self) -> bool:
        """Nothing more will arrive; what did may still be unread."""
        return self._connection is None

    @property
    def on_close(self) -> Callable[[], None] | None:
        """Called once, when the last byte of the body arrived, or the body failed or was given up; at once if that was before.

        It must be short and must not raise.
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

    def read(self) -> bytes:
        """The (rest of the) body.  Raises WireError if it does not arrive whole."""
        while self._connection is not None:
            self._connection.advance(self)
        if self._error is not None:
            raise self._error
        chunks = self._chunks
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """What the network gives next.  Raises WireError as `read` does."""
        while not self._chunks:
            if self._connection is None:
                if self._error is not None:
                    raise self._error
                raise StopIteration
            self._connection.advance(self)
        chunks = self._chunks
        piece = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        return piece

    def close(self) -> None:
        """Give the rest up.  Does nothing if everything has arrived."""
        if self._connection is not None:
            self._connection.abort(RequestFailed("the response was closed before its end", responded=True))
        self._chunks.clear()

    def limit(self, deadline: float | None, name: TimeoutName) -> None:
        """Give the rest of the body until `deadline` (None: for ever), in the place of what the request was sent with."""
        if self._connection is not None:
            self._connection.limit(deadline, name)

    # --- called by the connection

    def feed(self, piece: bytes) -> None:
        self._chunks.append(piece)

    def finish(self, error: WireError | None) -> None:
        """No more pieces."""
        self._connection = None
        self._error = error
        callback, self._on_close = self._on_close, None
        if callback is not None:
            callback()
