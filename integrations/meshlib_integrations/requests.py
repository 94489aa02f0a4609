"""meshlib under requests: ``session.mount("http://", MeshAdapter(mesh))``.

What a call went through is in ``response.raw.meshlib``, a `meshlib.CallRecord`; ``isinstance(response.raw, MeshResponse)``
tells whether it went through the mesh.  requests has no place for options of one call, so overrides belong to an adapter,
mounted for the prefix that they are meant for:
``session.mount("http://reviews/", MeshAdapter(mesh, overrides=Overrides(retries=0)))``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

import requests
from requests import exceptions
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.cookies import extract_cookies_to_jar
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers
from urllib3 import HTTPHeaderDict, HTTPResponse
from urllib3.util import Timeout

from meshlib import Mesh, errors
from meshlib.lowlevel import CallRecord, Exchange, Overrides, Request, Timeouts, authority_of
from meshlib_integrations._errors import Translation

__all__ = ["MeshAdapter", "MeshResponse"]

_BLOCK = 64 * 1024  # bytes read from a file at a time
_FAILED = (errors.CallError, errors.RequestError, errors.ControlError)
_SENDING = Translation(
    {
        errors.RouteError: exceptions.ConnectionError,
        errors.UpstreamError: exceptions.ConnectionError,
        errors.ConnectTimeout: exceptions.ConnectTimeout,
        errors.Overflow: exceptions.ConnectionError,
        errors.PoolTimeout: exceptions.ConnectTimeout,  # both promise that nothing was sent
        errors.ControlError: exceptions.ConnectionError,
        errors.TimeoutExceeded: exceptions.ReadTimeout,
        errors.RequestError: exceptions.RequestException,
        errors.CallError: exceptions.RequestException,
    },
    {"connect": exceptions.ConnectTimeout, "pool": exceptions.ConnectTimeout, "write": exceptions.Timeout},
)
_READING = Translation(
    {
        # Where bare requests has a ConnectionError for a timeout in the body, this is a timeout as well.
        errors.TimeoutExceeded: exceptions.ReadTimeout,
        errors.CallError: exceptions.ChunkedEncodingError,  # "the connection broke in the body", chunked or not
    },
    {},
)


class MeshAdapter(BaseAdapter):
    """Calls to the mesh's hosts go through the mesh; all others through `outside`, unchanged.

    `outside` is a plain ``HTTPAdapter()`` unless given.  It is closed together with this adapter; the mesh is not.
    """

    def __init__(self, mesh: Mesh, outside: BaseAdapter | None = None, *, overrides: Overrides | None = None) -> None:
        super().__init__()
        self._mesh = mesh
        self._outside = outside if outside is not None else HTTPAdapter()
        self._overrides = overrides

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Called by the session.  Raises errors that are meshlib's and requests' at once."""
        try:
            exchange = self._mesh.exchange(self._request(request, timeout))
        except _FAILED as error:
            raise _SENDING.translate(error, request=request) from error.__cause__
        if exchange is None:
            return self._outside.send(request, stream=stream, timeout=timeout, verify=verify, cert=cert, proxies=proxies)
        return self._response(request, exchange)

    def close(self) -> None:
        self._outside.close()

    def _request(self, prepared: requests.PreparedRequest, timeout: Any) -> Request:
        url = urlsplit(prepared.url or "")
        headers = [(_raw(name), _raw(value)) for name, value in prepared.headers.items()]
        body: Any = prepared.body
        content: bytes | Iterable[bytes]
        if body is None:
            content = b""
        elif isinstance(body, str | bytes | bytearray | memoryview):
            content = body.encode() if isinstance(body, str) else bytes(body)
            # Its length is known, which goes before chunks: one request cannot say both (RFC 9112 section 6.2).
            headers = [pair for pair in headers if pair[0].lower() != b"transfer-encoding"]
        else:
            content = _pieces(body)
        return Request(
            prepared.method or "GET",
            url.scheme,
            authority_of(url.hostname or "", url.port, url.scheme),
            prepared.path_url,
            headers,
            content,
            host_header=url.netloc.rpartition("@")[2],
            timeouts=_timeouts(timeout),
            overrides=self._overrides,
        )

    def _response(self, request: requests.PreparedRequest, exchange: Exchange) -> requests.Response:
        raw = MeshResponse(exchange, request)
        response = requests.Response()
        response.status_code = exchange.status
        response.headers = CaseInsensitiveDict(raw.headers)
        response.encoding = get_encoding_from_headers(response.headers)
        response.raw = raw
        response.reason = raw.reason or ""
        response.url = request.url or ""
        response.request = request
        response.connection = self  # type: ignore[assignment]  # any adapter: what HTTPDigestAuth sends again by
        extract_cookies_to_jar(response.cookies, request, raw)  # type: ignore[no-untyped-call]
        return response


class MeshResponse(HTTPResponse):
    """urllib3's response over a mesh exchange: the same decoding, the same iteration.  ``meshlib`` is the call's record."""

    def __init__(self, exchange: Exchange, request: requests.PreparedRequest) -> None:
        headers = HTTPHeaderDict()
        for name, value in exchange.headers:
            headers.add(name.decode("latin-1"), value.decode("latin-1"))
        super().__init__(
            _Body(exchange),  # type: ignore[arg-type]  # urllib3 asks for IO[Any] and uses read, read1, close and closed
            headers,
            exchange.status,
            version=10 if exchange.http_version == b"HTTP/1.0" else 11,
            reason=exchange.reason.decode("latin-1"),
            preload_content=False,
            decode_content=False,
            original_response=_Head(headers),  # type: ignore[arg-type]  # as above: msg, close and isclosed
            request_method=request.method,
            request_url=request.url,
        )
        self.meshlib: CallRecord = exchange.record
        self._prepared = request

    def read(self, *args: Any, **options: Any) -> bytes:
        try:
            return super().read(*args, **options)
        except errors.CallError as error:
            raise _READING.translate(error, request=self._prepared) from error.__cause__

    def stream(self, amt: int | None = 2**16, decode_content: bool | None = None) -> Iterator[bytes]:  # type: ignore[override]
        """Chunked bodies come as they arrive, as from urllib3's own connections; others in pieces of `amt` bytes."""
        if not self.chunked or not hasattr(self, "read1"):  # urllib3 1.x has none
            yield from super().stream(amt, decode_content)
            return
        try:
            while not self.closed:
                piece = self.read1(amt, decode_content)
                if piece:
                    yield piece
        except errors.CallError as error:
            raise _READING.translate(error, request=self._prepared) from error.__cause__


class _Body:
    """An exchange as the file that urllib3 reads."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._pieces = iter(exchange)
        self._rest = memoryview(b"")
        self.closed = False

    def read1(self, amt: int | None = None) -> bytes:
        """What is there, up to `amt` bytes; nothing: the end."""
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        size = len(self._rest) if amt is None or amt < 0 else amt
        piece, self._rest = self._rest[:size], self._rest[size:]
        return bytes(piece)

    def read(self, amt: int | None = None) -> bytes:
        """`amt` bytes, fewer only at the end; without it, all there are."""
        if amt is None or amt < 0:
            return b"".join([bytes(self._rest), *self._pieces])
        pieces: list[bytes] = []
        while amt > 0 and (piece := self.read1(amt)):
            pieces.append(piece)
            amt -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        self.closed = True
        self._rest = memoryview(b"")
        self._exchange.close()


class _Head:
    """Where requests looks for cookies: the response of http.client that urllib3 would have."""

    def __init__(self, headers: HTTPHeaderDict) -> None:
        self.msg = Message()
        for name, value in headers.iteritems():
            self.msg[name] = value

    def close(self) -> None:
        """Nothing to close: the body is closed on its own."""

    def isclosed(self) -> bool:
        return True


def _raw(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


def _pieces(body: Any) -> Iterator[bytes]:
    """A file by blocks, anything else by its own iteration; text as UTF-8, as urllib3 does."""
    for piece in _blocks(body) if hasattr(body, "read") else body:
        yield piece.encode() if isinstance(piece, str) else piece


def _blocks(file: Any) -> Iterator[str | bytes]:
    while block := file.read(_BLOCK):
        yield block


def _timeouts(timeout: Any) -> Timeouts | None:
    """None, seconds, ``(connect, read)`` or urllib3's Timeout."""
    if timeout is None:
        return None
    if isinstance(timeout, Timeout):
        clock = timeout.clone()
        clock.start_connect()  # only then does it say what its total leaves for reading
        return Timeouts(_seconds(clock.connect_timeout), _seconds(clock.read_timeout))
    if isinstance(timeout, tuple):
        if len(timeout) != 2:
            raise ValueError(f"timeout {timeout!r} must be seconds or a (connect, read) tuple")
        return Timeouts(_seconds(timeout[0]), _seconds(timeout[1]))
    return Timeouts(_seconds(timeout), _seconds(timeout))


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
