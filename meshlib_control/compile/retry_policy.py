"""VirtualService `retries` → RetryPolicy, with Istio's defaults (pilot/pkg/networking/core/route/retry)."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration

from meshlib.xds.proto import route_pb2
from meshlib.xds.types import pack
from meshlib_control.config.kinds import HTTPRetry

DEFAULT_ATTEMPTS: Final = 2
DEFAULT_RETRY_ON: Final = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"

IDEMPOTENT_RESET: Final = "idempotent-reset"
"""A condition that only meshlib knows, part of the default there (docs/decisions/010): what was lost with its connection is
tried again if its method is idempotent."""

_STATUS_CODES = "retriable-status-codes"
_HEADERS = "retriable-headers"
_HOST_SELECTIONS = 5
_PREVIOUS_PRIORITIES = "envoy.retry_priorities.previous_priorities"
_UPDATE_FREQUENCY = 2  # Istio's: after so many attempts, the priorities of their endpoints are left out
_PREVIOUS_HOSTS = "envoy.retry_host_predicates.previous_hosts"
_GRPC_CONDITIONS = frozenset({"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"})


def retry_policy(retries: HTTPRetry | None, default: HTTPRetry | None, *, hashed: bool = False) -> route_pb2.RetryPolicy | None:
    """`retries` of the rule, else the mesh's `default`, else Istio's.  None: no retries.

    `hashed`: the endpoint is chosen by a consistent hash, and tried again unless the rule says that it should be avoided.
    """
    wanted = retries if retries is not None else default
    policy = route_pb2.RetryPolicy(retry_on=DEFAULT_RETRY_ON, host_selection_retry_max_attempts=_HOST_SELECTIONS)
    policy.num_retries.value = DEFAULT_ATTEMPTS
    if wanted is None:
        if not hashed:
            _avoid_previous_hosts(policy)
        return policy
    if wanted.attempts <= 0:
        return None
    policy.num_retries.value = wanted.attempts
    if wanted.retry_on:
        _set_conditions(policy, wanted.retry_on)
    if wanted.per_try_timeout is not None:
        policy.per_try_timeout.CopyFrom(duration(wanted.per_try_timeout))
    if wanted.backoff is not None:
        policy.retry_back_off.base_interval.CopyFrom(duration(wanted.backoff))
    if wanted.retry_ignore_previous_hosts or (wanted.retry_ignore_previous_hosts is None and not hashed):
        _avoid_previous_hosts(policy)
    if wanted.retry_remote_localities:
        _avoid_previous_priorities(policy)
    return policy


def for_meshlib(policy: route_pb2.RetryPolicy | None) -> route_pb2.RetryPolicy | None:
    """Where nobody chose the conditions, what may safely be repeated is.  One that does nothing is left out: which headers it
    is about can only be said to an Envoy.
    """
    if policy is not None and policy.retry_on == DEFAULT_RETRY_ON:
        policy.retry_on = f"{DEFAULT_RETRY_ON},{IDEMPOTENT_RESET}"
    elif policy is not None and _HEADERS in policy.retry_on:
        policy.retry_on = ",".join(item for item in policy.retry_on.split(",") if item != _HEADERS)
    return policy if policy is not None and policy.retry_on else None


def for_grpc(policy: route_pb2.RetryPolicy | None) -> route_pb2.RetryPolicy | None:
    """What grpcio understands of it: the number of attempts, the back-off, five conditions (gRFC A44)."""
    if policy is None:
        return None
    known = [condition for condition in policy.retry_on.split(",") if condition in _GRPC_CONDITIONS]
    if not known:
        return None
    reduced = route_pb2.RetryPolicy(retry_on=",".join(known), num_retries=policy.num_retries)
    if policy.HasField("retry_back_off"):
        reduced.retry_back_off.CopyFrom(policy.retry_back_off)
    return reduced


def duration(seconds: float) -> Duration:
    result = Duration()
    result.FromTimedelta(timedelta(microseconds=round(seconds * 1e6)))
    return result


def _set_conditions(policy: route_pb2.RetryPolicy, retry_on: str) -> None:
    """Numbers among Envoy's conditions are HTTP statuses."""
    parts = [part for item in retry_on.split(",") if (part := item.strip())]
    codes = [int(part) for part in parts if part.isascii() and part.isdigit()]
    conditions = [part for part in parts if not (part.isascii() and part.isdigit())]
    if codes and _STATUS_CODES not in conditions:
        conditions.append(_STATUS_CODES)
    policy.retry_on = ",".join(conditions)
    policy.retriable_status_codes.extend(codes)


def _avoid_previous_priorities(policy: route_pb2.RetryPolicy) -> None:
    policy.retry_priority.name = _PREVIOUS_PRIORITIES
    policy.retry_priority.typed_config.CopyFrom(pack(route_pb2.PreviousPrioritiesConfig(update_frequency=_UPDATE_FREQUENCY)))


def _avoid_previous_hosts(policy: route_pb2.RetryPolicy) -> None:
    predicate = policy.retry_host_predicate.add(name=_PREVIOUS_HOSTS)
    predicate.typed_config.CopyFrom(pack(route_pb2.PreviousHostsPredicate()))
