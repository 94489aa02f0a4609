"""Where many calls go: three standard deviations and no more."""

from __future__ import annotations

import random
from collections import Counter
from math import sqrt

import pytest

from meshlib.flow.client import client_flow
from meshlib.flow.commands import Attempt
from meshlib.flow.destination import Destination
from meshlib.flow.record import CallRecord
from meshlib.flow.upstream import Upstream
from meshlib.model.call import Call
from meshlib.model.cluster import LbPolicy
from meshlib.model.outcome import Outcome
from meshlib.model.snapshot import Target
from meshlib.testing import service

CALLS = 10_000


def tried(target: Target, seed: int) -> Counter[str]:
    """How often each endpoint is called."""
    rng = random.Random(seed)
    upstreams = {name: Upstream(name) for name in target.clusters}
    for name, config in target.clusters.items():
        upstreams[name].update(config, rng)
    destination = Destination(target, upstreams)
    seen: Counter[str] = Counter()
    for _ in range(CALLS):
        flow = client_flow(Call("GET", target.authority, "/", ()), destination, CallRecord(target.authority, 0.0), rng)
        attempt = next(flow)
        assert isinstance(attempt, Attempt)
        seen[attempt.host.key] += 1
        with pytest.raises(StopIteration):
            flow.send(Outcome(0.0, status=200, complete=True))
    return seen


def within_three_sigma(count: int, share: float) -> bool:
    return abs(count - CALLS * share) <= 3 * sqrt(CALLS * share * (1 - share))


@pytest.mark.parametrize("weights", [(90, 10), (99, 1), (50, 30, 20), (1, 1, 1)])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_split_is_what_its_weights_say(weights: tuple[int, ...], seed: int) -> None:
    subsets = {f"v{index}": [f"10.0.0.{index}:80"] for index in range(len(weights))}
    shares = {f"v{index}": weight for index, weight in enumerate(weights)}
    seen = tried(service("reviews", subsets, weights=shares), seed)
    for index, weight in enumerate(weights):
        assert within_three_sigma(seen[f"10.0.0.{index}:80"], weight / sum(weights))


@pytest.mark.parametrize("policy", list(LbPolicy))
def test_equal_endpoints_get_equal_shares(policy: LbPolicy) -> None:
    """Policies that hash have nothing to hash here, so their choice is as even as their tables are."""
    endpoints = [f"10.0.0.{index}:80" for index in range(4)]
    seen = tried(service("reviews", endpoints, lb_policy=policy), 3)
    slack = 0.06 if policy is LbPolicy.RING_HASH else 0.0
    for key in endpoints:
        assert within_three_sigma(seen[key], 0.25) or abs(seen[key] / CALLS - 0.25) < slack
