"""Hosts that have just joined get little at first."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from meshlib.model.cluster import Balancing, Cluster, LbPolicy
from meshlib.model.cluster import SlowStart as Settings
from meshlib.policy.balancing import Balancer, Host, balance
from meshlib.policy.balancing.slow_start import SlowStart
from tests.support.hosts import made

WINDOW = 100.0


@pytest.mark.parametrize(
    ("share", "linear", "faster", "slower"),
    [
        (0.001, 0.1, 0.1, 0.1),
        (0.1, 0.1, 0.3162, 0.1),
        (0.25, 0.25, 0.5, 0.1),
        (0.5, 0.5, 0.7071, 0.25),
        (0.9, 0.9, 0.9487, 0.81),
        (1.0, 1.0, 1.0, 1.0),
    ],
)
def test_factors(share: float, linear: float, faster: float, slower: float) -> None:
    (host,) = made((1,))
    host.recovered = 1000.0
    now = 1000.0 + share * WINDOW
    for aggression, expected in ((1.0, linear), (2.0, faster), (0.5, slower)):
        assert SlowStart(Settings(WINDOW, aggression)).factor(host, now) == pytest.approx(expected, abs=1e-4)


def balancer(policy: LbPolicy, pool: list[Host], rng: random.Random, now: float) -> Balancer:
    cluster = Cluster("c", lb_policy=policy, balancing=Balancing(slow_start=Settings(WINDOW)))
    found = balance(cluster, pool, rng, now).balancer
    assert found is not None
    return found


def counted(of: Balancer, rng: random.Random, now: float, count: int) -> Counter[int]:
    seen: Counter[int] = Counter()
    for _ in range(count):
        host = of.pick(rng, now)
        assert host is not None
        seen[host.endpoint.port - 21001] += 1
    return seen


@pytest.mark.parametrize("policy", [LbPolicy.ROUND_ROBIN, LbPolicy.LEAST_REQUEST])
@pytest.mark.parametrize("weights", [(1, 1), (2, 2)])
def test_a_newcomer_warms_up(policy: LbPolicy, weights: tuple[int, int]) -> None:
    rng = random.Random(1)
    pool = made(weights)
    pool[0].recovered, pool[1].recovered = 0.0, 1000.0
    of = balancer(policy, pool, rng, 1000.0)
    for elapsed, share in ((0.0, 0.1), (50.0, 0.5), (90.0, 0.9)):
        counted(of, rng, 1000.0 + elapsed, 50)  # what was scheduled by older weights
        seen = counted(of, rng, 1000.0 + elapsed, 1000)
        assert seen[1] / seen[0] == pytest.approx(share, rel=0.1)


def test_afterwards_equal_weights_are_equal_again() -> None:
    rng = random.Random(1)
    pool = made((1, 1))
    pool[1].recovered = 1000.0
    of = balancer(LbPolicy.ROUND_ROBIN, pool, rng, 1000.0)
    counted(of, rng, 1000.0, 100)
    assert counted(of, rng, 1000.0 + WINDOW, 100) == {0: 50, 1: 50}


def test_random_choices_do_not_warm_up() -> None:
    rng = random.Random(1)
    pool = made((1, 1))
    pool[1].recovered = 1000.0
    seen = counted(balancer(LbPolicy.RANDOM, pool, rng, 1000.0), rng, 1000.0, 1000)
    assert seen[1] > 400
