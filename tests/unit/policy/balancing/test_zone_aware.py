"""Zone-aware routing, with shares that were seen on Envoy 1.40."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.cluster import Balancing, Cluster, LbPolicy, ZoneAware
from meshlib.model.endpoint import Health, Locality
from meshlib.policy.balancing import UNPLACED, Host, Place, balance
from meshlib.policy.balancing.zone_aware import ZoneShares, zone_shares
from tests.support.hosts import made

DEFAULTS = ZoneAware()
ZONES = [Locality("r", name) for name in "abc"]


@pytest.mark.parametrize(
    ("peers", "hosts", "shares"),
    [
        ((2, 2, 1), (2, 4, 2), ZoneShares(6250, (1000, 1500))),
        ((2, 2, 1), (3, 3, 0), ZoneShares(10_000, ())),
        ((3, 1), (2, 4), ZoneShares(4444, (4166,))),
        ((1, 1), (0, 4), ZoneShares(0, (5000,))),
    ],
)
def test_shares(peers: tuple[int, ...], hosts: tuple[int, ...], shares: ZoneShares) -> None:
    found = zone_shares(peers, hosts)
    assert found.local == shares.local
    assert found.others == shares.others


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=2, max_size=5))
def test_shares_are_shares(counts: list[tuple[int, int]]) -> None:
    found = zone_shares([peers for peers, _ in counts], [hosts for _, hosts in counts])
    assert 0 <= found.local <= 10_000
    assert list(found.others) == sorted(found.others)


def pool(*counts: int) -> list[Host]:
    found: list[Host] = []
    for locality, count in zip(ZONES, counts, strict=False):
        for _ in range(count):
            found += made((1,), first=len(found) + 1, locality=locality)
    return found


def place(*peers: int) -> Place:
    return Place(ZONES[0], dict(zip(ZONES, peers, strict=False)))


def counted(hosts: list[Host], where: Place, settings: ZoneAware = DEFAULTS, count: int = 4000) -> Counter[str]:
    rng = random.Random(7)
    cluster = Cluster("c", lb_policy=LbPolicy.ROUND_ROBIN, balancing=Balancing(zone_aware=settings))
    balancer = balance(cluster, hosts, rng, place=where).balancer
    assert balancer is not None
    picked = [balancer.pick(rng) for _ in range(count)]
    return Counter(host.endpoint.locality.zone for host in picked if host is not None)


def test_what_a_zone_cannot_take_goes_to_those_that_have_more() -> None:
    seen = counted(pool(2, 4, 2), place(2, 2, 1))
    assert [seen[name] / 4000 for name in "abc"] == pytest.approx([0.625, 0.25, 0.125], abs=0.02)


def test_a_zone_that_can_take_it_keeps_all() -> None:
    assert counted(pool(3, 3), place(2, 2, 1), count=1000) == {"a": 1000}


@pytest.mark.parametrize(
    ("hosts", "where"),
    [
        (pool(2, 2), place(2, 2, 1)),  # fewer than min_cluster_size
        (pool(6), place(2, 2)),  # one zone
        (pool(3, 3), place(4)),  # all callers in one zone
        (pool(3, 3), place(0, 2, 2)),  # none of them in the own one
        (pool(3, 3), UNPLACED),
    ],
)
def test_where_zones_are_not_looked_at(hosts: list[Host], where: Place) -> None:
    seen = counted(hosts, where, count=len(hosts) * 100)
    assert {name: count // 100 for name, count in seen.items()} == Counter(host.endpoint.locality.zone for host in hosts)


def test_it_may_hold_for_a_part_of_the_calls() -> None:
    seen = counted(pool(3, 3), place(2, 2, 1), ZoneAware(routing_enabled=50.0))
    assert seen["a"] / 4000 == pytest.approx(0.75, abs=0.03)
    assert counted(pool(3, 3), place(2, 2, 1), ZoneAware(routing_enabled=0.0), 600) == {"a": 300, "b": 300}


def test_in_panic_calls_may_fail_instead() -> None:
    hosts = made((1, 1, 1), health=Health.UNHEALTHY)
    rng = random.Random(1)
    cluster = Cluster("c", balancing=Balancing(zone_aware=ZoneAware(fail_traffic_on_panic=True)))
    found = balance(cluster, hosts, rng).balancer
    assert found is None or found.pick(rng) is None
    assert balance(Cluster("c"), hosts, rng).balancer is not None
