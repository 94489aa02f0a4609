"""Replicas of one limit over one store, in virtual time: who gets which part."""

from __future__ import annotations

import pytest

from meshlib.xds.quota import BucketId, TokenBucket, Usage
from meshlib_control.quota.groups import SharedGroup
from meshlib_control.store.memory import MemoryStore
from tests.support.configuring import world

POLICY = """
apiVersion: meshlib.io/v1
kind: RateLimitPolicy
metadata: {name: p, namespace: default}
spec:
  host: reviews
  limits: [{name: shared, tokens: 100, scope: GLOBAL}]
"""
BUCKET: BucketId = (("meshlib.limit", "shared"), ("meshlib.policy", "default/p"))


class Replica:
    """With the requests a second that its clients would send, and what they may."""

    def __init__(self, store: MemoryStore, name: str, **wanted: int) -> None:
        policy = world(POLICY).rate_limits.named("default/p")
        assert policy is not None
        self.group = SharedGroup("default/p", policy.limits[0], store, name)
        self.wanted = wanted
        self.rates = dict.fromkeys(wanted, 0.0)
        self._told = 0

    async def second(self, now: float) -> None:
        for client, requests in self.wanted.items():
            self.group.applied(client, self._told)
            self.group.heard(client, Usage(BUCKET, 1.0, 0, requests), now)
        await self.group.settle(now)
        for stream, assignment, confirm in self.group.assignments(now):
            self._told += 1
            confirm(self._told)
            assert isinstance(assignment.strategy, TokenBucket)
            self.rates[str(stream)] = assignment.strategy.per_second


@pytest.mark.parametrize(
    ("wanted", "rates"),
    [
        ((100, 100), (50, 50)),
        ((1000, 1000), (50, 50)),
        ((1000, 20), (80, 20)),
    ],
)
async def test_who_comes_to_another_replica_gets_his_part_of_what_is_in_use(
    wanted: tuple[int, int], rates: tuple[float, float]
) -> None:
    """The clients of the first have all of it, and would go on using all of it."""
    store = MemoryStore()
    first, second = Replica(store, "first", a=wanted[0]), Replica(store, "second", b=wanted[1])
    for now in range(10):
        await first.second(now)
    assert first.rates == {"a": pytest.approx(100)}
    for now in range(10, 30):
        await first.second(now)
        await second.second(now)
        assert first.rates["a"] + second.rates["b"] <= 100
    assert (first.rates["a"], second.rates["b"]) == pytest.approx(rates, rel=0.05)
