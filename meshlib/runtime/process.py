"""What a Mesh runs in one process: the link to the control service, the client, the announcement of what is served.

Built on first use; after a fork the child forgets its parent's and builds its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, cast

from meshlib.flow.limiting import Limiting
from meshlib.flow.upstream import Upstream
from meshlib.model.snapshot import Snapshot
from meshlib.runtime.authorizer import MeshAuthorizers
from meshlib.runtime.circuit_breakers import CircuitBreakers
from meshlib.runtime.client import Client, Control
from meshlib.runtime.enforcement import Enforcement
from meshlib.runtime.events import Events
from meshlib.runtime.fork import forget_in_child, keep_for_ever
from meshlib.runtime.grpc_client import GrpcClient
from meshlib.runtime.grpc_server import GrpcServing
from meshlib.runtime.health_checking import HealthChecking
from meshlib.runtime.identity.source import IdentitySource
from meshlib.runtime.jwks import RemoteKeys
from meshlib.runtime.listening import Listening
from meshlib.runtime.metrics import client_samples, server_samples
from meshlib.runtime.quotas import QuotaStream
from meshlib.runtime.reporting import Reporting
from meshlib.runtime.settings import Settings
from meshlib.runtime.surroundings import REAL, Surroundings
from meshlib.runtime.tls.contexts import TlsContexts
from meshlib.runtime.whereabouts import Whereabouts
from meshlib.telemetry.metrics import Sample


class Link(Control, Protocol):
    """A Control with a life of its own."""

    @property
    def state(self) -> str:
        """For people: connected to whom, or why not."""
        ...

    def listen(self, listener: Callable[[Snapshot], None]) -> object:
        """Have every new snapshot handed over, the current one at once."""
        ...

    def wait_ready(self, timeout: float) -> bool: ...

    async def await_ready(self, timeout: float) -> bool: ...

    def serve_port(self, port: int) -> None:
        """Ask for what holds for a port that this process serves."""
        ...

    def announce(self, port: int, *, mtls: bool, ready: Callable[[], bool]) -> None:
        """Register what this process serves, once `port` accepts connections and `ready()` holds.  `mtls`: it speaks that."""
        ...

    def withdraw(self) -> None:
        """Deregister; returns when the control service knows, or after a few seconds."""
        ...

    def close(self) -> None: ...


class Process:
    """The running parts.  `identity` None: a process without one (``insecure_dev``, a mesh in a test)."""

    def __init__(
        self,
        settings: Settings,
        link: Link,
        listening: Listening,
        identity: IdentitySource | None = None,
        surroundings: Surroundings = REAL,
        events: Events | None = None,
    ) -> None:
        self.settings = settings
        self.events = events or Events(surroundings.emit)
        self.link = link
        self.identity = identity
        self.tls = TlsContexts(identity) if identity is not None else None
        self.client = (surroundings.client or Client)(link, tls=self.tls, surroundings=surroundings)
        self.client.destinations.whereabouts = Whereabouts(settings, link.request)
        self._health_checking = HealthChecking(self.client.lock, surroundings.rng(), self.client.clock, self.tls)
        self.circuit_breakers = CircuitBreakers(self.client.lock, self.client.clock)
        self._probed = surroundings.probed
        self._rng = surroundings.rng()
        emit = self.events.take
        self.client.destinations.emit = self.client.mirroring.emit = emit
        self.client.destinations.follow_upstreams = self._follow
        self.grpc_client = GrpcClient(self.client, self.tls)
        self.grpc_serving = GrpcServing(identity, self.tls)
        self.listening = listening
        listening.contexts = self.tls
        self._keys = RemoteKeys()
        self._enforcement = Enforcement(listening.inbound, keys=self._keys, wall=surroundings.wall)
        self.client.limiting.emit = self._enforcement.limiting.emit = emit
        self._quotas = _quotas(link, (self.client.limiting, self._enforcement.limiting), surroundings)
        self._reporting = _reporting(link, self.client, self._enforcement.limiting)
        self._authorizers = MeshAuthorizers(link, self.client, self.tls)
        listening.inbound.authorizers = self._authorizers
        link.listen(self._publish)

    def announce(self, port: int | None) -> None:
        """Register the served port.  Does nothing for a process that only calls."""
        served = port or self.settings.port
        if self.settings.service and served:
            self.link.serve_port(served)
            self.link.announce(
                served, mtls=self.listening.speaks_mtls and self.tls is not None, ready=lambda: self._enforcement.knows(served)
            )

    def samples(self) -> Iterator[Sample]:
        """Of both sides."""
        yield from client_samples(self.client, self._rng)
        yield from server_samples(self._enforcement)

    def close(self) -> None:
        if self._reporting is not None:
            self._reporting.close()
        if self._quotas is not None:
            self._quotas.close()
        self.link.close()
        self._authorizers.close()
        self._keys.close()
        self._health_checking.close()
        self.circuit_breakers.close()
        self.grpc_client.close()
        self.client.close()
        self.events.close()
        if self.tls is not None:
            self.tls.close()
        if self.identity is not None:
            self.identity.close()

    def _follow(self, upstreams: Iterable[Upstream]) -> None:
        self.circuit_breakers.follow(upstreams)
        if self._probed:
            self._health_checking.follow(upstreams)

    def _publish(self, snapshot: Snapshot) -> None:
        if self.tls is not None and snapshot.trust is not None:
            self.tls.set_trust(snapshot.trust)
        self.client.destinations.publish(snapshot)
        self._authorizers.publish(snapshot)
        self._enforcement.publish(snapshot)
        self._keys.retain(self._enforcement.key_sets)
        if snapshot.targets or snapshot.inbound:
            self.events.start()
            if self._reporting is not None:
                self._reporting.start()
        if self._quotas is not None:
            self._quotas.start()


def _reporting(link: Link, client: Client, serving: Limiting) -> Reporting | None:
    """Without a control service there is nobody to report to."""
    channel = getattr(link, "channel", None)
    if channel is None:
        return None
    return Reporting(channel, lambda: str(getattr(link, "node_id", "")), client, serving)


def _quotas(link: Link, sides: tuple[Limiting, ...], surroundings: Surroundings) -> QuotaStream | None:
    """Without a control service, as in a simulation, there is nobody to share limits with."""
    channel = getattr(link, "channel", None)
    return QuotaStream(channel, sides, surroundings.monotonic) if channel is not None else None


class Processes:
    """At most one running `Process`, in the process that asks."""

    def __init__(
        self,
        settings: Settings,
        control: object | None,
        listening: Listening,
        identity: IdentitySource | None = None,
        surroundings: Surroundings = REAL,
    ) -> None:
        """`control`, `identity`: the caller's own; None: those that the settings lead to."""
        self.current: Process | None = None
        self.events = Events(surroundings.emit)
        self._identity = identity
        self._inherited: IdentitySource | None = None  # a forked child has its parent's until it has its own
        self._settings = settings
        self._listening = listening
        self._surroundings = surroundings
        self._control = control
        self._lock = threading.Lock()
        forget_in_child(self)

    def start(self) -> Process:
        """The running process; started if need be."""
        with self._lock:
            if self.current is None:
                self.current = self._open()
            return self.current

    def _open(self) -> Process:
        if self._control is not None:
            # The caller's own, checked by its use.
            link = cast("Link", self._control)
            return Process(self._settings, link, self._listening, self._identity, self._surroundings, self.events)
        from meshlib.runtime.link import (  # grpc and the protos cost 100 ms: not before they are needed
            ControlLink,
            open_identity,
        )

        identity = self._identity or open_identity(self._settings, self._inherited)
        link = ControlLink(self._settings, identity)
        return Process(self._settings, link, self._listening, identity, self._surroundings, self.events)

    def close(self) -> None:
        with self._lock:
            process, self.current = self.current, None
        if process is not None:
            process.close()

    def forget(self) -> None:
        """In a forked child."""
        self._lock = threading.Lock()
        if self.current is not None:
            # With its parent's certificate the child gets one of its own: a join token is good for one process only.
            self._inherited = self.current.identity
        keep_for_ever(self.current)
        self.current = None
