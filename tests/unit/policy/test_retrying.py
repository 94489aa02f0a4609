"""Which outcomes are tried again, when, and how many at a time."""

from __future__ import annotations

import random

import pytest
import tenacity

from meshlib.model.call import Overrides
from meshlib.model.cluster import CircuitBreakers
from meshlib.model.outcome import Outcome, Reset
from meshlib.model.route import RetryPolicy
from meshlib.policy.budget import may_retry
from meshlib.policy.retrying import Retry, backoff, strategy_wait
from meshlib.testing import DEFAULT_RETRY


def wants(on: str, outcome: Outcome, method: str = "GET", *, codes: tuple[int, ...] = (), unsent_only: bool = False) -> bool:
    policy = RetryPolicy(retry_on=frozenset(on.split(",")), status_codes=frozenset(codes))
    return Retry(policy).wants(outcome, method, unsent_only=unsent_only)


def reset(kind: Reset, *, sent: bool = True) -> Outcome:
    return Outcome(1.0, reset=kind, sent=sent)


def status(code: int, grpc: str = "") -> Outcome:
    return Outcome(1.0, status=code, headers=[(b"grpc-status", grpc.encode())] if grpc else [])


def limited(code: int, grpc: str = "") -> Outcome:
    """The answer of a rate limit."""
    found = status(code, grpc)
    found.headers = [*found.headers, (b"X-Envoy-RateLimited", b"true")]
    return found


@pytest.mark.parametrize(
    ("on", "outcome", "expected"),
    [
        ("5xx", status(500), True),
        ("5xx", status(404), False),
        ("gateway-error", status(502), True),
        ("gateway-error", status(500), False),
        ("retriable-4xx", status(409), True),
        ("retriable-4xx", status(404), False),
        ("503,connect-failure", status(503), True),
        ("503,connect-failure", status(502), False),
        ("unavailable", status(200, "14"), True),
        ("unavailable", status(200, "13"), False),
        ("unavailable", status(503), False),
        ("cancelled,internal", status(200, "13"), True),
        ("connect-failure", reset(Reset.CONNECT_FAILURE, sent=False), True),
        ("connect-failure", reset(Reset.CONNECT_TIMEOUT, sent=False), True),
        ("connect-failure", reset(Reset.CONNECTION_TERMINATION), False),
        ("connect-failure", reset(Reset.CONNECTION_TERMINATION, sent=False), True),
        ("refused-stream", reset(Reset.CONNECT_FAILURE, sent=False), False),
        ("reset", reset(Reset.CONNECTION_TERMINATION), True),
        ("reset", reset(Reset.PER_TRY_TIMEOUT), True),
        ("5xx", reset(Reset.PER_TRY_TIMEOUT), True),
        ("5xx", reset(Reset.TIMEOUT), False),  # the whole call's time is up
        ("5xx,reset", reset(Reset.OVERFLOW, sent=False), False),
        ("reset-before-request", reset(Reset.CONNECTION_TERMINATION, sent=False), True),
        ("reset-before-request", reset(Reset.CONNECTION_TERMINATION), False),
        ("retriable-4xx", reset(Reset.CONNECT_FAILURE, sent=False), False),
        ("envoy-ratelimited", limited(429), True),
        ("envoy-ratelimited", limited(200), True),
        ("envoy-ratelimited", status(429), False),
        ("5xx", limited(503), False),  # who is over a limit only makes it worse
        ("unavailable", limited(200, "14"), False),
        ("unavailable,envoy-ratelimited", limited(200, "14"), True),
    ],
)
def test_retry_on_means_what_envoy_means(on: str, outcome: Outcome, expected: bool) -> None:
    assert wants(on, outcome) is expected


def test_retriable_status_codes() -> None:
    assert wants("retriable-status-codes", status(429), codes=(429,))
    assert not wants("retriable-status-codes", status(503), codes=(429,))
    assert not wants("connect-failure", status(429), codes=(429,))


@pytest.mark.parametrize(
    ("method", "expected"), [("GET", True), ("PUT", True), ("DELETE", True), ("POST", False), ("PATCH", False)]
)
def test_a_lost_connection_repeats_only_what_may_be_repeated(method: str, expected: bool) -> None:
    """The default policy: RFC 9110 section 9.2.2."""
    lost = reset(Reset.CONNECTION_TERMINATION)
    assert Retry(DEFAULT_RETRY).wants(lost, method) is expected
    assert Retry(DEFAULT_RETRY).wants(reset(Reset.CONNECTION_TERMINATION, sent=False), method)
    assert not Retry(DEFAULT_RETRY).wants(reset(Reset.PROTOCOL_ERROR), method)


def test_a_retry_never_follows_a_response_byte() -> None:
    halfway = Outcome(1.0, reset=Reset.CONNECTION_TERMINATION, responded=True)
    assert not wants("reset,5xx,idempotent-reset", halfway)
    assert wants("reset,5xx,idempotent-reset", reset(Reset.CONNECTION_TERMINATION))


def test_a_hop_that_is_itself_a_retry_repeats_only_what_was_never_sent() -> None:
    assert not wants("5xx", status(503), unsent_only=True)
    assert not wants("reset", reset(Reset.CONNECTION_TERMINATION), unsent_only=True)
    assert wants("connect-failure", reset(Reset.CONNECT_FAILURE, sent=False), unsent_only=True)


@pytest.mark.parametrize(("on", "code", "grpc"), [("5xx", 503, ""), ("503", 503, ""), ("unavailable", 200, "14")])
def test_what_was_tried_again_nearer_to_the_failure_is_not_tried_again(on: str, code: int, grpc: str) -> None:
    """Or each hop of a chain would multiply what the last one did."""
    outcome = status(code, grpc)
    assert wants(on, outcome)
    outcome.headers = [*outcome.headers, (b"X-Mesh-Retried", b"1")]
    assert not wants(on, outcome)


def test_backoff_is_envoys() -> None:
    """Uniform below 25, 50, 100, 200, 250, 250 ms."""
    rng = random.Random(5)
    policy = RetryPolicy()
    for retry, ceiling in enumerate((0.025, 0.05, 0.1, 0.2, 0.25, 0.25), start=1):
        samples = [backoff(policy, retry, rng) for _ in range(500)]
        assert 0.9 * ceiling < max(samples) < ceiling
        assert min(samples) < 0.1 * ceiling


@pytest.mark.parametrize(
    ("active", "retries", "allowed"), [(0, 0, True), (0, 2, True), (0, 3, False), (100, 19, True), (100, 20, False)]
)
def test_the_budget_is_a_share_of_what_is_in_flight_and_at_least_three(active: int, retries: int, allowed: bool) -> None:
    assert may_retry(CircuitBreakers(), active, retries) is allowed


def test_max_retries_caps_the_budget() -> None:
    assert not may_retry(CircuitBreakers(max_retries=1), 100, 1)


def test_tenacity_strategies_decide_in_the_policys_place() -> None:
    overrides = Overrides(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(0.5))
    failure = Outcome(2.0, reset=Reset.CONNECT_FAILURE, sent=False, error=OSError("refused"))
    assert strategy_wait(overrides, failure, 2, 1.0) == 0.5
    assert strategy_wait(overrides, failure, 3, 1.0) is None
    by_time = Overrides(stop=tenacity.stop_after_delay(0.9))
    assert strategy_wait(by_time, failure, 1, 1.0) is None
    assert strategy_wait(by_time, failure, 1, 1.5) == 0.0
