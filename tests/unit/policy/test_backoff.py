"""The pause before the next attempt to connect."""

from __future__ import annotations

from random import Random

import pytest

from meshlib.policy.backoff import CONTROL_BACKOFF, Backoff


class Fixed:
    """Dice that always fall the same."""

    def __init__(self, value: float) -> None:
        self._value = value

    def random(self) -> float:
        return self._value

    def randrange(self, stop: int, /) -> int:
        return int(self._value * stop)


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 1.0), (1, 1.0), (2, 1.6), (3, 2.56), (11, 109.95), (12, 120.0), (10**6, 120.0)]
)
def test_grpcs_defaults(failures: int, seconds: float) -> None:
    """gRPC connection backoff: 1 s, times 1.6, at most 120 s."""
    assert CONTROL_BACKOFF.delay(failures, Fixed(0.5)) == pytest.approx(seconds, abs=0.01)


@pytest.mark.parametrize(("die", "factor"), [(0.0, 0.8), (0.5, 1.0), (0.999999, 1.2)])
def test_jitter_is_a_fifth_both_ways_also_at_the_cap(die: float, factor: float) -> None:
    assert Backoff().delay(1, Fixed(die)) == pytest.approx(factor, abs=0.001)
    assert Backoff().delay(50, Fixed(die)) == pytest.approx(120 * factor, abs=0.1)


def test_jitter_spreads_a_fleet() -> None:
    """F28: a thousand clients whose backoff began at once do not come back at once."""
    rng = Random(7)
    delays = sorted(CONTROL_BACKOFF.delay(3, rng) for _ in range(1000))
    busiest = max(sum(start <= delay < start + 0.1 for delay in delays) for start in delays[::10])
    assert busiest < 150
