"""Locality weights, with counts that were seen on Envoy 1.40."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from meshlib.model.cluster import Balancing, Cluster, LbPolicy
from meshlib.model.endpoint import Health, Locality
from meshlib.policy.balancing import Host, Place, balance
from meshlib.policy.balancing.levels import Level, Source
from meshlib.policy.balancing.locality import effective_weight
from meshlib.policy.balancing.placing import placed
from tests.support.hosts import made

A, B, C = Locality("r", "a"), Locality("r", "b"), Locality("r", "c")


def zone(locality: Locality, weight: int, healthy: int, down: int = 0, *, first: int = 1, degraded: int = 0) -> list[Host]:
    health = [Health.HEALTHY] * healthy + [Health.DEGRADED] * degraded + [Health.UNHEALTHY] * down
    found = []
    for index, each in enumerate(health):
        found += made((1,), first=first + index, health=each, locality=locality, locality_weight=weight)
    return found


def counted(hosts: list[Host], count: int, policy: LbPolicy = LbPolicy.ROUND_ROBIN) -> Counter[str]:
    rng = random.Random(5)
    cluster = Cluster("c", lb_policy=policy, balancing=Balancing(locality_weighted=True))
    balancer = balance(cluster, hosts, rng).balancer
    assert balancer is not None
    picked = [balancer.pick(rng) for _ in range(count)]
    return Counter(host.endpoint.locality.zone for host in picked if host is not None)


def test_localities_get_what_their_weights_say() -> None:
    assert counted(zone(A, 1, 2) + zone(B, 3, 2, first=10), 1000) == {"a": 250, "b": 750}


def test_a_locality_that_is_partly_down_gets_less() -> None:
    """1 : 3 * 0.35; Envoy: 488 to 512 of 1000."""
    assert effective_weight(3, 1, 4, 140) == pytest.approx(1.05)
    seen = counted(zone(A, 1, 4) + zone(B, 3, 1, 3, first=10), 1000)
    assert seen["a"] == pytest.approx(488, abs=2)


def test_a_locality_without_weight_gets_nothing() -> None:
    assert counted(zone(A, 0, 2) + zone(B, 1, 1, first=10), 100) == {"b": 100}


def test_without_any_weights_hosts_are_balanced_as_if_there_were_no_localities() -> None:
    assert counted(zone(A, 0, 1) + zone(B, 0, 3, first=10), 400) == {"a": 100, "b": 300}


def test_within_a_locality_the_clusters_policy_holds() -> None:
    busy = zone(A, 1, 2)
    busy[0].active = 1000
    rng = random.Random(1)
    cluster = Cluster("c", lb_policy=LbPolicy.LEAST_REQUEST, balancing=Balancing(locality_weighted=True))
    balancer = balance(cluster, busy + zone(B, 1, 1, first=10), rng).balancer
    assert balancer is not None
    picked = Counter(balancer.pick(rng) for _ in range(1000))
    assert picked[busy[0]] < picked[busy[1]]


def test_tables_share_their_places_by_configured_weights() -> None:
    """Whatever part of a locality is available."""
    level = Level(zone(A, 1, 2) + zone(B, 3, 1, 3, first=10))
    shares = {each.host.key: each.weight for each in placed(level, Source.HEALTHY, A, by_locality=True, by_hostname=False)}
    assert shares == {"127.0.0.1:1": 0.125, "127.0.0.1:2": 0.125, "127.0.0.1:10": 0.75}


def test_places_begin_in_the_callers_own_locality() -> None:
    level = Level(zone(B, 1, 1) + zone(A, 1, 1, first=5) + zone(C, 1, 1, first=9))
    found = placed(level, Source.HEALTHY, C, by_locality=True, by_hostname=False)
    assert [each.host.endpoint.locality for each in found] == [C, A, B]


@pytest.mark.parametrize("policy", [LbPolicy.RING_HASH, LbPolicy.MAGLEV])
def test_hashes_find_every_locality(policy: LbPolicy) -> None:
    seen = counted(zone(A, 1, 2) + zone(B, 3, 2, first=10), 2000, policy)
    assert seen["b"] == pytest.approx(1500, rel=0.1)


def test_degraded_hosts_have_localities_of_their_own() -> None:
    hosts = zone(A, 1, 0, 8, degraded=2) + zone(B, 1, 0, 8, first=20, degraded=2)
    assert set(counted(hosts, 100)) == {"a", "b"}


def test_the_process_may_be_nowhere() -> None:
    assert Place().locality == Locality()
