"""Durations as Go writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib_control.config.durations import format_duration, is_whole_milliseconds, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1.5s", 1.5),
        ("10ms", 0.01),
        ("1h", 3600.0),
        ("1h30m", 5400.0),
        ("1m0.5s", 60.5),
        (".5s", 0.5),
        ("2.s", 2.0),
        ("0s", 0.0),
        ("0", 0.0),
        ("-1s", -1.0),
        ("+1s", 1.0),
        ("100us", 0.0001),
        ("100µs", 0.0001),
        ("5ns", 5e-9),
        ("2.000000005s", 2.000000005),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "1", "1.5", "1 s", "1sec", "1d", "1s ", "s1", "--1s", ".s", "1,5s", "9" * 60 + "h", "300y", "\u0661s"]
)
def test_what_is_not_a_duration(text: str) -> None:
    assert parse_duration(text) is None


@given(st.integers(min_value=-9 * 10**12, max_value=9 * 10**12))
def test_what_is_written_reads_back(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(min_value=0, max_value=10**8))
def test_whole_milliseconds_are_told_from_nanoseconds(milliseconds: int) -> None:
    assert is_whole_milliseconds(milliseconds / 1000)
    text = f"{milliseconds // 1000}.{milliseconds % 1000:03d}000001s"
    parsed = parse_duration(text)
    assert parsed is not None
    assert not is_whole_milliseconds(parsed)


def test_the_shortest_form_is_written() -> None:
    assert [format_duration(value) for value in (0.0, 0.01, 1.5, 60.0, 0.0001)] == ["0s", "10ms", "1.5s", "60s", "0.0001s"]
