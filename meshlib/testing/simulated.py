"""A process of the mesh, simulated: a Mesh with the real client, flows and policies, in virtual time, on a memory network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

from meshlib.errors import CallError, MeshError
from meshlib.flow.record import CallRecord
from meshlib.flow.upstream import Upstream
from meshlib.mesh import Mesh
from meshlib.model.request import Body, Request
from meshlib.runtime.client import Client
from meshlib.runtime.response import AsyncExchange, Exchange
from meshlib.runtime.surroundings import Surroundings
from meshlib.testing.awaited import AwaitedExchange
from meshlib.testing.compiled import CompiledControl
from meshlib.testing.network import Caller, MemoryNetwork
from meshlib.testing.virtual_time import VirtualTime


@dataclass(frozen=True, slots=True)
class Called:
    """One call, as the caller's mesh has seen it.  Fields are empty where it failed before they were known."""

    caller: str
    method: str
    authority: str  # "ratings:80", as called
    path: str
    route: str
    cluster: str
    service: str  # fully qualified host
    subset: str
    endpoint: str  # address:port of the last one tried
    attempts: int
    status: int  # 0: there was no response
    flags: tuple[str, ...]  # Envoy's response flags
    error: str = ""  # the class of what was raised

    @classmethod
    def of(cls, caller: str, request: Request, record: CallRecord) -> Called:
        return cls(
            caller,
            request.method,
            request.authority,
            request.target,
            record.route,
            record.cluster,
            record.service,
            record.subset,
            record.endpoint,
            record.attempts,
            record.status,
            record.flags,
        )

    @classmethod
    def failed(cls, caller: str, request: Request, error: MeshError) -> Called:
        known = error if isinstance(error, CallError) else CallError("")
        parts = known.cluster.split("|")
        subset, service = (parts[2], parts[3]) if len(parts) == 4 else ("", "")
        return cls(
            caller,
            request.method,
            request.authority,
            request.target,
            known.route,
            known.cluster,
            service,
            subset,
            known.endpoint,
            known.attempts,
            0,
            known.flags,
            type(error).__name__,
        )


Record = Callable[[Request, "CallRecord | MeshError"], None]


def _recording(record: Record, time: VirtualTime) -> type[Client]:
    """The real client, which tells of every call; blocking calls are made by coroutines, for which the caller waits."""

    class RecordingClient(Client):
        def exchange(self, request: Request, *, whole: bool = False) -> Exchange | None:
            if not isinstance(request.body, bytes):
                request.body = _Once(request.body)
            exchange = time.run(self.aexchange(request, whole=whole))
            return AwaitedExchange(exchange, time) if exchange is not None else None

        async def aexchange(self, request: Request, *, whole: bool = False) -> AsyncExchange | None:
            try:
                exchange = await super().aexchange(request, whole=whole)
            except MeshError as error:
                record(request, error)
                raise
            if exchange is not None:
                record(request, exchange.record)
            return exchange

    return RecordingClient


class _Once:
    """A blocking caller's body, for a coroutine to send; its own errors are raised as they are."""

    def __init__(self, body: Body) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if isinstance(self._body, bytes) or not isinstance(self._body, Iterable):
            raise TypeError(f"a blocking call sends bytes or an iterable of bytes, not {type(self._body).__name__}")
        for piece in self._body:
            yield piece


class SimulatedMesh(Mesh):
    """One process: `caller` is who it is, `control` what it knows, `rng` its dice.  `record` is told of every call."""

    def __init__(
        self,
        network: MemoryNetwork,
        caller: Caller,
        control: CompiledControl,
        *,
        rng: Random,
        record: Record,
        **settings: Any,
    ) -> None:
        time = network.time
        self._surroundings = Surroundings(
            monotonic=time.clock.monotonic,
            wall=time.clock.wall,
            sleep=time.sleep,
            asleep=time.asleep,
            rng=lambda: rng,
            network=lambda _: network.seen_by(caller),
            client=_recording(record, time),
        )
        self.caller = caller
        self.control = control
        super().__init__(control=control, **settings)

    @property
    def upstreams(self) -> dict[str, Upstream]:
        """The clusters that this process has called, at work."""
        return self._running().client.destinations.upstreams
