"""RLQS on the wire: usage reports out, assignments in (envoy.service.rate_limit_quota.v3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Final, NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from meshlib.model.rate_limit import (
    LIMIT_NAME,
    POLICY_NAME,
    Abandon,
    Assignment,
    Blanket,
    BucketId,
    TokenBucket,
    Usage,
)
from meshlib.xds.proto import rate_limit_pb2, rlqs_pb2

__all__ = [
    "DOMAIN",
    "LIMIT_NAME",
    "POLICY_NAME",
    "SERVICE",
    "STREAM",
    "Abandon",
    "Assignment",
    "BucketId",
    "Malformed",
    "Reports",
    "TokenBucket",
    "Usage",
    "decode_reports",
    "decode_response",
    "encode_reports",
    "encode_response",
]

SERVICE: Final = "envoy.service.rate_limit_quota.v3.RateLimitQuotaService"
STREAM: Final = f"/{SERVICE}/StreamRateLimitQuotas"
DOMAIN: Final = "meshlib"

_LONGEST_PROCESS: Final = 64  # bytes that tell processes apart

_BLANKETS: Final[Mapping[int, Blanket]] = {
    rlqs_pb2.RateLimitStrategy.ALLOW_ALL: "ALLOW_ALL",
    rlqs_pb2.RateLimitStrategy.DENY_ALL: "DENY_ALL",
}
_Reports = rate_limit_pb2.QuotaUsageReports
_Usage = rlqs_pb2.RateLimitQuotaUsageReports.BucketQuotaUsage
_Action = rlqs_pb2.RateLimitQuotaResponse.BucketAction


class Malformed(Exception):
    """Bytes that are no message of RLQS, or one that makes no sense."""


class Reports(NamedTuple):
    """What a process says.  `applied`: how many responses of the stream are in force; `leaving`: its last report, it uses none
    of its shares any more; `process`: random, the same on all of its streams; empty: it was told before, or never is.
    """

    usages: list[Usage]
    applied: int = 0
    leaving: bool = False
    process: bytes = b""


def encode_reports(reports: Reports) -> bytes:
    usages, applied, leaving, process = reports
    message = _Reports(domain=DOMAIN, responses_applied=applied, leaving=leaving, process=process)
    for usage in usages:
        identity = rlqs_pb2.BucketId(bucket=dict(usage.id))
        elapsed = Duration()
        elapsed.FromNanoseconds(max(int(usage.elapsed * 1e9), 1))
        message.bucket_quota_usages.append(
            _Usage(
                bucket_id=identity,
                time_elapsed=elapsed,
                num_requests_allowed=usage.allowed,
                num_requests_denied=usage.denied,
            )
        )
        if usage.held:
            message.held.append(_Reports.Held(bucket_id=identity, tokens_per_second=usage.held))
    return message.SerializeToString()


def decode_reports(data: bytes) -> Reports:
    """Raises `Malformed`."""
    try:
        message = _Reports.FromString(data)
    except DecodeError as error:
        raise Malformed("not a RateLimitQuotaUsageReports") from error
    held = {_identity(item.bucket_id): item.tokens_per_second for item in message.held}
    usages = []
    for item in message.bucket_quota_usages:
        identity = _identity(item.bucket_id)
        elapsed = item.time_elapsed.seconds + item.time_elapsed.nanos / 1e9
        if elapsed < 0 or not identity:
            raise Malformed("a usage without bucket_id, or with a negative time_elapsed")
        if not isfinite(held.get(identity, 0.0)):
            raise Malformed("a held share whose tokens_per_second is no finite number")
        usages.append(
            Usage(identity, elapsed, item.num_requests_allowed, item.num_requests_denied, max(held.get(identity, 0.0), 0.0))
        )
    return Reports(usages, message.responses_applied, message.leaving, message.process[:_LONGEST_PROCESS])


def encode_response(actions: Iterable[Assignment | Abandon]) -> bytes:
    message = rlqs_pb2.RateLimitQuotaResponse()
    for action in actions:
        entry = message.bucket_action.add(bucket_id=rlqs_pb2.BucketId(bucket=dict(action.id)))
        if isinstance(action, Abandon):
            entry.abandon_action.SetInParent()
            continue
        assignment = entry.quota_assignment_action
        assignment.SetInParent()
        if action.ttl is not None:
            assignment.assignment_time_to_live.FromNanoseconds(int(action.ttl * 1e9))
        _set_strategy(assignment.rate_limit_strategy, action.strategy)
    return message.SerializeToString()


def decode_response(data: bytes) -> list[Assignment | Abandon]:
    """In the order in which they apply.  Raises `Malformed`."""
    try:
        message = rlqs_pb2.RateLimitQuotaResponse.FromString(data)
    except DecodeError as error:
        raise Malformed("not a RateLimitQuotaResponse") from error
    return [_action(entry) for entry in message.bucket_action]


def _action(entry: _Action) -> Assignment | Abandon:
    identity = _identity(entry.bucket_id)
    if entry.HasField("abandon_action"):
        return Abandon(identity)
    assignment = entry.quota_assignment_action
    ttl: float | None = None  # unset: it never expires, whatever Envoy 1.40 makes of it
    if assignment.HasField("assignment_time_to_live"):
        ttl = assignment.assignment_time_to_live.seconds + assignment.assignment_time_to_live.nanos / 1e9
    return Assignment(identity, ttl, _strategy(assignment.rate_limit_strategy))


def _set_strategy(message: rlqs_pb2.RateLimitStrategy, strategy: Blanket | TokenBucket | None) -> None:
    if isinstance(strategy, TokenBucket):
        message.token_bucket.max_tokens = strategy.burst
        message.token_bucket.tokens_per_fill.value = strategy.tokens
        message.token_bucket.fill_interval.FromNanoseconds(int(strategy.interval * 1e9))
    elif strategy is not None:
        message.blanket_rule = getattr(rlqs_pb2.RateLimitStrategy, strategy)


def _strategy(message: rlqs_pb2.RateLimitStrategy) -> Blanket | TokenBucket | None:
    match message.WhichOneof("strategy"):
        case "blanket_rule":
            return _BLANKETS.get(message.blanket_rule)
        case "token_bucket":
            bucket = message.token_bucket
            interval = bucket.fill_interval.seconds + bucket.fill_interval.nanos / 1e9
            tokens = bucket.tokens_per_fill.value if bucket.HasField("tokens_per_fill") else 1
            if not bucket.max_tokens or not tokens or interval <= 0:
                return "DENY_ALL"
            return TokenBucket(tokens, interval, bucket.max_tokens)
        case _:
            return None


def _identity(message: rlqs_pb2.BucketId) -> BucketId:
    return tuple(sorted(message.bucket.items()))
