"""The network in memory: `meshlib.runtime.surroundings.Network` without sockets.

A caller's real client sends through it, and gets the engine's own responses from it.  What is in between (connections, bytes)
is left out; what it would have decided is kept: refusals, timeouts, limits of connections, who proves to be who.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass, field

from meshlib.errors import TimeoutName
from meshlib.model.call import Headers
from meshlib.model.cluster import Cluster, UpstreamTls
from meshlib.model.endpoint import Endpoint
from meshlib.model.identity import Peer
from meshlib.model.inbound import Connection
from meshlib.model.request import NO_TIMEOUTS, Timeouts
from meshlib.policy.balancing import Host
from meshlib.runtime.http.aio_response import AsyncResponse
from meshlib.runtime.http.limits import Limits
from meshlib.runtime.http.settings import NEVER, earlier
from meshlib.runtime.pools import tls_of
from meshlib.runtime.surroundings import BlockingSender
from meshlib.testing.faults import Refuse, Unreachable
from meshlib.testing.instance import Arrived, Instance
from meshlib.testing.stream import Stream
from meshlib.testing.virtual_time import VirtualTime
from meshlib.wire.errors import (
    CannotConnect,
    ConnectTimedOut,
    LimitReached,
    PoolTimedOut,
    RequestFailed,
    TimedOut,
    TlsFailed,
    WireError,
)


@dataclass(slots=True)
class Attempted:
    """One try of one call.  `status` is 0 when there was no response; `error` says why then.  Seconds on the clock."""

    at: float
    caller: str
    service: str  # fully qualified host
    subset: str
    instance: str  # the address, if nobody is there
    method: str
    path: str
    status: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends: its name for people, its address, and whom it proves to be."""

    name: str
    address: str
    peer: Peer | None


@dataclass(slots=True)
class MemoryNetwork:
    """All instances by their address, and every attempt to reach one."""

    time: VirtualTime
    instances: dict[str, Instance] = field(default_factory=dict)
    attempted: list[Attempted] = field(default_factory=list)

    def seen_by(self, caller: Caller) -> Reach:
        """The network of one caller's client."""
        return Reach(self, caller)


class Reach:
    """A `Network`: one caller's."""

    def __init__(self, network: MemoryNetwork, caller: Caller) -> None:
        self.network = network
        self.caller = caller
        self._lines: dict[str, Line] = {}

    def for_loop(self, host: Host, cluster: Cluster, loop: asyncio.AbstractEventLoop) -> Way:
        return Way(self, host.endpoint, cluster, loop)

    def blocking(self, host: Host, cluster: Cluster) -> BlockingSender:
        """Blocking callers wait for a coroutine: `SimulatedMesh` sees to that."""
        raise NotImplementedError("a simulation has one kind of caller: coroutines of its own event loop")

    def drain(self, hosts: Iterable[Host]) -> None:
        """Nothing is kept open."""

    def close_loop(self, hosts: Iterable[Host], loop: asyncio.AbstractEventLoop) -> None:
        """Nothing is kept open."""

    def line(self, cluster: Cluster) -> Line:
        """The limits of a cluster, as they are now."""
        line = self._lines.get(cluster.name)
        if line is None:
            line = self._lines[cluster.name] = Line()
        line.limits.max_connections = cluster.circuit_breakers.max_connections
        line.limits.max_pending_requests = cluster.circuit_breakers.max_pending_requests
        return line


class Line:
    """The connections of one caller to one cluster, each of which carries one request at a time, and who waits for one."""

    def __init__(self) -> None:
        self.limits = Limits()
        self._busy: dict[str, int] = {}
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()

    async def take(self, key: str, until: float, which: TimeoutName) -> None:
        """A connection to the endpoint `key`.  Raises LimitReached, PoolTimedOut, TimedOut."""
        if self._try(key):
            return
        if not self.limits.try_pending():
            raise LimitReached(f"{self.limits.pending} requests are waiting for a connection already (max_pending_requests)")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, turn))
        try:
            async with asyncio.timeout_at(None if until == NEVER else until):
                await turn
        except TimeoutError:
            self._waiting.remove((key, turn))
            message = f"no connection to {key} became free in time ({which} timeout)"
            raise PoolTimedOut(message) if which == "pool" else TimedOut(message, which, sent=False) from None
        finally:
            self.limits.pending_ended()

    def give_back(self, key: str) -> None:
        self._busy[key] -= 1
        self.limits.connection_closed()
        for entry in [*self._waiting]:
            wanted, turn = entry
            if not turn.done() and self._try(wanted):
                self._waiting.remove(entry)
                turn.set_result(None)

    def _try(self, key: str) -> bool:
        if not self.limits.try_connection(first=not self._busy.get(key)):
            return False
        self._busy[key] = self._busy.get(key, 0) + 1
        return True


@dataclass(frozen=True, slots=True)
class Sending:
    """What one try is to send, and how long it has."""

    head: bytes
    body: bytes
    timeouts: Timeouts
    deadline: float | None
    deadline_name: TimeoutName
    whole: bool


class Way:
    """From a caller to one endpoint."""

    def __init__(self, reach: Reach, endpoint: Endpoint, cluster: Cluster, loop: asyncio.AbstractEventLoop) -> None:
        """`loop`: the caller's."""
        self._reach = reach
        self._endpoint = endpoint
        self._cluster = cluster
        self._loop = loop

    @property
    def time(self) -> VirtualTime:
        return self._reach.network.time

    async def send(
        self,
        head: bytes,
        body: bytes | AsyncIterable[bytes] | None = None,
        *,
        method: str = "GET",
        timeouts: Timeouts = NO_TIMEOUTS,
        deadline: float | None = None,
        deadline_name: TimeoutName = "deadline",
        whole: bool = False,
    ) -> AsyncResponse:
        """As `AsyncPool.send`."""
        if body is None or isinstance(body, bytes):
            content = body or b""
        else:
            try:
                content = b"".join([bytes(piece) async for piece in body])
            except Exception as error:
                raise RequestFailed(f"the request's body failed: {error}", sent=False) from error
        stream = Stream(self.time, self._loop, head_only=method == "HEAD")
        await self.time.arun(self._exchanged(Sending(head, content, timeouts, deadline, deadline_name, whole), stream))
        return stream.response()

    async def _exchanged(self, sending: Sending, stream: Stream) -> None:
        """On the simulation's loop: send, and come back when the head of the response is there.  Raises WireError."""
        network, caller = self._reach.network, self._reach.caller
        method, target, headers = _parsed(sending.head)
        instance = network.instances.get(self._endpoint.key)
        attempted = Attempted(
            self.time.clock.now,
            caller.name,
            self._cluster.host,
            self._cluster.subset,
            instance.name if instance is not None else self._endpoint.key,
            method,
            target.decode("ascii"),
        )
        network.attempted.append(attempted)
        try:
            await self._open(sending, stream, instance, (method, target, headers))
        except WireError as error:
            attempted.error = str(error)
            raise
        attempted.status = stream.status

    async def _open(
        self, sending: Sending, stream: Stream, instance: Instance | None, request: tuple[str, bytes, Headers]
    ) -> None:
        now, key = self.time.clock.now, self._endpoint.key
        timeouts = sending.timeouts
        deadline, name = earlier(sending.deadline, sending.deadline_name, now=now, seconds=timeouts.total, name="total")
        if deadline <= now:
            raise TimedOut(f"no time was left to send the request ({name} timeout)", name, sent=False)
        line = self._reach.line(self._cluster)
        ends = None if deadline == NEVER else deadline
        await line.take(key, *earlier(ends, name, now=now, seconds=timeouts.pool, name="pool"))
        stream.on_end = lambda: line.give_back(key)
        try:
            reached = await self._connected(instance, timeouts.connect, ends, name)
            connection = self._connection(reached)
        except BaseException:
            stream.ended_here()
            raise
        stream.expect(ends, name, timeouts.read, per_try=name == "per_try" and not sending.whole)
        method, target, headers = request
        reached.serve(Arrived(method, target, headers, sending.body, connection, self.time.clock.now), stream)
        await stream.head(whole=sending.whole)

    async def _connected(
        self, instance: Instance | None, connect: float | None, deadline: float | None, name: TimeoutName
    ) -> Instance:
        key = self._endpoint.key
        if instance is None or not instance.up or any(instance.take(Refuse)):
            raise CannotConnect(f"cannot connect to {key}: connection refused")
        if any(instance.take(Unreachable)):
            seconds = min(connect or NEVER, self._cluster.connect_timeout or NEVER)
            now = self.time.clock.now
            until, which = earlier(deadline, name, now=now, seconds=seconds, name="connect")
            await asyncio.sleep(until - now)
            message = f"no connection to {key} was made in time ({which} timeout)"
            raise ConnectTimedOut(message) if which == "connect" else TimedOut(message, which, sent=False)
        return instance

    def _connection(self, instance: Instance) -> Connection:
        """What the handshake proves to the instance.  Raises TlsFailed where it would end."""
        caller, endpoint = self._reach.caller, self._endpoint
        tls = tls_of(self._cluster, endpoint)
        if tls is not None:
            self._check(tls, instance)
        proves = tls is not None and (tls.mesh or bool(tls.certificate_file))
        return Connection(
            caller.address,
            endpoint.address,
            endpoint.port,
            tls is not None,
            caller.peer if proves else None,
            tls.sni if tls is not None else "",
        )

    def _check(self, tls: UpstreamTls, instance: Instance) -> None:
        if not tls.mesh:
            return  # certificates of the web's kind: nobody in memory has one, and who is called is who is meant
        if instance.peer is None:
            raise TlsFailed(f"no trusted connection to {self._endpoint}: {instance.name} speaks no mTLS")
        if self._reach.caller.peer is None:
            raise TlsFailed(f"no trusted connection to {self._endpoint}: the caller has no identity")
        if tls.identities and instance.peer.uri not in tls.identities:
            expected = ", ".join(sorted(tls.identities))
            raise TlsFailed(f"no trusted connection to {self._endpoint}: it is {instance.peer}, not {expected}")


def _parsed(head: bytes) -> tuple[str, bytes, Headers]:
    """Method, target and headers of what `encode_head` has made."""
    first, *lines = head.split(b"\r\n")
    method, target, _ = first.split(b" ")
    pairs = (line.split(b":", 1) for line in lines if line)
    return method.decode("ascii"), target, [(name.lower(), value.strip()) for name, value in pairs]
