"""Token buckets: how much, how fast, and for how many."""

from __future__ import annotations

import pytest

from meshlib_control.ca.limits import Rate, RateLimiter, origin_of
from tests.support.authority import SettableClock


def test_a_burst_and_then_the_rate() -> None:
    clock = SettableClock()
    limiter = RateLimiter(Rate(2.0, 3.0), clock=clock)
    assert [limiter.allow("a") for _ in range(4)] == [True, True, True, False]
    clock.now += 0.5
    assert [limiter.allow("a") for _ in range(2)] == [True, False]
    clock.now += 3600
    assert [limiter.allow("a") for _ in range(4)] == [True, True, True, False]


def test_one_does_not_use_up_what_another_has() -> None:
    limiter = RateLimiter(Rate(1.0, 1.0), clock=SettableClock())
    assert limiter.allow("a")
    assert not limiter.allow("a")
    assert limiter.allow("b")


def test_a_refusal_costs_nothing() -> None:
    clock = SettableClock()
    limiter = RateLimiter(Rate(1.0, 1.0), clock=clock)
    limiter.allow("a")
    for _ in range(100):
        clock.now += 0.01
        limiter.allow("a")
    clock.now += 0.01
    assert limiter.allow("a")


def test_made_up_keys_cost_no_memory() -> None:
    limiter = RateLimiter(Rate(1.0, 1.0), capacity=10, clock=SettableClock())
    for number in range(1000):
        limiter.allow(str(number))
    assert len(limiter._buckets) == 10


def test_a_clock_that_goes_back_takes_nothing_away() -> None:
    clock = SettableClock()
    limiter = RateLimiter(Rate(1.0, 2.0), clock=clock)
    assert limiter.allow("a")
    clock.now -= 3600
    assert limiter.allow("a")


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("", "unknown"),
        ("unix:/socket", "unknown"),
    ],
)
def test_what_counts_as_one_caller(address: str, origin: str) -> None:
    assert origin_of(address) == origin
