"""meshlib's own rate limit filter → model.  Nothing in it is passed over: a limit that is left out limits nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from google.protobuf.any_pb2 import Any

from meshlib.model.rate_limit import (
    DEFAULT_MAX_BUCKETS,
    Attribute,
    Descriptor,
    Fallback,
    LimitPolicy,
    Period,
    Quota,
    RateLimit,
    RateLimits,
    TokenBucket,
)
from meshlib.xds.fields import only_filter, seconds
from meshlib.xds.invalid import Problems
from meshlib.xds.matchers import decode_route_match
from meshlib.xds.proto import rate_limit_pb2

FILTER: Final = "meshlib.filters.http.rate_limit"
"""Name of the filter, in listeners and in ``typed_per_filter_config`` of virtual hosts."""

MAX_BUCKETS: Final = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_HEADER = re.compile(r"[0-9a-z!#$%&'*+.^_`|~-]+")
_Message = rate_limit_pb2.RateLimit
_Descriptor = _Message.Descriptor
_ATTRIBUTES: Final = {number: Attribute[name] for name, number in _Descriptor.Attribute.items() if number}
_PERIODS: Final = {_Message.DAY: Period.DAY, _Message.MONTH: Period.MONTH}


def decode_rate_limits(message: rate_limit_pb2.RateLimits, problems: Problems, *, field: str) -> RateLimits:
    """Of a listener's filter or of a virtual host."""
    policies: list[LimitPolicy] = []
    for index, policy in enumerate(message.policies):
        where = f"{field}.policies[{index}]"
        if not policy.name:
            problems.add(f"{where}.name", "", "namespace/name of the policy")
        limits = tuple(
            _limit(limit, problems, field=f"{where}.limits[{position}]") for position, limit in enumerate(policy.limits)
        )
        names = [limit.name for limit in limits]
        if len(set(names)) < len(names):
            problems.describe(f"{where}.limits", "a name twice", "each name once in a policy")
        policies.append(LimitPolicy(policy.name, limits))
    return RateLimits(tuple(policies))


def decode_host_limits(configs: Mapping[str, Any], problems: Problems, *, field: str) -> RateLimits | None:
    """``typed_per_filter_config`` of a virtual host: rate limits, and no other filter."""
    message = only_filter(configs, FILTER, rate_limit_pb2.RateLimits, field=field, problems=problems)
    return decode_rate_limits(message, problems, field=f"{field}[{FILTER!r}]") if message is not None else None


def _limit(message: _Message, problems: Problems, *, field: str) -> RateLimit:
    if not _NAME.fullmatch(message.name):
        problems.add(f"{field}.name", message.name, "letters, digits, '.', '_' and '-'")
    bucket = _bucket(message, problems, field=f"{field}.token_bucket")
    quota = _quota(message, problems, field=f"{field}.quota")
    shared = message.scope == _Message.GLOBAL
    if (bucket is None) is (quota is None):
        problems.describe(field, "not one of token_bucket and quota", "exactly one of them")
    if quota is not None and not shared:
        problems.describe(f"{field}.scope", "LOCAL", "GLOBAL, as no process can count a quota alone")
    if message.scope not in (_Message.LOCAL, _Message.GLOBAL):
        problems.add(f"{field}.scope", message.scope, "LOCAL or GLOBAL")
    if message.max_buckets > MAX_BUCKETS:
        problems.add(f"{field}.max_buckets", message.max_buckets, f"at most {MAX_BUCKETS}")
    return RateLimit(
        name=message.name,
        matches=tuple(
            decode_route_match(match, problems, field=f"{field}.matches[{index}]")
            for index, match in enumerate(message.matches)
        ),
        by=tuple(_descriptor(item, problems, field=f"{field}.by[{index}]") for index, item in enumerate(message.by)),
        bucket=bucket,
        quota=quota,
        shared=shared,
        fallback=_fallback(message.fallback, problems, field=f"{field}.fallback"),
        dry_run=message.dry_run,
        max_buckets=message.max_buckets or DEFAULT_MAX_BUCKETS,
    )


def _bucket(limit: _Message, problems: Problems, *, field: str) -> TokenBucket | None:
    if not limit.HasField("token_bucket"):
        return None
    message = limit.token_bucket
    interval = seconds(message.fill_interval, field=f"{field}.fill_interval", problems=problems)
    tokens = message.tokens_per_fill.value if message.HasField("tokens_per_fill") else 1
    if not interval or not tokens or not message.max_tokens:
        problems.describe(field, "zero", "max_tokens, tokens_per_fill and fill_interval above zero")
        return TokenBucket(1, 1.0, 1)
    return TokenBucket(tokens, interval, message.max_tokens)


def _quota(limit: _Message, problems: Problems, *, field: str) -> Quota | None:
    if not limit.HasField("quota"):
        return None
    message = limit.quota
    period = _PERIODS.get(message.period)
    if period is None:
        problems.add(f"{field}.period", message.period, "DAY or MONTH")
    if not message.requests:
        problems.add(f"{field}.requests", 0, "at least 1")
    return Quota(message.requests, period or Period.DAY)


def _fallback(message: _Message.Fallback, problems: Problems, *, field: str) -> Fallback:
    if message.action not in (_Message.Fallback.ALLOW, _Message.Fallback.DENY):
        problems.add(f"{field}.action", message.action, "ALLOW or DENY")
    after = seconds(message.after, field=f"{field}.after", problems=problems)
    return Fallback(after, allow=message.action == _Message.Fallback.ALLOW)


def _descriptor(message: _Descriptor, problems: Problems, *, field: str) -> Descriptor:
    match message.WhichOneof("by"):
        case "attribute":
            attribute = _ATTRIBUTES.get(message.attribute)
            if attribute is None:
                problems.add(f"{field}.attribute", message.attribute, "one of the attributes")
            return Descriptor("attribute", attribute or Attribute.METHOD)
        case "header":
            if not _HEADER.fullmatch(message.header):
                problems.add(f"{field}.header", message.header, "the name of a header, in lower case")
            return Descriptor("header", value=(message.header,))
        case "claim":
            if not message.claim.path or not all(message.claim.path):
                problems.describe(f"{field}.claim.path", "empty", "the names that lead to the claim")
            return Descriptor("claim", value=tuple(message.claim.path))
        case "constant":
            return Descriptor("constant", value=(message.constant,))
        case _:
            problems.describe(field, "nothing", "attribute, header, claim or constant")
            return Descriptor("constant", value=("",))
