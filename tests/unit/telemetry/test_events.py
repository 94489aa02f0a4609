"""Events in words, and how often one is spoken of."""

from __future__ import annotations

import pytest

from meshlib.telemetry.events import ALARMING, EVENTS, FREQUENT, Event, Throttle


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Event("circuit_breaker.closed", 1.0), "circuit_breaker.closed"),
        (Event("rate_limit.limited", 1.0, reason="a/b/c"), "rate_limit.limited (a/b/c)"),
        (Event("x", 1.0, "outbound|80||reviews", "10.0.0.1:80", "why"), "x 10.0.0.1:80 of outbound|80||reviews (why)"),
        (Event("x", 1.0, endpoint=":80"), "x :80"),
    ],
)
def test_an_event_is_one_line_for_people(event: Event, line: str) -> None:
    assert str(event) == line


def test_what_is_told_loudly_or_softly_exists() -> None:
    assert EVENTS.keys() >= ALARMING | FREQUENT
    assert not ALARMING & FREQUENT


def test_a_throttle_lets_the_first_pass_and_then_one_an_interval() -> None:
    throttle = Throttle(1.0)
    times = [0.0, 0.5, 0.99, 1.0, 1.5, 2.1]
    assert [at for at in times if throttle.lets(at)] == [0.0, 1.0, 2.1]
