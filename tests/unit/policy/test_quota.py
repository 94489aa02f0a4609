"""The client's side of RLQS, state by state, as the API says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshlib.model.rate_limit import (
    Abandon,
    Assignment,
    Attribute,
    Blanket,
    Descriptor,
    Fallback,
    Period,
    Quota,
    RateLimit,
    TokenBucket,
)
from meshlib.policy.quota import SharedLimit, SharedLimits

SIZE = TokenBucket(10, 1.0, 10)


class Scene:
    """One shared limit; `ask` says how many of so many requests pass at once."""

    def __init__(self, *, allow: bool = False, after: float = 5.0, quota: int = 0, max_buckets: int = 100) -> None:
        self.woken = 0
        self.limits = SharedLimits()
        self.limits.wake = self._wake
        limit = RateLimit(
            "all",
            by=(Descriptor("attribute", Attribute.METHOD),),
            bucket=None if quota else SIZE,
            quota=Quota(quota, Period.DAY) if quota else None,
            shared=True,
            fallback=Fallback(after, allow),
            max_buckets=max_buckets,
        )
        self.limit: SharedLimit = self.limits.counter("default/p", limit, 0.0)

    def _wake(self) -> None:
        self.woken += 1

    def ask(self, now: float, number: int = 1, key: str = "GET") -> int:
        passed = 0
        for _ in range(number):
            if self.limit.standing((key,), now).wait:
                self.limit.refuse((key,), now)
            else:
                self.limit.take((key,), now)
                passed += 1
        return passed

    def assign(self, now: float, strategy: Blanket | TokenBucket | None, ttl: float | None = 10.0, key: str = "GET") -> None:
        self.limits.apply([Assignment(self.limit.buckets[key,].id, ttl, strategy)], now)


def test_a_new_bucket_is_reported_at_once_and_limited_as_if_alone() -> None:
    scene = Scene()
    assert scene.ask(0.0, 15) == 10
    assert scene.woken == 1
    (usage,) = scene.limits.reports(0.0)
    assert (usage.allowed, usage.denied) == (10, 5)
    assert dict(usage.id) == {"meshlib.policy": "default/p", "meshlib.limit": "all", "0:method": "GET"}


def test_counts_begin_anew_with_each_report_and_come_in_the_interval() -> None:
    scene = Scene()
    scene.ask(0.0, 3)
    assert [usage.allowed for usage in scene.limits.reports(0.0)] == [3]
    scene.ask(0.5, 2)
    assert scene.limits.reports(0.5) == []
    (usage,) = scene.limits.reports(1.0)
    assert (usage.allowed, usage.elapsed) == (2, 1.0)


def test_a_share_takes_over_what_was_left_in_proportion() -> None:
    scene = Scene()
    scene.ask(0.0, 5)
    scene.assign(0.0, TokenBucket(4, 1.0, 4))
    assert scene.ask(0.0, 10) == 2
    scene.assign(0.0, TokenBucket(4, 1.0, 4))  # the same again: tokens stay, the time is extended
    assert scene.ask(0.0, 10) == 0


@pytest.mark.parametrize(("strategy", "passed"), [("ALLOW_ALL", 50), ("DENY_ALL", 0), (None, 50)])
def test_blanket_rules(strategy: Blanket | None, passed: int) -> None:
    scene = Scene()
    scene.ask(0.0)
    scene.assign(0.0, strategy)
    assert scene.ask(1.0, 50) == passed


@pytest.mark.parametrize("allow", [True, False])
def test_without_news_the_share_is_kept_for_the_stated_time_and_then_it_is_as_chosen(allow: bool) -> None:
    scene = Scene(allow=allow, after=5.0)
    scene.ask(0.0)
    scene.assign(0.0, TokenBucket(2, 1.0, 2), ttl=10.0)
    for now in (9.0, 11.0, 14.9):
        assert scene.ask(now, 20) == 2
    assert scene.ask(15.1, 20) == (20 if allow else 0)
    scene.assign(16.0, TokenBucket(2, 1.0, 2))
    assert scene.ask(18.0, 20) == 2


@pytest.mark.parametrize("allow", [True, False])
def test_who_never_got_an_answer_is_alone_for_that_time(allow: bool) -> None:
    scene = Scene(allow=allow, after=5.0)
    assert scene.ask(0.0, 20) == 10
    assert scene.ask(4.9, 20) == 10
    assert scene.ask(5.1, 20) == (20 if allow else 0)


@pytest.mark.parametrize("allow", [True, False])
def test_a_bucket_that_finds_no_room_where_others_are_answered_is_neither_free_nor_shut(*, allow: bool) -> None:
    """The control service tells so many buckets of a limit apart: whoever fills them up must not lift the limit for others."""
    scene = Scene(allow=allow, after=5.0)
    scene.ask(0.0, 1, "answered")
    scene.ask(0.0, 1, "crowded out")
    for now in range(0, 60, 5):
        scene.assign(now, TokenBucket(10, 1.0, 10), ttl=6.0, key="answered")
        scene.ask(now, 1, "crowded out")
    assert scene.ask(60.0, 50, "crowded out") == 10
    assert scene.ask(80.0, 50, "crowded out") == (50 if allow else 0)  # nobody is answered any more


def test_an_assignment_without_a_time_to_live_does_not_expire() -> None:
    """The API; Envoy 1.40 takes it for a time of zero."""
    scene = Scene(after=0.0)
    scene.ask(0.0)
    scene.assign(0.0, TokenBucket(2, 1.0, 2), ttl=None)
    assert scene.ask(1e6, 20) == 2


def test_an_abandoned_bucket_is_reported_again_with_the_next_request_and_not_full_for_that() -> None:
    scene = Scene()
    scene.ask(0.0, 20)
    scene.limits.reports(0.0)
    for now in (1.0, 2.0):
        scene.assign(now, TokenBucket(4, 1.0, 4))
        scene.ask(now, 20)
        scene.limits.apply([Abandon(scene.limit.buckets["GET",].id)], now)
        assert scene.limits.reports(now + 0.1) == []  # or it would be abandoned again at once, for ever
        assert scene.limit.shares(now).unassigned == 1
        assert scene.ask(now + 0.25, 20) == 1
        assert len(scene.limits.reports(now + 0.25)) == 1
    assert scene.woken == 3


def test_an_abandoned_quota_is_no_new_one() -> None:
    scene = Scene(quota=5000)
    assert scene.ask(0.0, 20) == 5
    for now in (1.0, 2.0):
        scene.limits.apply([Abandon(scene.limit.buckets["GET",].id)], now)
        assert scene.ask(now, 20) == 0
        assert scene.limits.reports(now)[0].held == 1.0
        scene.assign(now, TokenBucket(1, 1e6, 7))
        assert scene.ask(now, 20) == 7


@pytest.mark.parametrize(("tokens", "passed"), [(20, 2), (5, 0)])
def test_another_size_fills_no_bucket(tokens: int, passed: int) -> None:
    """In proportion: of 10 there were 1 left, of 20 that is 2."""
    scene = Scene()
    scene.ask(0.0, 20)
    scene.assign(0.0, TokenBucket(10, 1.0, 10))
    limit = replace(scene.limit.limit, bucket=TokenBucket(tokens, 1.0, tokens))
    scene.limit.change(limit, 0.1)
    assert scene.ask(0.1, 50) == passed
    assert scene.ask(10.0, 50) == tokens


def test_actions_for_buckets_that_are_not_there_are_passed_over() -> None:
    scene = Scene()
    scene.limits.apply([Assignment((("a", "b"),), 1.0, "DENY_ALL"), Abandon((("a", "b"),))], 0.0)
    assert scene.ask(0.0) == 1


def test_a_new_stream_is_told_all_and_which_share_holds() -> None:
    scene = Scene()
    scene.ask(0.0)
    scene.limits.reports(0.0)
    scene.assign(0.0, TokenBucket(4, 2.0, 4))
    scene.limits.began(0.5)
    (usage,) = scene.limits.reports(0.5)
    assert usage.held == 2.0
    assert scene.limits.reports(2.0)[0].held == 0.0


def test_keys_beyond_the_cap_share_one_bucket() -> None:
    """Made-up values get nobody more, and cost the control service nothing."""
    scene = Scene(max_buckets=3)
    assert sum(scene.ask(0.0, 1, f"made-up-{number}") for number in range(1000)) == 3 + 10
    assert len(scene.limit.buckets) == 3
    assert scene.limit.overflowed == 10


def test_buckets_that_nobody_uses_are_let_go() -> None:
    scene = Scene()
    scene.ask(0.0)
    scene.limits.reports(61.0)
    assert not scene.limit.buckets


def test_a_quota_passes_as_many_as_were_granted_in_all() -> None:
    """Grants and reports may cross: what counts is the sum since the stream began."""
    scene = Scene(quota=5000)
    assert scene.ask(0.0, 20) == 5  # a thousandth of it before the first grant
    scene.assign(0.0, TokenBucket(1, 1e6, 15))
    assert scene.ask(0.0, 100) == 10
    scene.assign(0.0, TokenBucket(1, 1e6, 15))
    assert scene.ask(0.0, 100) == 0
    scene.assign(0.0, TokenBucket(1, 1e6, 20))
    assert scene.ask(0.0, 100) == 5


def test_a_quota_that_is_used_up_tells_until_when() -> None:
    scene = Scene(quota=5000)
    scene.ask(0.0)
    scene.assign(0.0, "DENY_ALL", ttl=7200.0)
    assert scene.limit.standing(("GET",), 0.0).wait == 7200.0


def test_what_is_left_of_a_grant_goes_over_into_the_next_stream() -> None:
    scene = Scene(quota=5000)
    scene.ask(0.0)
    scene.assign(0.0, TokenBucket(1, 1e6, 10))
    assert scene.ask(0.0, 3) == 3
    scene.limits.began(1.0)
    assert scene.ask(1.0, 100) == 6
