"""Priority loads and panic: Envoy's table, and what holds for any."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.policy.balancing.loads import Availability, PriorityLoads, loads_without, priority_loads

Counts = tuple[int, int, int]
"""Healthy, degraded, all."""


def loads(*levels: Counts, threshold: float = 50.0, factor: int = 140) -> PriorityLoads:
    return priority_loads([Availability(*level) for level in levels], overprovisioning=factor, panic_threshold=threshold)


TABLE: list[tuple[tuple[Counts, ...], tuple[int, ...], tuple[int, ...], str]] = [
    # levels, percent for their healthy hosts, for their degraded ones, those in panic
    (((2, 0, 4), (2, 0, 2)), (70, 30), (0, 0), ""),
    (((1, 1, 4),), (50,), (50,), ""),
    (((1, 1, 4), (1, 0, 2)), (35, 65), (0, 0), ""),
    (((1, 0, 4),), (100,), (0,), "0"),
    (((1, 0, 4), (1, 0, 2)), (35, 65), (0, 0), ""),
    (((0, 0, 3), (0, 0, 1)), (75, 25), (0, 0), "01"),
    (((71, 0, 100), (100, 0, 100)), (99, 1), (0, 0), ""),
    (((25, 0, 100), (25, 0, 100)), (50, 50), (0, 0), "01"),
    (((5, 0, 100), (65, 0, 100)), (8, 92), (0, 0), "0"),  # Envoy's documentation says 7 and 93
    (((0, 0, 0), (3, 0, 3)), (0, 100), (0, 0), ""),
    (((50, 0, 100), (50, 0, 100), (50, 0, 100)), (70, 30, 0), (0, 0, 0), ""),
    (((1, 0, 3), (1, 0, 3), (0, 1, 3)), (46, 46, 0), (0, 0, 8), ""),
    # its documentation of failover: 100, 72, 71, 50, 25 % of priority 0
    (((100, 0, 100), (100, 0, 100)), (100, 0), (0, 0), ""),
    (((72, 0, 100), (100, 0, 100)), (100, 0), (0, 0), ""),
    (((50, 0, 100), (100, 0, 100)), (70, 30), (0, 0), ""),
    (((25, 0, 100), (100, 0, 100)), (35, 65), (0, 0), ""),
    (((0, 0, 100), (100, 0, 100)), (0, 100), (0, 0), ""),
]


@pytest.mark.parametrize(("levels", "healthy", "degraded", "panic"), TABLE)
def test_envoys_table(levels: tuple[Counts, ...], healthy: tuple[int, ...], degraded: tuple[int, ...], panic: str) -> None:
    found = loads(*levels)
    assert (found.healthy, found.degraded) == (healthy, degraded)
    assert "".join(str(priority) for priority, ignored in enumerate(found.panic) if ignored) == panic


def test_without_panic_hosts_that_are_down_get_nothing() -> None:
    assert loads((0, 0, 1), threshold=0) == ((0,), (0,), (False,))
    assert loads((1, 0, 4), threshold=0) == ((100,), (0,), (False,))


def test_the_last_healthy_host_of_many_is_found() -> None:
    """One of a thousand is less than a percent."""
    assert loads((0, 0, 1000), (1, 0, 1000), threshold=0).healthy == (0, 100)
    assert loads((0, 0, 1000), (0, 1, 1000), threshold=0).degraded == (0, 100)


def test_the_threshold_is_rounded_to_whole_percent() -> None:
    assert loads((1, 0, 4), threshold=25.4).panic == (False,)
    assert loads((1, 0, 4), threshold=25.5).panic == (True,)


def test_overprovisioning_is_configurable() -> None:
    assert loads((1, 0, 2), (1, 0, 1), factor=100).healthy == (50, 50)
    assert loads((1, 0, 2), (1, 0, 1), factor=200).healthy == (100, 0)


def test_priorities_can_be_left_out() -> None:
    levels = [Availability(2, 0, 2), Availability(1, 0, 2), Availability(2, 0, 2)]
    whole = priority_loads(levels)
    assert loads_without(levels, {0}, whole) == ((0, 70, 30), (0, 0, 0), whole.panic)
    assert loads_without(levels, {0, 1}, whole) == ((0, 0, 100), (0, 0, 0), whole.panic)
    assert loads_without(levels, {0, 1, 2}, whole) is None


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=5),
    st.integers(0, 100),
    st.integers(100, 300),
)
def test_everything_goes_somewhere(counts: list[Counts], threshold: int, factor: int) -> None:
    """All loads are 100 % unless nobody can be used at all, and nobody gets anything who has no host for it."""
    levels = [(healthy, degraded, healthy + degraded + down) for healthy, degraded, down in counts]
    found = loads(*levels, threshold=threshold, factor=factor)
    total = sum(found.healthy) + sum(found.degraded)
    hosts = sum(level[2] for level in levels)
    usable = sum(level[0] + level[1] for level in levels)
    assert total == (100 if usable or (hosts and threshold) else total)
    assert total in (0, 100)
    for (healthy, degraded, every), to_healthy, to_degraded, panic in zip(levels, *found, strict=True):
        assert 0 <= to_healthy <= 100
        assert 0 <= to_degraded <= 100
        if hosts:
            assert not to_healthy or (every if panic else healthy)
            assert not to_degraded or degraded


@given(st.integers(1, 100))
def test_numbers_are_spread_as_the_loads_say(number: int) -> None:
    found = PriorityLoads((46, 46, 0), (0, 0, 8), (False, False, False))
    assert found.choose(number) == ((0, False) if number <= 46 else (1, False) if number <= 92 else (2, True))
