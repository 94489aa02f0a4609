"""Every client integration behind one face, so that one list of scenarios runs over all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx
import httpx2
import requests

from meshlib import Mesh, Overrides
from meshlib.lowlevel import CallRecord
from meshlib_integrations.httpx import AsyncMeshTransport, MeshTransport
from meshlib_integrations.httpx2 import AsyncMeshTransport as AsyncMeshTransport2
from meshlib_integrations.httpx2 import MeshTransport as MeshTransport2
from meshlib_integrations.requests import MeshAdapter

Content = bytes | list[bytes] | Iterator[bytes]


@dataclass(frozen=True)
class Timeout:
    """Seconds, as httpx counts them; requests knows the first two."""

    connect: float | None = None
    read: float | None = None
    write: float | None = None
    pool: float | None = None


@dataclass(frozen=True)
class Reply:
    status: int
    headers: list[tuple[str, str]]
    content: bytes
    reason: str
    record: CallRecord | None  # None: not by the mesh

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]


@dataclass(frozen=True)
class Ask:
    """One request in terms of no library."""

    url: str
    method: str = "GET"
    headers: list[tuple[str, str]] = field(default_factory=list)
    content: Content = b""
    timeout: Timeout = Timeout()
    overrides: Mapping[str, Any] | None = None


class Caller(Protocol):
    name: str

    @property
    def errors(self) -> Mapping[str, type[Exception]]:
        """What the library's users expect to catch."""
        ...

    def send(self, ask: Ask) -> Reply: ...
    def stream(self, url: str) -> Any:
        """A context manager that gives the body's pieces as they come."""
        ...

    def at_once(self, asks: Iterable[Ask]) -> list[Reply]: ...
    def cookies(self) -> dict[str, str]: ...
    def close(self) -> None: ...


def httpx_errors(package: Any) -> dict[str, type[Exception]]:
    return {
        "any": package.TransportError,
        "connect": package.ConnectError,
        "connect timeout": package.ConnectTimeout,
        "read timeout": package.ReadTimeout,
        "pool timeout": package.PoolTimeout,
        "cut off": package.RemoteProtocolError,
        "cut off body": package.RemoteProtocolError,
        "bad request": package.LocalProtocolError,
    }


REQUESTS_ERRORS: Mapping[str, type[Exception]] = {
    "any": requests.RequestException,
    "connect": requests.ConnectionError,
    "connect timeout": requests.ConnectTimeout,
    "read timeout": requests.ReadTimeout,
    "pool timeout": requests.ConnectTimeout,
    "cut off": requests.ConnectionError,
    "cut off body": requests.exceptions.ChunkedEncodingError,
    "bad request": requests.RequestException,
}


class Httpx:
    """`httpx.Client` or `httpx2.Client`."""

    def __init__(self, package: Any, transport: Any) -> None:
        self.name = f"{package.__name__} blocking"
        self.errors = httpx_errors(package)
        self._package = package
        self._client = package.Client(transport=transport, timeout=None)

    def send(self, ask: Ask) -> Reply:
        return _httpx_reply(self._client.request(**_httpx_arguments(self._package, ask, ask.content)))

    @contextmanager
    def stream(self, url: str) -> Iterator[Iterator[bytes]]:
        with self._client.stream("GET", url) as response:
            yield response.iter_bytes()

    def at_once(self, asks: Iterable[Ask]) -> list[Reply]:
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(self.send, asks))

    def cookies(self) -> dict[str, str]:
        return dict(self._client.cookies)

    def close(self) -> None:
        self._client.close()


class AsyncHttpx:
    """`httpx.AsyncClient` or `httpx2.AsyncClient`, on an event loop that runs while a call does."""

    def __init__(self, package: Any, mesh: Mesh, transport: Any) -> None:
        self.name = f"{package.__name__} async"
        self.errors = httpx_errors(package)
        self._package = package
        self._mesh = mesh
        self._runner = asyncio.Runner()
        self._client = package.AsyncClient(transport=transport, timeout=None)

    def send(self, ask: Ask) -> Reply:
        return self._runner.run(self._send(ask))

    async def _send(self, ask: Ask) -> Reply:
        content = ask.content if isinstance(ask.content, bytes) else _asynchronously(ask.content)
        return _httpx_reply(await self._client.request(**_httpx_arguments(self._package, ask, content)))

    @contextmanager
    def stream(self, url: str) -> Iterator[Iterator[bytes]]:
        stack = AsyncExitStack()
        response = self._runner.run(stack.enter_async_context(self._client.stream("GET", url)))
        pieces = response.aiter_bytes()
        try:
            yield iter(lambda: self._runner.run(_next(pieces)), None)
        finally:
            self._runner.run(pieces.aclose())
            self._runner.run(stack.aclose())

    def at_once(self, asks: Iterable[Ask]) -> list[Reply]:
        async def together() -> list[Reply]:
            return await asyncio.gather(*map(self._send, asks))

        return self._runner.run(together())

    def cookies(self) -> dict[str, str]:
        return dict(self._client.cookies)

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.run(self._mesh.aclose_loop())
        self._runner.close()


class Requests:
    """`requests.Session`."""

    name = "requests"
    errors = REQUESTS_ERRORS

    def __init__(self, mesh: Mesh, outside: Any = None, verify: str | None = None) -> None:
        self._mesh = mesh
        self._session = requests.Session()
        self._session.verify = verify or True
        for prefix in ("http://", "https://"):
            self._session.mount(prefix, MeshAdapter(mesh, outside))

    def send(self, ask: Ask) -> Reply:
        with ExitStack() as stack:
            session = self._session
            if ask.overrides:
                session = stack.enter_context(requests.Session())
                session.mount("http://", MeshAdapter(self._mesh, overrides=_overrides(ask.overrides)))
            response = session.request(
                ask.method,
                ask.url,
                headers=dict(ask.headers),
                data=ask.content if isinstance(ask.content, bytes) else iter(ask.content),
                timeout=(ask.timeout.connect, ask.timeout.read),
                allow_redirects=False,  # as httpx
            )
        raw = response.raw
        headers = [(name, value) for name, value in raw.headers.iteritems()]
        record = getattr(raw, "meshlib", None)
        return Reply(response.status_code, headers, response.content, response.reason, record)

    @contextmanager
    def stream(self, url: str) -> Iterator[Iterator[bytes]]:
        with self._session.get(url, stream=True) as response:
            yield response.iter_content(64 * 1024)

    def at_once(self, asks: Iterable[Ask]) -> list[Reply]:
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(self.send, asks))

    def cookies(self) -> dict[str, str]:
        return self._session.cookies.get_dict()

    def close(self) -> None:
        self._session.close()


CALLERS: Mapping[str, Callable[[Mesh], Caller]] = {
    "httpx": lambda mesh: Httpx(httpx, MeshTransport(mesh)),
    "httpx async": lambda mesh: AsyncHttpx(httpx, mesh, AsyncMeshTransport(mesh)),
    "httpx2": lambda mesh: Httpx(httpx2, MeshTransport2(mesh)),
    "httpx2 async": lambda mesh: AsyncHttpx(httpx2, mesh, AsyncMeshTransport2(mesh)),
    "requests": Requests,
}


def _overrides(given: Mapping[str, Any]) -> Overrides:
    conditions = given.get("retry_on")
    return Overrides(**{**given, "retry_on": None if conditions is None else frozenset(conditions)})


def _httpx_arguments(package: Any, ask: Ask, content: Any) -> dict[str, Any]:
    limits = ask.timeout
    return {
        "method": ask.method,
        "url": ask.url,
        "headers": ask.headers,
        "content": content,
        "timeout": package.Timeout(connect=limits.connect, read=limits.read, write=limits.write, pool=limits.pool),
        "extensions": {} if ask.overrides is None else {"meshlib": ask.overrides},
    }


def _httpx_reply(response: Any) -> Reply:
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw]
    record = response.extensions.get("meshlib")
    return Reply(response.status_code, headers, response.content, response.reason_phrase, record)


async def _asynchronously(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    iterator = iter(pieces)
    while (piece := await asyncio.to_thread(next, iterator, None)) is not None:
        yield piece


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    return await anext(pieces, None)
