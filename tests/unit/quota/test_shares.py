"""Shares of a whole: never more than the whole, fair, and nothing left over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib_control.quota.shares import divide

WANTS = st.dictionaries(st.integers(0, 50), st.floats(0, 1e6), max_size=20)


@given(st.floats(0, 1e6), WANTS)
def test_shares_never_add_up_to_more_than_the_whole(whole: float, wants: dict[int, float]) -> None:
    shares = divide(whole, wants)
    assert shares.keys() == wants.keys()
    assert sum(shares.values()) <= whole * (1 + 1e-9)
    assert all(share >= 0 for share in shares.values())


@given(st.floats(0.1, 1e6), WANTS.filter(bool))
def test_nothing_is_left_over_and_an_equal_part_is_certain(whole: float, wants: dict[int, float]) -> None:
    shares = divide(whole, wants)
    assert sum(shares.values()) == pytest.approx(whole)
    for key, want in wants.items():
        assert shares[key] >= min(want, whole / len(wants)) * (1 - 1e-9)


@pytest.mark.parametrize(
    ("wants", "shares"),
    [
        ({}, {}),
        ({"a": 0.0}, {"a": 90.0}),
        ({"a": 5.0, "b": 500.0}, {"a": 5.0, "b": 85.0}),
        ({"a": 500.0, "b": 500.0, "c": 500.0}, {"a": 30.0, "b": 30.0, "c": 30.0}),
        ({"a": 10.0, "b": 20.0, "c": 30.0}, {"a": 20.0, "b": 30.0, "c": 40.0}),
    ],
)
def test_who_wants_less_leaves_the_rest_to_the_others(wants: dict[str, float], shares: dict[str, float]) -> None:
    assert divide(90.0, wants) == pytest.approx(shares)


def test_who_speaks_for_several_gets_the_parts_of_all_of_them() -> None:
    heads = {"three": 3, "one": 1}
    assert divide(1.0, {"three": 1.0, "one": 1.0}, heads) == pytest.approx({"three": 0.75, "one": 0.25})
    assert divide(1.0, {"three": 0.3, "one": 1.0}, heads) == pytest.approx({"three": 0.3, "one": 0.7})
    assert divide(1.0, {"three": 0.3, "one": 0.3}, heads) == pytest.approx({"three": 0.6, "one": 0.4})
