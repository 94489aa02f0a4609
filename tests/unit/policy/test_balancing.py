"""Endpoint choice."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from meshlib.model.cluster import Cluster, LbPolicy
from meshlib.model.endpoint import Endpoint, Health
from meshlib.policy.balancing import Host, build_balancer, usable


def hosts(*weights: int, **fields: object) -> list[Host]:
    made = []
    for index, weight in enumerate(weights):
        host = Host(Endpoint("10.0.0.1", 1000 + index, weight=weight, **fields))  # type: ignore[arg-type]
        made.append(host)
    return made


def picks(policy: LbPolicy, pool: list[Host], count: int, *, busy: bool = False) -> Counter[int]:
    rng = random.Random(3)
    balancer = build_balancer(Cluster("c", lb_policy=policy), pool, rng)
    assert balancer is not None
    seen: Counter[int] = Counter()
    for _ in range(count):
        host = balancer.pick(rng)
        seen[host.endpoint.port - 1000] += 1
        host.active += busy
    return seen


def test_round_robin_takes_turns() -> None:
    assert picks(LbPolicy.ROUND_ROBIN, hosts(1, 1, 1), 300) == {0: 100, 1: 100, 2: 100}


@pytest.mark.parametrize("policy", [LbPolicy.ROUND_ROBIN, LbPolicy.LEAST_REQUEST])
def test_weights_hold_over_whole_cycles(policy: LbPolicy) -> None:
    """Envoy: with weights 1,2,3,5,7 any 18 picks are spread 1,2,3,5,7."""
    seen = picks(policy, hosts(1, 2, 3, 5, 7), 1800)
    for index, weight in enumerate((1, 2, 3, 5, 7)):
        assert abs(seen[index] - 100 * weight) <= 1


def test_random_ignores_weights() -> None:
    seen = picks(LbPolicy.RANDOM, hosts(1, 9), 10_000)
    assert 4850 <= seen[0] <= 5150


def test_least_request_avoids_the_busy() -> None:
    pool = hosts(1, 1, 1, 1)
    pool[0].active = 1000
    seen = picks(LbPolicy.LEAST_REQUEST, pool, 4000)
    assert seen[0] < 350  # only when both draws hit it: 1 in 16


def test_least_request_levels_what_is_in_flight() -> None:
    pool = hosts(*[1] * 10)
    picks(LbPolicy.LEAST_REQUEST, pool, 1000, busy=True)
    active = [host.active for host in pool]
    assert max(active) - min(active) <= 8


def test_many_clients_do_not_start_at_the_same_host() -> None:
    pool = hosts(1, 1, 1, 1)
    cluster = Cluster("c", lb_policy=LbPolicy.ROUND_ROBIN)
    firsts = set()
    for seed in range(20):
        rng = random.Random(seed)
        balancer = build_balancer(cluster, pool, rng)
        assert balancer is not None
        firsts.add(balancer.pick(rng).key)
    assert len(firsts) == 4


def test_what_is_usable() -> None:
    healthy, degraded = hosts(1), hosts(1, health=Health.DEGRADED)
    unhealthy, draining = hosts(1, health=Health.UNHEALTHY), hosts(1, health=Health.DRAINING)
    second = hosts(1, priority=1)
    assert usable([*healthy, *degraded, *unhealthy, *draining, *second]) == healthy
    assert usable([*degraded, *unhealthy, *second]) == second
    assert usable([*degraded, *unhealthy]) == degraded
    assert usable([*unhealthy, *draining]) == []
    assert build_balancer(Cluster("c"), [*unhealthy], random.Random(1)) is None
