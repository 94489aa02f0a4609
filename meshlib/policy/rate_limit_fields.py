"""What a client is told of its limits: ``RateLimit``, ``RateLimit-Policy`` and ``retry-after``.

draft-ietf-httpapi-ratelimit-headers-10: lists of structured fields (RFC 9651), one member a limit::

    RateLimit-Policy: "per-caller";q=100;w=1
    RateLimit: "per-caller";r=41;t=1

``q`` requests in each window of ``w`` seconds; ``r`` are left now, and ``t`` seconds pass until there are more.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from meshlib.model.rate_limit import Period, RateLimit

POLICY = b"ratelimit-policy"
LIMIT = b"ratelimit"
RETRY_AFTER = b"retry-after"
RETRY_PUSHBACK = b"grpc-retry-pushback-ms"
"""How long clients of gRPC leave a method alone (gRFC A6)."""

_DAY = 86_400
_MOST = 999_999_999_999_999  # of an integer in a structured field
WINDOWS = {Period.DAY: _DAY, Period.MONTH: 30 * _DAY}
"""Seconds, roughly: months differ."""


def policy_member(limit: RateLimit) -> str:
    """What one limit allows, whoever asks."""
    return f'"{limit.name}";{_policy(limit)}'


def limit_member(limit: RateLimit, left: int, reset: float) -> str:
    """How one limit stands after the request.  `reset` in seconds."""
    return f'"{limit.name}";r={min(max(left, 0), _MOST)};t={min(ceil(reset), _MOST)}'


def fields(policies: Sequence[str], limits: Sequence[str]) -> list[tuple[bytes, bytes]]:
    """The members of the limits that hold for a request; none: no fields."""
    if not policies:
        return []
    return [(POLICY, ", ".join(policies).encode("ascii")), (LIMIT, ", ".join(limits).encode("ascii"))]


def retry_after(wait: float) -> list[tuple[bytes, bytes]]:
    """RFC 9110 section 10.2.3 has whole seconds; rounded up, so that whoever waits so long may pass."""
    return [(RETRY_AFTER, b"%d" % max(ceil(wait), 1))]


def retry_pushback(wait: float) -> tuple[bytes, bytes]:
    """The same for gRPC, in milliseconds."""
    return RETRY_PUSHBACK, b"%d" % max(ceil(wait * 1000), 1)


def _policy(limit: RateLimit) -> str:
    """Windows are whole seconds: a shorter interval is told by what it makes in a second."""
    if limit.quota is not None:
        return f"q={min(limit.quota.requests, _MOST)};w={WINDOWS[limit.quota.period]}"
    assert limit.bucket is not None
    bucket = limit.bucket
    if bucket.interval >= 1:
        return f"q={bucket.tokens};w={ceil(bucket.interval)}"
    return f"q={max(int(bucket.per_second), 1)};w=1"
