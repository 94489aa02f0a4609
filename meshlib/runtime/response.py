"""What a mesh call gives back: the engine's response, with what the call went through, and errors in the mesh's own terms."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Generic, TypeVar

from meshlib.errors import CallError, RateLimited
from meshlib.flow.failing import reset_error
from meshlib.flow.limiting import BODY, STATUS
from meshlib.flow.record import CallRecord
from meshlib.flow.served import Served
from meshlib.model.call import Call, Headers
from meshlib.model.outcome import Outcome
from meshlib.runtime.http.aio_response import AsyncResponse
from meshlib.runtime.http.blocking_response import BlockingResponse
from meshlib.runtime.native import Response
from meshlib.wire.errors import WireError

E = TypeVar("E", AsyncResponse, BlockingResponse)


class _Exchange(Generic[E]):
    """The part that does not wait."""

    __slots__ = ("_body", "_call", "_clock", "_engine", "_headers", "record", "status")

    def __init__(self, call: Call, record: CallRecord, engine: E | None, served: Served, clock: Callable[[], float]) -> None:
        self._call = call
        self._clock = clock
        self._engine: E | None = engine
        self._body = served.body
        self._headers = served.headers
        self.record = record
        self.status = served.outcome.status

    def whole(self, body: bytes) -> Response:
        """What a native call gives back; `body` is all of it."""
        engine = self._engine
        if engine is None:
            return Response(self.status, self.headers, body, self.record, reason=b"", http_version=b"HTTP/1.1")
        headers = engine.headers if self._headers is None else self._headers
        return Response(self.status, headers, body, self.record, reason=engine.reason, http_version=engine.http_version)

    @property
    def reason(self) -> bytes:
        return self._engine.reason if self._engine is not None else b""

    @property
    def headers(self) -> Headers:
        """Raw pairs in wire order, as the route's header operations leave them."""
        if self._headers is not None:
            return self._headers
        return self._engine.headers if self._engine is not None else ()

    @property
    def http_version(self) -> bytes:
        return self._engine.http_version if self._engine is not None else b"HTTP/1.1"

    @property
    def body(self) -> bytes | None:
        """The whole body without waiting, if it is here already and nobody began to read; else None."""
        return self._engine.body if self._engine is not None else self._body

    @property
    def trailers(self) -> Headers:
        """Known once the body has been read."""
        return self._engine.trailers if self._engine is not None else ()

    def _translated(self, error: WireError) -> CallError:
        return reset_error(error.outcome(self._clock()), self.record, self._call)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status} {self.record!r}>"


def _limited(error: RateLimited) -> tuple[Call, CallRecord, None, Served, Callable[[], float]]:
    """What a server would have answered, had it been the one to refuse the call."""
    record = CallRecord(error.authority, 0.0)
    record.route, record.flags, record.status = error.route, error.flags, STATUS
    served = Served(Outcome(0.0, status=STATUS), None, BODY)
    served.headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", b"%d" % len(BODY)),
        *((name.encode("ascii"), value.encode("ascii")) for name, value in error.headers),
    ]
    return Call("", error.authority, "/", ()), record, None, served, float


class AsyncExchange(_Exchange[AsyncResponse]):
    """An open response.  Read it to its end or close it: until then it holds its connection and its endpoint's slot."""

    __slots__ = ()

    @classmethod
    def limited(cls, error: RateLimited) -> AsyncExchange:
        """A call that a rate limit has refused, as the response that its caller would get from a server."""
        return cls(*_limited(error))

    async def read(self) -> bytes:
        """The whole body.  Raises errors.CallError."""
        if self._engine is None:
            return self._body
        try:
            return await self._engine.read()
        except WireError as error:
            raise self._translated(error) from error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body as it comes.  Raises errors.CallError."""
        if self._engine is None:
            if self._body:
                yield self._body
            return
        try:
            async for chunk in self._engine:
                yield chunk
        except WireError as error:
            raise self._translated(error) from error

    async def aclose(self) -> None:
        """Give the rest of the body up.  Idempotent."""
        if self._engine is not None:
            await self._engine.aclose()


class Exchange(_Exchange[BlockingResponse]):
    """The same for blocking calls."""

    __slots__ = ()

    @classmethod
    def limited(cls, error: RateLimited) -> Exchange:
        """A call that a rate limit has refused, as the response that its caller would get from a server."""
        return cls(*_limited(error))

    def read(self) -> bytes:
        """The whole body.  Raises errors.CallError."""
        if self._engine is None:
            return self._body
        try:
            return self._engine.read()
        except WireError as error:
            raise self._translated(error) from error

    def __iter__(self) -> Iterator[bytes]:
        """The body as it comes.  Raises errors.CallError."""
        if self._engine is None:
            if self._body:
                yield self._body
            return
        try:
            yield from self._engine
        except WireError as error:
            raise self._translated(error) from error

    def close(self) -> None:
        """Give the rest of the body up.  Idempotent."""
        if self._engine is not None:
            self._engine.close()


Release = Callable[[], None]
