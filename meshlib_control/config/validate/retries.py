"""HTTPRetry."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

from meshlib_control.config.kinds import HTTPRetry
from meshlib_control.config.problems import Problem, under
from meshlib_control.config.validate.strings import check_duration

HTTP_CONDITIONS = frozenset(
    {
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "envoy-ratelimited",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "http3-post-connect-failure",
    }
)
"""Envoy's ``x-envoy-retry-on``."""

GRPC_CONDITIONS = frozenset({"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"})
"""Envoy's ``x-envoy-retry-grpc-on``."""

_STATUSES = frozenset(status.value for status in HTTPStatus)


def check_retry(retry: HTTPRetry | None) -> Iterator[Problem]:
    """Istio's rules for a retry policy."""
    if retry is None:
        return
    if retry.attempts < 0:
        yield Problem(("attempts",), "MSH0127", f"{retry.attempts} attempts; write 0 to switch retries off")
    details = (
        ("perTryTimeout", retry.per_try_timeout is not None),
        ("retryOn", bool(retry.retry_on)),
        ("retryRemoteLocalities", retry.retry_remote_localities is not None),
    )
    if retry.attempts == 0:
        for name, given in details:
            if given:
                yield Problem((name,), "MSH0127", f"{name} is given, but retries are off: set attempts, or leave {name} out")
    yield from under(("perTryTimeout",), check_duration(retry.per_try_timeout))
    yield from under(("backoff",), check_duration(retry.backoff))
    yield from _check_conditions(retry.retry_on or "")


def _check_conditions(retry_on: str) -> Iterator[Problem]:
    if not retry_on:
        return
    for condition in retry_on.split(","):
        if condition in HTTP_CONDITIONS or condition in GRPC_CONDITIONS:
            continue
        if condition.isascii() and condition.isdecimal() and int(condition) in _STATUSES:
            continue
        hint = "; there must be no spaces" if condition != condition.strip() else ""
        known = ", ".join(sorted(HTTP_CONDITIONS | GRPC_CONDITIONS))
        yield Problem(("retryOn",), "MSH0127", f"{condition!r} is not a condition{hint}; known are HTTP statuses and {known}")
