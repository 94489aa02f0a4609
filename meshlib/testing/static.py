"""Public fakes for tests of meshlib's users and of meshlib itself: a clock that is moved, a mesh that is written down.

Nothing here is imported by anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from meshlib.mesh import Mesh
from meshlib.model.cluster import Balancing, CircuitBreakers, Cluster, LbPolicy, UpstreamTls
from meshlib.model.endpoint import Endpoint
from meshlib.model.listener import InboundListener
from meshlib.model.request import authority_of
from meshlib.model.route import Forward, PathMatch, RetryPolicy, Route, RouteMatch, VirtualHost, WeightedCluster
from meshlib.model.snapshot import ClusterConfig, Snapshot, Target

__all__ = ["DEFAULT_RETRY", "FakeClock", "StaticControl", "service", "snapshot", "static_mesh"]

DEFAULT_RETRY = RetryPolicy(
    attempts=2,
    retry_on=frozenset(
        {"connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes", "idempotent-reset"}
    ),
    previous_hosts=True,
    host_selection_attempts=5,
)
"""The mesh's default policy: what a route has when no VirtualService says otherwise."""

NEVER_PANIC = Balancing(panic_threshold=0.0)
"""As Istio has it: an endpoint that is known to be unhealthy is not called, whatever is left."""


class FakeClock:
    """Seconds that pass only when told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now += seconds


class LocalControl:
    """A source of snapshots in this process: whatever it knows is known at once, so nobody ever waits for it."""

    def __init__(self, current: Snapshot) -> None:
        self.current = current
        self._listeners: list[Callable[[Snapshot], None]] = []

    def listen(self, listener: Callable[[Snapshot], None]) -> object:
        self._listeners.append(listener)
        listener(self.current)
        return listener

    def wait(self, known: Callable[[Snapshot], bool], timeout: float) -> bool:
        return known(self.current)

    async def await_(self, known: Callable[[Snapshot], bool], timeout: float) -> bool:
        return known(self.current)

    def wait_ready(self, timeout: float) -> bool:
        return True

    async def await_ready(self, timeout: float) -> bool:
        return True

    def close(self) -> None:
        self._listeners.clear()


class StaticControl(LocalControl):
    """A source of snapshots without a control service.  `publish` replaces what callers see."""

    def __init__(self, current: Snapshot | None = None) -> None:
        super().__init__(current if current is not None else Snapshot(allow_any=True))
        self.requested: list[str] = []
        self.announced: list[int] = []

    @property
    def state(self) -> str:
        return "static"

    def publish(self, current: Snapshot) -> None:
        """Make `current` the snapshot."""
        self.current = replace(current, generation=self.current.generation + 1)
        for listener in self._listeners:
            listener(self.current)

    def request(self, authority: str) -> None:
        """What is not written down is not part of the mesh."""
        self.requested.append(authority)
        if authority not in self.current.targets and authority not in self.current.absent:
            self.publish(replace(self.current, absent={**self.current.absent, authority: "it is not in the static snapshot"}))

    def serve_port(self, port: int) -> None:
        """What holds for the port is whatever `publish` says."""

    def announce(self, port: int, *, mtls: bool, ready: Callable[[], bool]) -> None:
        self.announced.append(port)

    def withdraw(self) -> None:
        self.announced.clear()


def service(
    host: str,
    endpoints: Mapping[str, Iterable[str]] | Iterable[str],
    *,
    weights: Mapping[str, int] | None = None,
    retry: RetryPolicy | None = DEFAULT_RETRY,
    timeout: float = 0.0,
    lb_policy: LbPolicy = LbPolicy.LEAST_REQUEST,
    balancing: Balancing = NEVER_PANIC,
    routes: Iterable[Route] | None = None,
    breakers: CircuitBreakers | None = None,
    connect_timeout: float = 10.0,
    tls: UpstreamTls | None = None,
) -> Target:
    """A service at `host` ("reviews" or "reviews:9080").

    `endpoints`: ``address:port`` texts, or subsets by name with theirs; then `weights` splits among the subsets (evenly unless
    given).  `routes` replaces the one route that there is otherwise; clusters are named ``outbound|PORT|SUBSET|HOST``.
    """
    name, colon, port_text = host.rpartition(":")
    if not colon:
        name, port_text = host, "80"
    port = int(port_text)
    if isinstance(endpoints, str):
        raise TypeError(f"endpoints={endpoints!r}: expected a list of 'address:port', or one for each subset")
    subsets = endpoints if isinstance(endpoints, Mapping) else {"": endpoints}
    strangers = set(weights or ()) - set(subsets)
    if strangers:
        raise ValueError(f"weights of subsets that do not exist: {', '.join(sorted(strangers))}")
    clusters = {}
    for subset, addresses in subsets.items():
        cluster = Cluster(
            f"outbound|{port}|{subset}|{name}",
            lb_policy=lb_policy,
            balancing=balancing,
            circuit_breakers=breakers or CircuitBreakers(),
            connect_timeout=connect_timeout,
            tls=tls,
            host=name,
            subset=subset,
            port=port,
        )
        clusters[cluster.name] = ClusterConfig(cluster.name, cluster, tuple(_endpoint(text) for text in addresses))
    shares = tuple(WeightedCluster(f"outbound|{port}|{subset}|{name}", (weights or {}).get(subset, 1)) for subset in subsets)
    default = Route("default", RouteMatch(PathMatch("prefix", "/")), Forward(shares, timeout=timeout, retry=retry))
    virtual_host = VirtualHost(
        f"{name}:{port}", ("*",), tuple(routes) if routes is not None else (default,), attempt_count_header=True
    )
    return Target(authority_of(name, port, "http"), virtual_host, clusters)


def _endpoint(text: str) -> Endpoint:
    address, _, port = text.rpartition(":")
    if not address or not port.isdigit():
        raise ValueError(f"endpoint {text!r}: expected 'address:port'")
    return Endpoint(address.strip("[]"), int(port))


def snapshot(*services: Target, allow_any: bool | None = True, inbound: Iterable[InboundListener] = ()) -> Snapshot:
    """A snapshot of these services.  `inbound`: what holds for the ports that the process serves."""
    listeners = {listener.port: listener for listener in inbound}
    return Snapshot(1, {target.authority: target for target in services}, allow_any=allow_any, inbound=listeners)


def static_mesh(
    *services: Target, allow_any: bool | None = True, inbound: Iterable[InboundListener] = (), **settings: Any
) -> Mesh:
    """A Mesh without a control service: `services` are all that there is."""
    return Mesh(control=StaticControl(snapshot(*services, allow_any=allow_any, inbound=inbound)), **settings)
