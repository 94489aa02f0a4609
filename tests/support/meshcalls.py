"""The four ways of a call through a Mesh, behind one blocking face: asyncio or not, body read whole or as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, Protocol, TypeVar

from meshlib import Mesh, Overrides
from meshlib.lowlevel import AsyncExchange, Exchange, Timeouts
from meshlib.runtime.native import HeaderInput, Response, build_request

T = TypeVar("T")
Content = bytes | Iterable[bytes]


class Fetch(Protocol):
    """One call to its end; the options are those of `Mesh.request`."""

    def __call__(
        self,
        mesh: Mesh,
        method: str,
        url: str,
        *,
        headers: HeaderInput | None = None,
        content: Content = b"",
        timeout: float | Timeouts | None = None,
        overrides: Overrides | None = None,
    ) -> Response: ...


def whole(mesh: Mesh, method: str, url: str, **options: Any) -> Response:
    return mesh.request(method, url, **options)


def streamed(mesh: Mesh, method: str, url: str, **options: Any) -> Response:
    exchange = mesh.exchange(_request(method, url, **options))
    assert exchange is not None, f"{url} is outside of the mesh"
    return _response(exchange, b"".join(exchange))


def awhole(mesh: Mesh, method: str, url: str, **options: Any) -> Response:
    if not isinstance(options.get("content", b""), bytes):
        options["content"] = iterated(options["content"])
    return on_a_loop(mesh, lambda: mesh.arequest(method, url, **options))


def astreamed(mesh: Mesh, method: str, url: str, **options: Any) -> Response:
    if not isinstance(options.get("content", b""), bytes):
        options["content"] = iterated(options["content"])

    async def run() -> Response:
        exchange = await mesh.aexchange(_request(method, url, **options))
        assert exchange is not None, f"{url} is outside of the mesh"
        return _response(exchange, b"".join([piece async for piece in exchange]))

    return on_a_loop(mesh, run)


WAYS: dict[str, Fetch] = {"blocking": streamed, "blocking whole": whole, "asyncio": astreamed, "asyncio whole": awhole}


def on_a_loop(mesh: Mesh, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `work` on an event loop of its own, and let go of the connections that it kept there."""

    async def run() -> T:
        try:
            return await work()
        finally:
            await mesh.aclose_loop()

    return asyncio.run(run())


async def iterated(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _request(method: str, url: str, **options: Any) -> Any:
    get = options.get
    return build_request(method, url, get("headers"), get("content", b""), get("timeout"), get("overrides"))


def _response(exchange: Exchange | AsyncExchange, body: bytes) -> Response:
    return Response(
        exchange.status, exchange.headers, body, exchange.record, reason=exchange.reason, http_version=exchange.http_version
    )
