"""RetryPolicy → model."""

from __future__ import annotations

from meshlib.model.route import RETRY_CONDITIONS, RetryPolicy
from meshlib.xds.fields import allow_only, seconds, unpack
from meshlib.xds.invalid import Problems
from meshlib.xds.proto import route_pb2

_FIELDS = frozenset(
    {
        "retry_on",
        "num_retries",
        "per_try_timeout",
        "retry_host_predicate",
        "retry_priority",
        "host_selection_retry_max_attempts",
        "retriable_status_codes",
        "retry_back_off",
    }
)
_BASE_INTERVAL = 0.025  # Envoy's upstream.base_retry_backoff_ms
_MAX_BY_BASE = 10  # max_interval when unset, in base intervals
_MAX_ATTEMPTS = 1_000


def decode_retry_policy(policy: route_pb2.RetryPolicy, problems: Problems, *, field: str) -> RetryPolicy:
    allow_only(policy, _FIELDS, field=field, problems=problems)
    attempts = policy.num_retries.value if policy.HasField("num_retries") else 1
    if attempts > _MAX_ATTEMPTS:
        problems.add(f"{field}.num_retries", attempts, f"at most {_MAX_ATTEMPTS}")
    base, longest = _back_off(policy, problems, field=f"{field}.retry_back_off")
    return RetryPolicy(
        attempts=attempts,
        retry_on=_conditions(policy, problems, field=f"{field}.retry_on"),
        status_codes=_status_codes(policy, problems, field=f"{field}.retriable_status_codes"),
        per_try_timeout=seconds(policy.per_try_timeout, field=f"{field}.per_try_timeout", problems=problems),
        previous_hosts=_previous_hosts(policy, problems, field=f"{field}.retry_host_predicate"),
        host_selection_attempts=_host_attempts(policy, problems, field=f"{field}.host_selection_retry_max_attempts"),
        previous_priorities=_previous_priorities(policy, problems, field=f"{field}.retry_priority"),
        base_interval=base,
        max_interval=longest,
    )


def _conditions(policy: route_pb2.RetryPolicy, problems: Problems, *, field: str) -> frozenset[str]:
    tokens = frozenset(token for part in policy.retry_on.split(",") if (token := part.strip()))
    for token in sorted(tokens - RETRY_CONDITIONS):
        problems.add(field, token, f"one of {', '.join(sorted(RETRY_CONDITIONS))}")
    return tokens


def _status_codes(policy: route_pb2.RetryPolicy, problems: Problems, *, field: str) -> frozenset[int]:
    for code in policy.retriable_status_codes:
        if not 100 <= code <= 599:
            problems.add(field, code, "100 to 599")
    return frozenset(policy.retriable_status_codes)


def _previous_hosts(policy: route_pb2.RetryPolicy, problems: Problems, *, field: str) -> bool:
    for index, predicate in enumerate(policy.retry_host_predicate):
        where = f"{field}[{index}].typed_config"
        unpack(predicate.typed_config, route_pb2.PreviousHostsPredicate, field=where, problems=problems)
    return bool(policy.retry_host_predicate)


def _previous_priorities(policy: route_pb2.RetryPolicy, problems: Problems, *, field: str) -> int:
    """After how many tries; 0: priorities that were tried are not left out."""
    if not policy.HasField("retry_priority"):
        return 0
    packed = policy.retry_priority.typed_config
    config = unpack(packed, route_pb2.PreviousPrioritiesConfig, field=f"{field}.typed_config", problems=problems)
    if config is None:
        return 0
    if config.update_frequency < 1:
        problems.add(f"{field}.typed_config.update_frequency", config.update_frequency, "1 or more")
    return int(config.update_frequency)


def _host_attempts(policy: route_pb2.RetryPolicy, problems: Problems, *, field: str) -> int:
    given = policy.host_selection_retry_max_attempts
    if not 0 <= given <= _MAX_ATTEMPTS:
        problems.add(field, given, f"0 to {_MAX_ATTEMPTS}")
    return given or 1  # Envoy's default


def _back_off(policy: route_pb2.RetryPolicy, problems: Problems, *, field: str) -> tuple[float, float]:
    if not policy.HasField("retry_back_off"):
        return _BASE_INTERVAL, _BASE_INTERVAL * _MAX_BY_BASE
    base = seconds(policy.retry_back_off.base_interval, field=f"{field}.base_interval", problems=problems)
    if base <= 0:
        problems.describe(f"{field}.base_interval", f"{base:g}s", "more than zero")
    longest = base * _MAX_BY_BASE
    if policy.retry_back_off.HasField("max_interval"):
        longest = seconds(policy.retry_back_off.max_interval, field=f"{field}.max_interval", problems=problems)
        if longest < base:
            problems.describe(f"{field}.max_interval", f"{longest:g}s", f"at least base_interval, {base:g}s")
    return base, longest
