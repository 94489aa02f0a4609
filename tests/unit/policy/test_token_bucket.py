"""Token buckets: what is never exceeded, in whatever order things happen, and what memory they take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.rate_limit import TokenBucket
from meshlib.policy.token_bucket import TokenBuckets

TEN = TokenBucket(10, 1.0, 10)


def taken(buckets: TokenBuckets, key: str, now: float, asked: int = 1) -> int:
    """How many of `asked` requests pass at once."""
    passed = 0
    for _ in range(asked):
        if not buckets.standing(key, now).wait:
            buckets.take(key, now)
            passed += 1
    return passed


def test_a_bucket_starts_full_and_refills_continuously() -> None:
    """As Envoy's: 10 in a second are back after a quarter of it by two, not by steps of an interval."""
    buckets = TokenBuckets(TEN, 100)
    assert taken(buckets, "a", 100.0, 20) == 10
    assert taken(buckets, "a", 100.25, 20) == 2
    assert taken(buckets, "a", 200.0, 20) == 10


def test_how_long_to_wait_is_exact() -> None:
    buckets = TokenBuckets(TEN, 100)
    taken(buckets, "a", 5.0, 10)
    wait = buckets.standing("a", 5.0).wait
    assert wait == pytest.approx(0.1)
    assert taken(buckets, "a", 5.0 + wait / 2) == 0
    assert taken(buckets, "a", 5.0 + wait) == 1


@given(
    tokens=st.integers(1, 1000),
    interval=st.floats(0.001, 3600),
    burst=st.integers(1, 500),
    steps=st.lists(st.tuples(st.floats(0, 5), st.integers(1, 50)), max_size=60),
)
def test_no_interleaving_gets_more_than_burst_plus_rate_times_time(
    tokens: int, interval: float, burst: int, steps: list[tuple[float, int]]
) -> None:
    """For every span of time, not only from the start."""
    buckets = TokenBuckets(TokenBucket(tokens, interval, burst), 10)
    now, history = 1000.0, []
    for pause, asked in steps:
        now += pause
        history.append((now, taken(buckets, "k", now, asked)))
    for first in range(len(history)):
        for last in range(first, len(history)):
            elapsed = history[last][0] - history[first][0]
            passed = sum(count for _, count in history[first : last + 1])
            assert passed <= burst + tokens / interval * elapsed + 1e-3


@given(st.lists(st.tuples(st.floats(0, 0.5), st.integers(0, 40)), max_size=150))
def test_all_keys_together_stay_within_the_bound_of_the_table(steps: list[tuple[float, int]]) -> None:
    """However many keys somebody makes up: 5 buckets and one that the others share."""
    buckets = TokenBuckets(TokenBucket(2, 1.0, 3), 5)
    now, passed = 0.0, 0
    for pause, key in steps:
        now += pause
        passed += taken(buckets, str(key), now)
        assert len(buckets) <= 5
    assert passed <= 6 * (3 + 2 * now) + 1e-3


def test_a_flood_of_keys_gives_nobody_his_tokens_back() -> None:
    """The attack: use a bucket up, push it out of the table with made-up keys, come back to a full one."""
    buckets = TokenBuckets(TEN, 50)
    assert taken(buckets, "me", 0.0, 20) == 10
    for number in range(10_000):
        taken(buckets, f"made-up-{number}", 0.0)
    assert taken(buckets, "me", 0.0, 20) == 0
    assert buckets.overflowed > 0
    assert taken(buckets, "me", 1.0, 20) == 10  # the control: time gives them back


def test_keys_that_nobody_uses_any_more_cost_no_memory() -> None:
    buckets = TokenBuckets(TEN, 1000)
    for number in range(1000):
        taken(buckets, str(number), 0.0)
    assert len(buckets) == 1000
    for number in range(100):
        taken(buckets, f"later-{number}", 10.0)
    assert len(buckets) <= 200


def test_other_limits_keep_each_key_its_share() -> None:
    """As in Envoy: half empty stays half empty."""
    buckets = TokenBuckets(TEN, 100)
    taken(buckets, "half", 0.0, 5)
    taken(buckets, "none", 0.0, 10)
    buckets.resize(TokenBucket(100, 1.0, 40), 100, 0.0)
    assert taken(buckets, "half", 0.0, 100) == 20
    assert taken(buckets, "none", 0.0, 100) == 0
    assert taken(buckets, "new", 0.0, 100) == 40


def test_a_limit_said_again_changes_nothing() -> None:
    buckets = TokenBuckets(TEN, 100)
    taken(buckets, "a", 0.0, 10)
    buckets.resize(TEN, 100, 0.0)
    assert taken(buckets, "a", 0.0, 10) == 0
