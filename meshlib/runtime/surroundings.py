"""What a process of the mesh stands on: clocks, sleep, dice, the network.

One value that is handed down, so that a simulation (`meshlib.testing`) replaces all of it and nothing else: what decides is the
same code in either.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Protocol

from meshlib.errors import TimeoutName
from meshlib.model.cluster import Cluster
from meshlib.model.request import Timeouts
from meshlib.policy.balancing import Host
from meshlib.runtime.http.aio_response import AsyncResponse
from meshlib.runtime.http.blocking_response import BlockingResponse
from meshlib.runtime.pools import Pools
from meshlib.runtime.tls.contexts import TlsContexts
from meshlib.telemetry.events import Emit

if TYPE_CHECKING:
    from meshlib.runtime.client import Client


class BlockingSender(Protocol):
    """The way to one endpoint for callers that block their thread; see `BlockingPool.send`."""

    def send(
        self,
        head: bytes,
        body: bytes | Iterable[bytes] | None = None,
        *,
        method: str = "GET",
        timeouts: Timeouts = ...,
        deadline: float | None = None,
        deadline_name: TimeoutName = "deadline",
        whole: bool = False,
        begun: Callable[[Callable[[], None]], None] | None = None,
    ) -> BlockingResponse: ...


class AsyncSender(Protocol):
    """The way to one endpoint for callers on an event loop; see `AsyncPool.send`."""

    async def send(
        self,
        head: bytes,
        body: bytes | AsyncIterable[bytes] | None = None,
        *,
        method: str = "GET",
        timeouts: Timeouts = ...,
        deadline: float | None = None,
        deadline_name: TimeoutName = "deadline",
        whole: bool = False,
    ) -> AsyncResponse: ...


class Network(Protocol):
    """How endpoints are reached; `Pools` is the real one."""

    def for_loop(self, host: Host, cluster: Cluster, loop: asyncio.AbstractEventLoop) -> AsyncSender: ...

    def blocking(self, host: Host, cluster: Cluster) -> BlockingSender: ...

    def drain(self, hosts: Iterable[Host]) -> None:
        """These endpoints are gone: what is idle closes now, the rest when its request ends."""
        ...

    def close_loop(self, hosts: Iterable[Host], loop: asyncio.AbstractEventLoop) -> None: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """`monotonic` is what deadlines are on, `wall` (Unix seconds) what tokens are valid by."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    asleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    rng: Callable[[], Random] = Random
    network: Callable[[TlsContexts | None], Network] = Pools
    client: type[Client] | None = None  # None: `Client` itself
    emit: Emit | None = None  # told what policies do by themselves
    probed: bool = True  # endpoints are really there, so active health checks can find them


REAL = Surroundings()
"""The machine's."""
