"""`retries` of a VirtualService, with Istio's defaults."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.xds.json import to_json
from meshlib_control.compile.retry_policy import DEFAULT_RETRY_ON, duration, for_grpc, for_meshlib, retry_policy
from meshlib_control.config.kinds import HTTPRetry

PREVIOUS_HOSTS = "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
DEFAULT = {
    "retry_on": DEFAULT_RETRY_ON,
    "num_retries": 2,
    "retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {"@type": PREVIOUS_HOSTS}}],
    "host_selection_retry_max_attempts": "5",
}


def shown(retries: HTTPRetry | None, default: HTTPRetry | None = None) -> dict[str, Any] | None:
    policy = retry_policy(retries, default)
    return {key: value for key, value in to_json(policy).items() if key != "@type"} if policy is not None else None


@pytest.mark.parametrize(
    ("retries", "changes"),
    [
        (None, {}),
        (HTTPRetry(attempts=3), {"num_retries": 3}),
        (HTTPRetry(attempts=1, retry_on="5xx, reset"), {"num_retries": 1, "retry_on": "5xx,reset"}),
        (
            HTTPRetry(attempts=1, retry_on="5xx,503,429"),
            {"num_retries": 1, "retry_on": "5xx,retriable-status-codes", "retriable_status_codes": [503, 429]},
        ),
        (
            HTTPRetry(attempts=1, retry_on="503"),
            {"num_retries": 1, "retry_on": "retriable-status-codes", "retriable_status_codes": [503]},
        ),
        (HTTPRetry(attempts=1, per_try_timeout=0.25), {"num_retries": 1, "per_try_timeout": "0.250s"}),
        (HTTPRetry(attempts=1, backoff=0.1), {"num_retries": 1, "retry_back_off": {"base_interval": "0.100s"}}),
    ],
)
def test_what_is_given_replaces_the_default(retries: HTTPRetry | None, changes: dict[str, Any]) -> None:
    assert shown(retries) == {**DEFAULT, **changes}


def test_no_attempts_is_no_policy() -> None:
    assert shown(HTTPRetry(attempts=0)) is None
    assert shown(HTTPRetry()) is None


def test_previous_hosts_may_be_tried_again() -> None:
    policy = shown(HTTPRetry(attempts=2, retry_ignore_previous_hosts=False))
    assert policy == {key: value for key, value in DEFAULT.items() if key != "retry_host_predicate"}
    assert shown(HTTPRetry(attempts=2, retry_ignore_previous_hosts=True)) == DEFAULT


def test_default_of_the_mesh_holds_where_a_rule_says_nothing() -> None:
    mesh = HTTPRetry(attempts=7)
    assert shown(None, mesh) == {**DEFAULT, "num_retries": 7}
    assert shown(HTTPRetry(attempts=1), mesh) == {**DEFAULT, "num_retries": 1}
    assert shown(None, HTTPRetry(attempts=0)) is None


@pytest.mark.parametrize(
    ("retry_on", "kept"),
    [("5xx,unavailable,503", "unavailable"), ("cancelled,internal", "cancelled,internal"), ("5xx,reset", None)],
)
def test_grpcio_gets_the_conditions_that_it_knows(retry_on: str, kept: str | None) -> None:
    policy = for_grpc(retry_policy(HTTPRetry(attempts=3, retry_on=retry_on, per_try_timeout=1.0, backoff=0.1), None))
    if kept is None:
        assert policy is None
    else:
        assert policy is not None
        assert {key: value for key, value in to_json(policy).items() if key != "@type"} == {
            "retry_on": kept,
            "num_retries": 3,
            "retry_back_off": {"base_interval": "0.100s"},
        }


@given(st.integers(0, 10**10))
def test_durations_are_exact_to_the_microsecond(microseconds: int) -> None:
    assert duration(microseconds / 1e6).ToMicroseconds() == microseconds


@pytest.mark.parametrize(
    ("retry_on", "sent"),
    [("5xx,retriable-headers,reset", "5xx,reset"), ("retriable-headers", None), ("5xx", "5xx")],
)
def test_a_condition_that_does_nothing_is_not_sent_to_those_who_would_refuse_it(retry_on: str, sent: str | None) -> None:
    """Envoy takes it, and knows no header that it is about."""
    given_policy = retry_policy(HTTPRetry(attempts=1, retry_on=retry_on), None)
    assert given_policy is not None
    assert given_policy.retry_on == retry_on
    found = for_meshlib(given_policy)
    assert (found.retry_on if found is not None else None) == sent
