"""The metrics of a process, read when somebody asks: calls update plain numbers, and know nothing of metrics."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib.flow.statistics import limit_samples, shedding_samples, upstream_samples
from meshlib.policy.rng import Rng
from meshlib.runtime.client import Client
from meshlib.runtime.enforcement import Enforcement
from meshlib.runtime.events import Events
from meshlib.runtime.serving import Inbound
from meshlib.telemetry import catalogue as known
from meshlib.telemetry.metrics import Sample


def client_samples(client: Client, rng: Rng) -> Iterator[Sample]:
    """Of what is called.  The lock of policy state is held for one cluster at a time."""
    clock = client.clock
    for upstream in list(client.destinations.upstreams.values()):
        with client.lock:
            now = clock()
            upstream.catch_up(rng, now)
            samples = list(upstream_samples(upstream, now))
        yield from samples
    with client.lock:
        samples = list(limit_samples(client.limiting, "client", clock()))
    yield from samples
    mirroring = client.mirroring
    for result in ("sent", "failed", "dropped", "unrepeatable") if _mirrors(client) else ():
        yield known.MIRRORED.of(getattr(mirroring, result), result)


def server_samples(enforcement: Enforcement) -> Iterator[Sample]:
    """Of what is served."""
    limiting = enforcement.limiting
    with limiting.lock:
        samples = list(limit_samples(limiting, "server", limiting.clock()))
    yield from samples
    for port, shedding in sorted(enforcement.shedding.items()):
        shedding.recover()
        yield from shedding_samples(shedding, port)
    for port, limits in sorted(enforcement.limits.items()):
        name = f"inbound|{port}||"  # Istio's name of an inbound cluster
        yield known.REQUESTS_ACTIVE.of(limits.active + limits.streams, name)
        yield known.PENDING_ACTIVE.of(limits.pending, name)
        yield known.PENDING_OVERFLOW.of(limits.overflow, name)


def common_samples(events: Events, inbound: Inbound) -> Iterator[Sample]:
    """Of what there is even in a process that has not started yet."""
    for reason, count in inbound.denied.counts.items():
        yield known.DENIED.of(count, reason)
    for name, count in sorted(events.counts.copy().items()):
        yield known.EVENTS_COUNTED.of(count, name)
    yield known.EVENTS_DROPPED.of(events.dropped)


def _mirrors(client: Client) -> bool:
    return any(destination.mirrored for destination in list(client.destinations.current.values()))
