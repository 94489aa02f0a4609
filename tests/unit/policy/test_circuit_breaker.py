"""The circuit breaker by failure rate, moment by moment."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.outcome import Outcome, Reset
from meshlib.model.resilience import CircuitBreaker
from meshlib.policy.circuit_breaker import FailureRateBreaker, State
from meshlib.policy.failures import is_failure, says_something

RNG = Random(1)
POLICY = CircuitBreaker(
    failure_percent=50.0, min_requests=10, window=10.0, open_duration=5.0, max_open_duration=30.0, half_open_requests=3
)


def attempt(breaker: FailureRateBreaker, now: float, status: int = 200) -> bool:
    """Make one attempt that ends at once; False: it was kept away."""
    if breaker.admit(now, RNG):
        return False
    breaker.settle(Outcome(now, status=status), now)
    return True


def state_of(breaker: FailureRateBreaker) -> State:
    return breaker.state


def opened(policy: CircuitBreaker = POLICY, now: float = 100.0) -> FailureRateBreaker:
    breaker = FailureRateBreaker(policy)
    for _ in range(policy.min_requests):
        attempt(breaker, now, 503)
    assert state_of(breaker) is State.OPEN
    return breaker


@pytest.mark.parametrize(
    ("outcome", "failure"),
    [
        (Outcome(0.0, status=200), False),
        (Outcome(0.0, status=404), False),
        (Outcome(0.0, status=429), False),
        (Outcome(0.0, status=499), False),
        (Outcome(0.0, status=500), True),
        (Outcome(0.0, status=503), True),
        (Outcome(0.0, status=200, headers=((b"grpc-status", b"0"),)), False),
        (Outcome(0.0, status=200, headers=((b"grpc-status", b"5"),)), False),
        (Outcome(0.0, status=200, headers=((b"grpc-status", b"14"),)), True),
        (Outcome(0.0, reset=Reset.CONNECT_FAILURE, sent=False), True),
        (Outcome(0.0, reset=Reset.CONNECTION_TERMINATION), True),
        (Outcome(0.0, reset=Reset.PER_TRY_TIMEOUT), True),
        (Outcome(0.0, reset=Reset.TIMEOUT), True),
    ],
)
def test_what_counts_as_a_failure(outcome: Outcome, failure: bool) -> None:
    assert says_something(outcome)
    assert is_failure(outcome) is failure


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(0.0, reset=Reset.LOCAL),
        Outcome(0.0, reset=Reset.OVERFLOW, sent=False),
        Outcome(0.0, reset=Reset.POOL_TIMEOUT, sent=False),
        Outcome(0.0, reset=Reset.TIMEOUT, sent=False),
    ],
)
def test_what_is_the_callers_own_doing_says_nothing(outcome: Outcome) -> None:
    assert not says_something(outcome)
    breaker = FailureRateBreaker(POLICY)
    for _ in range(100):
        assert not breaker.admit(1.0, RNG)
        breaker.settle(outcome, 1.0)
    assert state_of(breaker) is State.CLOSED


def test_too_few_requests_decide_nothing() -> None:
    breaker = FailureRateBreaker(POLICY)
    for _ in range(9):
        attempt(breaker, 1.0, 500)
    assert state_of(breaker) is State.CLOSED
    attempt(breaker, 1.0, 500)
    assert state_of(breaker) is State.OPEN


@pytest.mark.parametrize(("failures", "state"), [(49, State.CLOSED), (50, State.OPEN)])
def test_it_opens_at_the_share_of_failures(failures: int, state: State) -> None:
    breaker = FailureRateBreaker(POLICY)
    for _ in range(100 - failures):
        attempt(breaker, 1.0)
    for _ in range(failures):
        attempt(breaker, 1.0, 500)
    assert state_of(breaker) is state


def test_failures_older_than_the_window_are_forgotten() -> None:
    breaker = FailureRateBreaker(POLICY)
    for _ in range(9):
        attempt(breaker, 1.0, 500)
    for second in range(12, 21):
        attempt(breaker, float(second), 200)
    attempt(breaker, 21.0, 500)
    assert state_of(breaker) is State.CLOSED


def test_open_lets_nobody_through_and_says_for_how_long() -> None:
    breaker = opened()
    assert "another 3.0 s" in breaker.admit(102.0, RNG)
    assert breaker.retry_after(102.0) == 3.0
    assert breaker.rejected == 1


def test_after_its_time_it_lets_as_many_probes_through_as_it_may_and_closes_when_all_succeed() -> None:
    breaker = opened()
    assert [breaker.admit(105.0, RNG) == "" for _ in range(5)] == [True, True, True, False, False]
    for _ in range(2):
        breaker.settle(Outcome(105.1, status=200), 105.0)
    assert state_of(breaker) is State.HALF_OPEN
    assert breaker.admit(105.2, RNG) == "the circuit breaker is half-open, and its probes are under way"
    breaker.settle(Outcome(105.2, status=200), 105.0)
    assert state_of(breaker) is State.CLOSED
    assert attempt(breaker, 105.3)


def test_a_probe_that_fails_opens_it_for_twice_as_long_up_to_the_maximum() -> None:
    breaker = opened()
    now, lengths = 105.0, []
    for _ in range(5):
        assert attempt(breaker, now, 503)
        lengths.append(breaker.retry_after(now))
        now += lengths[-1]
    assert lengths == [10.0, 20.0, 30.0, 30.0, 30.0]


def test_closing_forgets_how_often_it_was_open() -> None:
    breaker = opened()
    attempt(breaker, 105.0, 503)
    for _ in range(3):
        assert attempt(breaker, 115.0)
    for _ in range(10):
        attempt(breaker, 116.0, 503)
    assert breaker.retry_after(116.0) == 5.0


def test_what_was_under_way_before_it_opened_is_no_probe() -> None:
    breaker = FailureRateBreaker(POLICY)
    assert not breaker.admit(99.0, RNG)
    for _ in range(10):
        attempt(breaker, 100.0, 503)
    assert not breaker.admit(105.0, RNG)
    breaker.settle(Outcome(105.5, status=503), 99.0)
    assert state_of(breaker) is State.HALF_OPEN
    for began in (105.0,):
        breaker.settle(Outcome(105.6, status=200), began)
    assert state_of(breaker) is State.HALF_OPEN


def test_a_probe_that_is_given_up_makes_room_for_another() -> None:
    breaker = opened()
    for _ in range(3):
        assert not breaker.admit(105.0, RNG)
    assert breaker.admit(105.1, RNG)
    breaker.settle(None, 105.0)
    assert not breaker.admit(105.2, RNG)


def test_probes_that_hang_are_followed_by_others() -> None:
    """Without a timeout anywhere a probe may never end; the breaker is not to stay half-open for that."""
    breaker = opened()
    for _ in range(3):
        assert not breaker.admit(105.0, RNG)
    assert breaker.admit(114.9, RNG)
    assert not breaker.admit(115.0, RNG)
    for _ in range(2):
        assert not breaker.admit(115.0, RNG)
    for _ in range(3):
        breaker.settle(Outcome(115.1, status=200), 115.0)
    assert state_of(breaker) is State.CLOSED
    breaker.settle(Outcome(115.2, status=503), 105.0)
    assert state_of(breaker) is State.CLOSED


def test_a_person_can_open_and_close_it() -> None:
    breaker = FailureRateBreaker(POLICY)
    breaker.trip(10.0)
    assert breaker.admit(11.0, RNG)
    breaker.reset(11.0)
    assert attempt(breaker, 11.0)


def test_followers_are_told_each_change_once() -> None:
    seen: list[tuple[str, str, float]] = []
    breaker = FailureRateBreaker(POLICY, lambda before, after, at: seen.append((before.value, after.value, at)))
    for _ in range(10):
        attempt(breaker, 100.0, 503)
    for _ in range(3):
        attempt(breaker, 105.5)
    assert seen == [("closed", "open", 100.0), ("open", "half-open", 105.5), ("half-open", "closed", 105.5)]


STEPS = st.lists(
    st.tuples(st.floats(0.0, 4.0), st.sampled_from(["begin", "succeed", "fail", "abandon"]), st.integers(0, 50)), max_size=200
)


@given(STEPS)
def test_it_never_lets_more_probes_through_than_it_may(steps: list[tuple[float, str, int]]) -> None:
    """However attempts begin and end: between two changes of its state, no more than `half_open_requests` are under way."""
    breaker = FailureRateBreaker(CircuitBreaker(min_requests=2, half_open_requests=3, open_duration=2.0, max_open_duration=8.0))
    now, running, probing, since = 0.0, [], 0, 0.0  # type: float, list[float], int, float
    moves: list[State] = []
    breaker.followers.append(lambda before, after, at: moves.append(after))
    for pause, action, choice in steps:
        now += pause
        if action == "begin":
            before = len(moves)
            admitted = not breaker.admit(now, RNG)
            if len(moves) > before or (breaker.state is State.HALF_OPEN and now - since >= 2.0):
                probing, since = 0, now
            if admitted:
                running.append(now)
                probing += breaker.state is State.HALF_OPEN
            assert state_of(breaker) is not State.OPEN or not admitted
            assert probing <= 3 or breaker.state is not State.HALF_OPEN
        elif running:
            began = running.pop(choice % len(running))
            probing -= breaker.state is State.HALF_OPEN and began >= since
            outcome = None if action == "abandon" else Outcome(now, status=200 if action == "succeed" else 500)
            breaker.settle(outcome, began)


@given(STEPS)
def test_it_always_recovers(steps: list[tuple[float, str, int]]) -> None:
    """Whatever came before, attempts that succeed close it in the end."""
    breaker = FailureRateBreaker(CircuitBreaker(min_requests=2, half_open_requests=3, open_duration=2.0, max_open_duration=8.0))
    now, running = 0.0, []  # type: float, list[float]
    for pause, action, choice in steps:
        now += pause
        if action == "begin":
            if not breaker.admit(now, RNG):
                running.append(now)
        elif running:
            began = running.pop(choice % len(running))
            breaker.settle(None if action == "abandon" else Outcome(now, status=200 if action == "succeed" else 500), began)
    for _ in range(40):
        now += 2.0
        attempt(breaker, now)
    assert state_of(breaker) is State.CLOSED
