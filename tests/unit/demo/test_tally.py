"""Counting what the load saw."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib_control.demo.tally import Figures, Sample, Tally, off_target, percentile


def sample(started: float, version: str = "v1", *, seconds: float = 0.01, retries: int = 0, error: str = "") -> Sample:
    return Sample(started, seconds, "" if error else version, retries, error)


def answered(**versions: int) -> Figures:
    return Figures(requests=sum(versions.values()), versions=versions)


def test_a_window_has_the_requests_that_started_in_it() -> None:
    tally = Tally()
    tally.add([sample(1.0), sample(1.999), sample(2.0, seconds=5.0)])
    assert tally.between(1.0, 2.0).requests == 2
    assert tally.between(2.0, 3.0).requests == 1


def test_samples_that_arrive_out_of_order_count_where_they_started() -> None:
    tally = Tally()
    tally.add([sample(3.0), sample(1.0)])
    tally.forget(2.0)
    assert tally.between(0.0, 10.0).requests == 1


def test_totals_survive_forgetting() -> None:
    tally = Tally()
    tally.add([sample(1.0, retries=2), sample(2.0, error="reset")])
    tally.forget(10.0)
    assert (tally.requests, tally.failed, tally.retries) == (2, 1, 2)


def test_figures_count_versions_retries_and_errors_by_their_text() -> None:
    tally = Tally()
    tally.add([sample(0.0, "v1"), sample(0.0, "v3", retries=1), sample(0.0, "v3"), sample(0.0, error="reset")])
    found = tally.between(0.0, 1.0)
    assert found.versions == {"v1": 1, "v3": 2}
    assert found.split == {"v1": pytest.approx(1 / 3), "v3": pytest.approx(2 / 3)}
    assert (found.retries, found.failed, dict(found.errors)) == (1, 1, {"reset": 1})


def test_figures_of_one_version() -> None:
    tally = Tally()
    tally.add([sample(0.0, "v1", seconds=1.0), sample(0.0, "v3", seconds=3.0)])
    assert tally.between(0.0, 1.0, version="v3").p50 == 3.0


def test_an_empty_window_has_no_split() -> None:
    assert Tally().between(0.0, 1.0) == Figures()
    assert Figures().split == {}


@given(st.lists(st.floats(0, 100), min_size=1), st.integers(1, 100))
def test_a_percentile_is_a_value_that_enough_others_do_not_exceed(values: list[float], percent: int) -> None:
    found = percentile(sorted(values), percent)
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


@pytest.mark.parametrize(
    ("found", "expected", "is_off"),
    [
        (answered(v1=900, v3=100), {"v1": 0.9, "v3": 0.1}, False),
        (answered(v1=880, v3=120), {"v1": 0.9, "v3": 0.1}, False),  # chance
        (answered(v1=500, v3=500), {"v1": 0.9, "v3": 0.1}, True),
        (answered(v1=800, v2=100, v3=100), {"v1": 0.9, "v3": 0.1}, True),  # a version that nobody expects
        (answered(v3=300), {"v1": 0.0, "v3": 1.0}, False),
        (answered(v1=30, v3=270), {"v1": 0.0, "v3": 1.0}, True),
        (answered(), {"v1": 1.0}, True),
        (answered(v1=1, v2=99), {}, False),  # any split will do
    ],
)
def test_a_split_is_off_when_chance_does_not_explain_it(found: Figures, expected: dict[str, float], is_off: bool) -> None:
    assert bool(off_target(found, expected)) is is_off
