"""One face for the engine's three forms: asyncio, asyncio on uvloop, blocking."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

import uvloop

from meshlib.errors import TimeoutName
from meshlib.model.endpoint import Endpoint
from meshlib.runtime.http.aio import AsyncPool
from meshlib.runtime.http.aio_response import AsyncResponse
from meshlib.runtime.http.blocking import BlockingPool
from meshlib.runtime.http.blocking_response import BlockingResponse
from meshlib.runtime.http.limits import Limits
from meshlib.runtime.http.settings import NO_TIMEOUTS, PoolSettings, Timeouts
from meshlib.wire.request import encode_head
from meshlib.wire.response import HeaderPairs

Body = bytes | Iterable[bytes] | None


@dataclass(frozen=True)
class Request:
    method: str = "GET"
    target: str = "/"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: Body = None
    timeouts: Timeouts = NO_TIMEOUTS
    deadline: float | None = None
    deadline_name: TimeoutName = "deadline"
    whole: bool = False

    def head(self) -> bytes:
        length = len(self.body) if isinstance(self.body, bytes) else None if self.body is not None else 0
        return encode_head(self.method, self.target, self.headers, authority="test", body_length=length)


@dataclass
class Answer:
    """A whole response.  `closes` counts the calls of on_close."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    trailers: HeaderPairs
    closes: list[int] = field(default_factory=list)


class Client(Protocol):
    """A pool to one endpoint, with a blocking face."""

    limits: Limits

    def __enter__(self) -> Client: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
    def request(self, request: Request) -> Answer: ...
    def pool_state(self) -> str: ...


ClientFactory = Callable[..., Client]


class BlockingClient:
    def __init__(self, port: int, **settings: float) -> None:
        self.limits = Limits(int(settings.pop("max_connections", 1 << 30)), int(settings.pop("max_pending", 1 << 30)))
        options = PoolSettings(self.limits, **settings)  # type: ignore[arg-type]
        self.pool = BlockingPool(Endpoint("127.0.0.1", port), options)

    def __enter__(self) -> BlockingClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.pool.close()

    def request(self, request: Request) -> Answer:
        response = self.send(request)
        closes: list[int] = []
        response.on_close = lambda: closes.append(1)
        body = response.read()
        return Answer(response.status, lowered(response.headers), body, response.trailers, closes)

    def send(self, request: Request) -> BlockingResponse:
        return self.pool.send(
            request.head(),
            request.body,
            method=request.method,
            timeouts=request.timeouts,
            deadline=request.deadline,
            deadline_name=request.deadline_name,
            whole=request.whole,
        )

    def pool_state(self) -> str:
        return repr(self.pool)


class AsyncClient:
    """Runs every request to its end on a loop of its own."""

    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.SelectorEventLoop

    def __init__(self, port: int, **settings: float) -> None:
        self.limits = Limits(int(settings.pop("max_connections", 1 << 30)), int(settings.pop("max_pending", 1 << 30)))
        options = PoolSettings(self.limits, **settings)  # type: ignore[arg-type]
        self._runner = asyncio.Runner(loop_factory=type(self).loop_factory)

        async def make() -> AsyncPool:
            return AsyncPool(Endpoint("127.0.0.1", port), options)

        self.pool = self._runner.run(make())

    def __enter__(self) -> AsyncClient:
        return self

    def __exit__(self, *exc: object) -> None:
        async def stop() -> None:
            self.pool.abort()
            await asyncio.sleep(0)

        self._runner.run(stop())
        self._runner.close()

    def request(self, request: Request) -> Answer:
        async def run() -> Answer:
            response = await self.send(request)
            closes: list[int] = []
            response.on_close = lambda: closes.append(1)
            body = await response.read()
            return Answer(response.status, lowered(response.headers), body, response.trailers, closes)

        return self._runner.run(run())

    async def send(self, request: Request) -> AsyncResponse:
        body = request.body
        return await self.pool.send(
            request.head(),
            body if body is None or isinstance(body, bytes) else iterated(body),
            method=request.method,
            timeouts=request.timeouts,
            deadline=request.deadline,
            deadline_name=request.deadline_name,
            whole=request.whole,
        )

    def pool_state(self) -> str:
        async def state() -> str:
            await asyncio.sleep(0.01)  # lets the loop see what happened to idle connections
            return repr(self.pool)

        return self._runner.run(state())


class UvloopClient(AsyncClient):
    loop_factory = uvloop.new_event_loop


CLIENTS: dict[str, ClientFactory] = {"asyncio": AsyncClient, "uvloop": UvloopClient, "blocking": BlockingClient}


async def iterated(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def lowered(headers: HeaderPairs) -> dict[bytes, bytes]:
    return {name.lower(): value for name, value in headers}
