"""When key sets are fetched, and for how long they hold."""

from __future__ import annotations

import random

from meshlib.policy.jwt_refresh import COOL_DOWN, MAX_AGE, Freshness

RNG = random.Random(1)


def test_a_new_set_is_due_at_once_and_then_again_after_its_interval() -> None:
    fresh = Freshness(refresh=300.0)
    assert fresh.due < 0
    fetched = fresh.succeeded(1000.0, RNG)
    assert 1270 <= fetched.due <= 1330
    assert len({fresh.succeeded(0.0, RNG).due for _ in range(20)}) > 10


def test_failures_are_tried_again_later_and_later() -> None:
    state, pauses = Freshness(refresh=300.0), []
    for _ in range(10):
        state = state.failed(0.0, RNG)
        pauses.append(state.due)
    assert all(0.9 * 2**n <= pause <= 1.1 * 2**n for n, pause in enumerate(pauses[:6]))
    assert all(54 <= pause <= 66 for pause in pauses[6:])
    assert state.succeeded(0.0, RNG).failures == 0


def test_J09_an_unknown_key_hurries_at_most_once_a_minute() -> None:
    state = Freshness(refresh=300.0).succeeded(1000.0, RNG)
    assert state.hurried(1000.0 + COOL_DOWN - 1) == state
    assert state.hurried(1000.0 + COOL_DOWN).due == 1000.0 + COOL_DOWN
    assert Freshness(refresh=300.0).hurried(5.0).due < 0


def test_J12_the_last_good_keys_hold_for_a_week() -> None:
    state = Freshness(refresh=300.0)
    assert state.is_stale(0.0)
    state = state.succeeded(0.0, RNG)
    for hour in range(7 * 24):
        state = state.failed(hour * 3600.0, RNG)
        assert not state.is_stale(hour * 3600.0)
    assert state.is_stale(MAX_AGE + 1)
