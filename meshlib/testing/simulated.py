"""A process of the mesh, simulated: a Mesh with the real client, flows and policies, in virtual time, on a memory network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextvars import Context
from dataclasses import dataclass
from random import Random
from typing import Any, cast

from meshlib.errors import CallError, MeshError
from meshlib.flow.commands import Copy
from meshlib.flow.record import CallRecord
from meshlib.flow.upstream import Upstream
from meshlib.mesh import Mesh
from meshlib.model.request import Body, Request
from meshlib.model.snapshot import ClusterConfig
from meshlib.runtime.client import Client, Control
from meshlib.runtime.dns import Resolver
from meshlib.runtime.grpc_client import GrpcClient
from meshlib.runtime.mirroring import Mirroring
from meshlib.runtime.response import AsyncExchange, Exchange
from meshlib.runtime.surroundings import REAL, Surroundings
from meshlib.runtime.tls.contexts import TlsContexts
from meshlib.telemetry.events import Emit
from meshlib.telemetry.events import Event as Event
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
        def __init__(self, control: Control, *, tls: TlsContexts | None = None, surroundings: Surroundings = REAL) -> None:
            super().__init__(control, tls=tls, surroundings=surroundings)
            self.mirroring = Mirroring(self._pools, self._lock, self._rng, self._clock, _Copies(time))
            self.destinations._resolver = _Unresolved(lambda: None)

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


class _Unresolved(Resolver):
    """Host names stay what they are: the network in memory knows instances by them, and nobody else is asked."""

    def expand(self, config: ClusterConfig) -> ClusterConfig:
        return config


class _Copies:
    """Copies for mirrors, sent on the simulation's own loop; its end is theirs."""

    def __init__(self, time: VirtualTime) -> None:
        self._loop = time.loop

    def start(self, send: Callable[[Copy, bytes], object], copy: Copy, body: bytes) -> None:
        work = cast("Coroutine[None, None, None]", send(copy, body))
        self._loop.call_soon_threadsafe(self._loop.create_task, work, context=Context())

    def stop(self) -> None:
        """The loop cancels what it still has."""


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
    """One process: `caller` is who it is, `control` what it knows, `rng` its dice.  `record` is told of every call,
    `emit` of what its clusters' policies do by themselves.
    """

    def __init__(
        self,
        network: MemoryNetwork,
        caller: Caller,
        control: CompiledControl,
        *,
        rng: Random,
        record: Record,
        emit: Emit,
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
            emit=emit,
            probed=False,
        )
        self.caller = caller
        self.control = control
        super().__init__(control=control, **settings)

    @property
    def grpc_client(self) -> GrpcClient:
        raise NotImplementedError("gRPC is not simulated: its channels open sockets of their own; test it with servers")

    @property
    def upstreams(self) -> dict[str, Upstream]:
        """The clusters that this process has called, at work."""
        return self._running().client.destinations.upstreams
