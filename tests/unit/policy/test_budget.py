"""What the floor of the retry budget is good for: earned by what goes well, and soon spent where everything fails."""

from __future__ import annotations

from random import Random

import pytest

from meshlib.model.cluster import CircuitBreakers
from meshlib.policy.budget import FLOOR_RETRIES, FloorCredit

BREAKERS = CircuitBreakers(retry_budget_percent=20.0, min_retry_concurrency=3)
CALLS = 20_000


def amplification(failing: float, *, rate: float = 1000.0, breakers: CircuitBreakers = BREAKERS) -> float:
    """Attempts for each of many calls, one after the other, that are tried once more if they may."""
    credit, dice, attempted = FloorCredit(breakers, 0.0), Random(3), 0
    for number in range(CALLS):
        attempted += 1
        if dice.random() >= failing:
            continue
        credit.failed += 1
        if credit.spend(breakers, attempted, number / rate):
            attempted += 1
            credit.failed += dice.random() < failing
    return attempted / CALLS


def test_when_everything_fails_there_is_hardly_a_retry() -> None:
    assert amplification(1.0) == pytest.approx(1.0, abs=0.002)


@pytest.mark.parametrize("failing", [0.01, 0.1, 0.19])
def test_a_share_of_failures_within_the_budget_is_tried_again(failing: float) -> None:
    assert amplification(failing) == pytest.approx(1.0 + failing, abs=0.01)


def test_no_share_of_failures_exceeds_the_budget() -> None:
    assert max(amplification(share / 20) for share in range(21)) <= 1.21


def test_who_calls_once_in_a_while_may_always_try_again() -> None:
    assert amplification(1.0, rate=0.2) == pytest.approx(2.0, abs=0.01)


def test_it_begins_with_enough_for_a_short_outage_and_saves_up_no_more() -> None:
    credit = FloorCredit(BREAKERS, 0.0)
    for attempted in (0, 1_000_000):
        granted = sum(credit.spend(BREAKERS, attempted, 0.0) for _ in range(1000))
        assert granted == FLOOR_RETRIES * 3


def test_a_floor_of_nothing_is_good_for_nothing() -> None:
    none = CircuitBreakers(min_retry_concurrency=0)
    assert not FloorCredit(none, 0.0).spend(none, 1000, 1000.0)
