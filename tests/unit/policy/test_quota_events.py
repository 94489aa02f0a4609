"""What is told of shared limits, and what a process has of them."""

from __future__ import annotations

from meshlib.model.rate_limit import Abandon, TokenBucket
from meshlib.policy.quota import Shares
from meshlib.telemetry.events import EVENTS, Event
from tests.unit.policy.test_quota import Scene


def test_another_share_is_an_event_and_the_same_again_is_none() -> None:
    scene, told = Scene(), list[Event]()
    scene.limits.emit = told.append
    scene.ask(0.0)
    scene.assign(0.0, TokenBucket(5, 1.0, 5))
    scene.assign(2.0, TokenBucket(5, 1.0, 5))
    scene.assign(4.0, TokenBucket(3, 1.0, 3))
    scene.limits.apply([Abandon(scene.limit.buckets["GET",].id)], 6.0)
    assert [(event.name, event.at, event.reason) for event in told] == [
        ("quota.assigned", 0.0, "default/p/all"),
        ("quota.assigned", 4.0, "default/p/all"),
        ("quota.abandoned", 6.0, "default/p/all"),
    ]
    assert {event.name for event in told} <= EVENTS.keys()


def test_shares_are_summed_up_as_long_as_they_hold() -> None:
    scene = Scene(after=5.0)
    scene.ask(0.0, key="GET")
    scene.ask(0.0, key="PUT")
    assert scene.limit.shares(0.0) == Shares(0, 2, 0.0, 0)
    scene.assign(0.0, TokenBucket(5, 1.0, 5), ttl=10.0)
    assert scene.limit.shares(1.0) == Shares(1, 1, 5.0, 0)
    assert scene.limit.shares(14.9) == Shares(1, 1, 5.0, 0)  # over, and kept
    assert scene.limit.shares(15.0) == Shares(0, 2, 0.0, 0)


def test_of_a_quota_what_is_left_of_the_grants_counts() -> None:
    scene = Scene(quota=10_000)
    scene.ask(0.0)
    scene.assign(0.0, TokenBucket(100, 1.0, 100))
    before = scene.limit.shares(0.0)
    scene.ask(0.0, 10)
    assert before.granted - scene.limit.shares(0.0).granted == 10
