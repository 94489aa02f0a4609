"""A snapshot is taken over: what takes long is done before calls have to wait for it."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from types import TracebackType

import pytest

from meshlib.flow.upstream import Upstream
from meshlib.model.cluster import LbPolicy
from meshlib.policy.balancing import maglev, ring_hash
from meshlib.policy.balancing.host import Host
from meshlib.runtime.destinations import Destinations
from meshlib.testing import service, snapshot


def filled() -> int:
    """Tables of both kinds, so far."""
    return maglev._filled.cache_info().misses + ring_hash._placed.cache_info().misses


class Lock:
    """Takes note of how many tables were filled before it was held, and while it was."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._before = 0
        self.first: int | None = None
        self.meanwhile = 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._before = filled()
        self.first = self._before if self.first is None else self.first

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.meanwhile += filled() - self._before
        self._lock.release()


def dropped(hosts: list[Host]) -> None:
    """Connections that nobody has opened."""


def pick(upstream: Upstream, rng: random.Random) -> Host:
    host = upstream.pick((), 0, rng, 0.0, hash=7)
    assert host is not None
    return host


@pytest.mark.parametrize("policy", [LbPolicy.MAGLEV, LbPolicy.RING_HASH])
def test_tables_are_filled_before_the_lock_is_taken_that_calls_wait_for(policy: LbPolicy) -> None:
    lock, rng = Lock(), random.Random(1)
    destinations = Destinations(lock, rng, dropped)
    target = service("placed", [f"10.77.0.{number}:80" for number in range(1, 4)], lb_policy=policy)
    ((name, config),) = target.clusters.items()
    before = filled()
    destinations.publish(snapshot(target))
    assert lock.first == before + 1
    with lock:
        first = pick(destinations.upstreams[name], rng)
    # One endpoint leaves, and what was known of the others holds.
    rest = tuple(endpoint for endpoint in config.endpoints if endpoint.key != first.key)
    destinations.publish(snapshot(replace(target, clusters={name: replace(config, endpoints=rest)})))
    with lock:
        assert pick(destinations.upstreams[name], rng) is not first
    assert lock.meanwhile == 0
    assert filled() == before + 2
    destinations.close()


def test_a_table_for_other_health_than_was_expected_is_filled_when_it_is_needed() -> None:
    """Control: what is not known ahead is seen above."""
    lock, rng = Lock(), random.Random(1)
    destinations = Destinations(lock, rng, dropped)
    target = service("ailing", [f"10.78.0.{number}:80" for number in range(1, 4)], lb_policy=LbPolicy.MAGLEV)
    (name,) = target.clusters
    destinations.publish(snapshot(target))
    upstream = destinations.upstreams[name]
    with lock:
        host = pick(upstream, rng)
        host.ejected = True
        upstream.health_changed(rng, 0.0)
        assert pick(upstream, rng) is not host
    assert lock.meanwhile == 1
    destinations.close()
