"""What httpx and its continuation httpx2 have in common: all of it but the name of the package.

Written against the API that both share; `Dialect` holds one package's own classes.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any, Generic, Protocol, TypeVar, cast
from urllib.request import getproxies, proxy_bypass

from meshlib import Mesh, errors
from meshlib.lowlevel import AsyncExchange, Exchange, Request, Timeouts, authority_of
from meshlib_integrations._errors import Translation
from meshlib_integrations._overrides import read_overrides

_FAILED = (errors.CallError, errors.RequestError, errors.ControlError)


class URL(Protocol):
    """The parts of ``httpx.URL`` that are used here."""

    @property
    def raw_scheme(self) -> bytes: ...
    @property
    def scheme(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def netloc(self) -> bytes: ...
    @property
    def raw_path(self) -> bytes: ...


class RawHeaders(Protocol):
    """The part of ``httpx.Headers`` that is used here."""

    @property
    def raw(self) -> list[tuple[bytes, bytes]]: ...


class AnyRequest(Protocol):
    """``httpx.Request`` or ``httpx2.Request``."""

    method: str
    extensions: Any

    @property
    def url(self) -> URL: ...
    @property
    def headers(self) -> RawHeaders: ...
    @property
    def stream(self) -> object: ...
    def read(self) -> bytes: ...


Q = TypeVar("Q", bound=AnyRequest)
R = TypeVar("R")
Q_contra = TypeVar("Q_contra", bound=AnyRequest, contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class BlockingTransport(Protocol[Q_contra, R_co]):
    """``httpx.BaseTransport`` or ``httpx2.BaseTransport``."""

    def handle_request(self, request: Q_contra, /) -> R_co: ...
    def close(self) -> None: ...


class AsyncTransport(Protocol[Q_contra, R_co]):
    """``httpx.AsyncBaseTransport`` or ``httpx2.AsyncBaseTransport``."""

    async def handle_async_request(self, request: Q_contra, /) -> R_co: ...
    async def aclose(self) -> None: ...


# --- requests


class Dialect(Generic[Q, R]):
    """One package's classes, and the way between its requests and responses and the mesh's."""

    def __init__(self, package: ModuleType) -> None:
        self._bytes = package.ByteStream
        self._response: Callable[..., R] = package.Response
        self._blocking_body = type("MeshStream", (_BlockingBody, package.SyncByteStream), {})
        self._async_body = type("AsyncMeshStream", (_AsyncBody, package.AsyncByteStream), {})
        self.transport: Callable[..., BlockingTransport[Q, R]] = package.HTTPTransport
        self.async_transport: Callable[..., AsyncTransport[Q, R]] = package.AsyncHTTPTransport
        self._translation = _translation(package)

    def request(self, request: Q) -> Request:
        """Cheap on purpose: it runs for every call.  Raises RequestError for overrides that make no sense."""
        url = request.url
        scheme, authority, host_header = _destination(url.raw_scheme, url.netloc)
        headers = request.headers.raw
        body: bytes | Iterable[bytes] | AsyncIterable[bytes]
        if isinstance(request.stream, self._bytes):
            body = request.read()
            if body:
                # Its length is known, which goes before chunks: one request cannot say both (RFC 9112 section 6.2).
                headers = [pair for pair in headers if pair[0].lower() != b"transfer-encoding"]
        else:
            body = cast("Iterable[bytes] | AsyncIterable[bytes]", request.stream)
        extensions = request.extensions
        limits = extensions.get("timeout")
        return Request(
            request.method,
            scheme,
            authority,
            url.raw_path.decode("ascii"),
            headers,
            body,
            host_header=host_header,
            timeouts=None if limits is None else _timeouts(limits),
            overrides=read_overrides(extensions.get("meshlib")) if "meshlib" in extensions else None,
        )

    def response(self, exchange: Exchange, request: Q) -> R:
        body = exchange.body
        stream = self._blocking_body(exchange, request, self) if body is None else self._bytes(body)
        return self._assembled(exchange, stream)

    def async_response(self, exchange: AsyncExchange, request: Q) -> R:
        body = exchange.body
        stream = self._async_body(exchange, request, self) if body is None else self._bytes(body)
        return self._assembled(exchange, stream)

    def _assembled(self, exchange: Exchange | AsyncExchange, stream: object) -> R:
        return self._response(
            exchange.status,
            headers=exchange.headers,
            stream=stream,
            extensions={
                "http_version": exchange.http_version,
                "reason_phrase": exchange.reason,
                "meshlib": exchange.record,
            },
        )

    def error(self, error: errors.MeshError, request: Q) -> errors.MeshError:
        return self._translation.translate(error, request=request)


@lru_cache(maxsize=4096)
def _destination(raw_scheme: bytes, netloc: bytes) -> tuple[str, str, str]:
    """(scheme, authority, host header): a client calls the same few hosts over and over."""
    scheme, host_header = raw_scheme.decode("ascii"), netloc.decode("ascii")
    host, colon, port = host_header.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = host_header, ""
    return scheme, authority_of(host, int(port) if port else None, scheme), host_header


def _timeouts(limits: Mapping[str, float | None]) -> Timeouts:
    return Timeouts(limits.get("connect"), limits.get("read"), limits.get("write"), limits.get("pool"))


def _translation(package: ModuleType) -> Translation:
    return Translation(
        {
            # No connection was made, or none was tried: nothing was sent.  What a wrong name is to bare httpx.
            errors.RouteError: package.ConnectError,
            errors.NoHealthyUpstream: package.ConnectError,
            errors.ConnectFailed: package.ConnectError,
            errors.ConnectTimeout: package.ConnectTimeout,
            errors.Overflow: package.ConnectError,
            errors.PoolTimeout: package.PoolTimeout,
            errors.ControlError: package.ConnectError,
            # What bare httpx says when a server hangs up.
            errors.ConnectionTerminated: package.RemoteProtocolError,
            errors.UpstreamProtocolError: package.RemoteProtocolError,
            errors.TimeoutExceeded: package.ReadTimeout,
            errors.RequestError: package.LocalProtocolError,
            errors.CallError: package.TransportError,
        },
        {"connect": package.ConnectTimeout, "write": package.WriteTimeout, "pool": package.PoolTimeout},
    )


# --- bodies that are still on their way


class _BlockingBody:
    def __init__(self, exchange: Exchange, request: AnyRequest, dialect: Dialect[Any, Any]) -> None:
        self._exchange = exchange
        self._request = request
        self._dialect = dialect

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._exchange
        except errors.CallError as error:
            raise self._dialect.error(error, self._request) from error.__cause__

    def close(self) -> None:
        self._exchange.close()


class _AsyncBody:
    def __init__(self, exchange: AsyncExchange, request: AnyRequest, dialect: Dialect[Any, Any]) -> None:
        self._exchange = exchange
        self._request = request
        self._dialect = dialect

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._exchange:
                yield chunk
        except errors.CallError as error:
            raise self._dialect.error(error, self._request) from error.__cause__

    async def aclose(self) -> None:
        await self._exchange.aclose()


# --- hosts outside of the mesh

T = TypeVar("T")


class _Outside(Generic[T]):
    """The package's own transports, made when they are needed: with the environment's proxies, as a bare client has them.

    A client that is given a transport leaves the environment's proxies to it, so they are read here.
    """

    def __init__(self, make: Callable[..., T]) -> None:
        self._make = make
        self._proxies: Mapping[str, str] | None = None
        self._made: dict[str | None, T] = {}

    def towards(self, url: URL) -> T:
        if self._proxies is None:
            self._proxies = getproxies()
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        if proxy is not None and proxy_bypass(url.host):
            proxy = None
        made = self._made.get(proxy)
        if made is None:
            made = self._made.setdefault(proxy, self._make(proxy=_with_scheme(proxy)))
        return made

    def taken(self) -> list[T]:
        """All that were made; they are no longer kept."""
        made, self._made = list(self._made.values()), {}
        return made


def _with_scheme(proxy: str | None) -> str | None:
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


# --- the transports


class BlockingCalls(Generic[Q, R]):
    """The body of ``MeshTransport``; `dialect` is set by the class that is made of it."""

    dialect: Dialect[Q, R]

    def __init__(self, mesh: Mesh, *, outside: BlockingTransport[Q, R] | None = None) -> None:
        """Calls to the mesh's hosts go through `mesh`; all others through `outside`, unchanged.

        `outside` is a plain ``HTTPTransport()`` unless given: hand in your own for HTTP/2, a proxy or another trust store.
        It is closed together with this transport; the mesh is not.
        """
        self._mesh = mesh
        self._given = outside
        self._outside = _Outside(self.dialect.transport)

    def handle_request(self, request: Q) -> R:
        try:
            exchange = self._mesh.exchange(self.dialect.request(request))
        except _FAILED as error:
            raise self.dialect.error(error, request) from error.__cause__
        if exchange is None:
            return (self._given or self._outside.towards(request.url)).handle_request(request)
        return self.dialect.response(exchange, request)

    def close(self) -> None:
        for transport in [*self._outside.taken(), *([self._given] if self._given else [])]:
            transport.close()


class AsyncCalls(Generic[Q, R]):
    """The body of ``AsyncMeshTransport``."""

    dialect: Dialect[Q, R]

    def __init__(self, mesh: Mesh, *, outside: AsyncTransport[Q, R] | None = None) -> None:
        """As `BlockingCalls`; `outside` is a plain ``AsyncHTTPTransport()`` unless given."""
        self._mesh = mesh
        self._given = outside
        self._outside = _Outside(self.dialect.async_transport)

    async def handle_async_request(self, request: Q) -> R:
        try:
            exchange = await self._mesh.aexchange(self.dialect.request(request))
        except _FAILED as error:
            raise self.dialect.error(error, request) from error.__cause__
        if exchange is None:
            return await (self._given or self._outside.towards(request.url)).handle_async_request(request)
        return self.dialect.async_response(exchange, request)

    async def aclose(self) -> None:
        for transport in [*self._outside.taken(), *([self._given] if self._given else [])]:
            await transport.aclose()
