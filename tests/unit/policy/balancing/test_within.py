"""Which host of those that are eligible."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.model.cluster import Balancing, Cluster, LbPolicy
from meshlib.model.endpoint import Health
from meshlib.policy.balancing import Host, balance
from tests.support.hosts import WEIGHTS, made

NEVER_PANIC = Balancing(panic_threshold=0.0)


def picks(policy: LbPolicy, pool: list[Host], count: int, *, busy: bool = False, bias: float = 1.0) -> Counter[int]:
    rng = random.Random(3)
    cluster = Cluster("c", lb_policy=policy, balancing=Balancing(active_request_bias=bias))
    balancer = balance(cluster, pool, rng).balancer
    assert balancer is not None
    seen: Counter[int] = Counter()
    for _ in range(count):
        host = balancer.pick(rng)
        assert host is not None
        seen[host.endpoint.port - 21001] += 1
        host.active += busy
    return seen


def test_round_robin_takes_turns() -> None:
    assert picks(LbPolicy.ROUND_ROBIN, made((1, 1, 1)), 300) == {0: 100, 1: 100, 2: 100}


@pytest.mark.parametrize("policy", [LbPolicy.ROUND_ROBIN, LbPolicy.LEAST_REQUEST])
def test_weights_hold_over_whole_cycles(policy: LbPolicy) -> None:
    """Envoy: with weights 1,2,3,5,7 any 18 picks are spread 1,2,3,5,7."""
    seen = picks(policy, made(WEIGHTS), 1800)
    for index, weight in enumerate(WEIGHTS):
        assert abs(seen[index] - 100 * weight) <= 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=2, max_size=8))
def test_shares_are_those_of_the_weights(weights: list[int]) -> None:
    cycles = 20
    seen = picks(LbPolicy.ROUND_ROBIN, made(weights), cycles * sum(weights))
    for index, weight in enumerate(weights):
        assert abs(seen[index] - cycles * weight) <= 2


def test_random_ignores_weights() -> None:
    seen = picks(LbPolicy.RANDOM, made((1, 9)), 10_000)
    assert 4850 <= seen[0] <= 5150


def test_least_request_avoids_the_busy() -> None:
    pool = made((1, 1, 1, 1))
    pool[0].active = 1000
    seen = picks(LbPolicy.LEAST_REQUEST, pool, 4000)
    assert seen[0] < 350  # only when both draws hit it: 1 in 16


def test_least_request_levels_what_is_in_flight() -> None:
    pool = made([1] * 10)
    picks(LbPolicy.LEAST_REQUEST, pool, 1000, busy=True)
    active = [host.active for host in pool]
    assert max(active) - min(active) <= 8


@pytest.mark.parametrize(("bias", "expected"), [(0.0, 1 / 2), (0.5, 1 / 3.16), (1.0, 1 / 10), (2.0, 1 / 100)])
def test_the_active_request_bias_weighs_what_is_in_flight(bias: float, expected: float) -> None:
    """Weights 2 and 4, and nine requests in flight on the second: 4 / 10**bias against 2."""
    pool = made((2, 4))
    pool[1].active = 9
    seen = picks(LbPolicy.LEAST_REQUEST, pool, 3000, bias=bias)
    assert seen[0] / seen[1] == pytest.approx(0.5 * 10**bias, rel=0.05)


def test_many_clients_do_not_start_at_the_same_host() -> None:
    pool = made((1, 1, 1, 1))
    firsts = set()
    for seed in range(20):
        rng = random.Random(seed)
        balancer = balance(Cluster("c", lb_policy=LbPolicy.ROUND_ROBIN), pool, rng).balancer
        assert balancer is not None
        host = balancer.pick(rng)
        assert host is not None
        firsts.add(host.key)
    assert len(firsts) == 4


def test_what_may_be_picked() -> None:
    healthy, degraded = made((1,), first=1), made((1,), first=2, health=Health.DEGRADED)
    down = [*made((1,), first=3, health=Health.UNHEALTHY), *made((1,), first=4, health=Health.DRAINING)]
    second = made((1,), first=5, priority=1)
    cluster = Cluster("c", balancing=NEVER_PANIC)
    rng = random.Random(1)
    assert balance(cluster, [*healthy, *made((1,), first=6), *down, *second], rng).hosts[:1] == tuple(healthy)
    assert balance(cluster, [*degraded, *down], rng).hosts == tuple(degraded)
    assert balance(cluster, [*down, *second], rng).hosts == tuple(second)
    assert balance(cluster, down, rng).balancer is None
    assert balance(Cluster("c"), down, rng).hosts == tuple(down)  # in panic
    assert balance(cluster, [], rng).balancer is None
