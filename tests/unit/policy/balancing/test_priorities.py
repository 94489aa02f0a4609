"""Priorities at work: failover, panic, degraded hosts, retries that keep away from what has failed."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from meshlib.model.cluster import Balancing, Cluster, LbPolicy
from meshlib.model.endpoint import Health
from meshlib.policy.balancing import Host, PickContext, balance
from tests.support.hosts import level


def counted(hosts: list[Host], count: int = 10_000, *, threshold: float = 50.0, seed: int = 3) -> Counter[tuple[int, Health]]:
    rng = random.Random(seed)
    cluster = Cluster("c", lb_policy=LbPolicy.ROUND_ROBIN, balancing=Balancing(panic_threshold=threshold))
    balancer = balance(cluster, hosts, rng).balancer
    assert balancer is not None
    picked = [balancer.pick(rng) for _ in range(count)]
    return Counter((host.endpoint.priority, host.health) for host in picked if host is not None)


@pytest.mark.parametrize(("healthy", "stay"), [(100, 100), (72, 100), (71, 99), (50, 70), (25, 35)])
def test_failover_follows_envoys_table(healthy: int, stay: int) -> None:
    seen = counted(level(0, healthy=healthy, hosts=100) + level(1, healthy=100, hosts=100))
    assert seen[0, Health.HEALTHY] / 100 == pytest.approx(stay, abs=1.5)
    assert set(seen) <= {(0, Health.HEALTHY), (1, Health.HEALTHY)}


def test_degraded_hosts_get_what_healthy_ones_cannot_take() -> None:
    seen = counted(level(0, healthy=1, degraded=1, hosts=4))
    assert seen[0, Health.DEGRADED] / 10_000 == pytest.approx(0.5, abs=0.02)
    alone = counted(level(0, healthy=1, degraded=1, hosts=4) + level(1, healthy=1, hosts=2))
    assert alone[0, Health.DEGRADED] == 0


def test_in_panic_health_is_ignored() -> None:
    assert counted(level(0, healthy=1, hosts=4))[0, Health.UNHEALTHY] == 7500
    assert counted(level(0, healthy=1, hosts=4), threshold=0.0)[0, Health.UNHEALTHY] == 0


@pytest.mark.parametrize("policy", [LbPolicy.RING_HASH, LbPolicy.MAGLEV])
def test_hashes_choose_the_priority_too(policy: LbPolicy) -> None:
    """Envoy: ``hash % 100 + 1`` against the loads."""
    rng = random.Random(1)
    hosts = level(0, healthy=2, hosts=4) + level(1, healthy=2, hosts=2)
    balancer = balance(Cluster("c", lb_policy=policy), hosts, rng).balancer
    assert balancer is not None
    for value in range(0, 1000, 7):
        host = balancer.pick(rng, 0.0, PickContext(value))
        assert host is not None
        assert host.endpoint.priority == (0 if value % 100 < 70 else 1)


def test_degraded_hosts_are_in_no_table_unless_there_are_no_others() -> None:
    rng = random.Random(1)
    cluster = Cluster("c", lb_policy=LbPolicy.MAGLEV, balancing=Balancing(panic_threshold=0.0))
    mixed = balance(cluster, level(0, healthy=1, degraded=1, hosts=4), rng).balancer
    assert mixed is not None
    picked = [mixed.pick(rng, 0.0, PickContext(number * 977)) for number in range(200)]
    assert {host.health for host in picked if host is not None} == {Health.HEALTHY}
    degraded = balance(cluster, level(0, degraded=1, hosts=4), rng).balancer
    assert degraded is not None
    assert degraded.pick(rng, 0.0, PickContext(1)) is not None


def test_retries_leave_out_the_priorities_that_were_tried() -> None:
    rng = random.Random(1)
    hosts = level(0, healthy=2, hosts=2) + level(1, healthy=2, hosts=2) + level(2, healthy=2, hosts=2)
    priorities = balance(Cluster("c"), hosts, rng).priorities
    assert priorities is not None
    first, second, third = hosts[0], hosts[2], hosts[4]
    assert priorities.left_out([first], 1) == {0}
    assert priorities.left_out([first, second], 1) == {0, 1}
    assert priorities.left_out([first, second, third], 1) == frozenset()  # nothing is left: all are taken again
    assert priorities.left_out([first, second, third, first], 1) == {0}
    assert priorities.left_out([first], 2) == frozenset()
    assert priorities.left_out([first, first, second], 2) == {0}
    picked = [priorities.pick(rng, 0.0, PickContext(left_out=frozenset({0}))) for _ in range(50)]
    assert {host.endpoint.priority for host in picked if host is not None} == {1}


def test_one_priority_is_never_left_out() -> None:
    assert balance(Cluster("c"), level(0, healthy=2, hosts=2), random.Random(1)).priorities is None
