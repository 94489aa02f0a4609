"""How a call ends badly: the error that its caller gets, which knows everything that the call went through."""

from __future__ import annotations

from collections import Counter
from typing import Any

from meshlib import errors
from meshlib.flow.record import CallRecord
from meshlib.flow.upstream import Upstream
from meshlib.model.call import Call
from meshlib.model.endpoint import Health
from meshlib.model.outcome import Outcome, Reset
from meshlib.policy.balancing import Host
from meshlib.wire.errors import NoIdentity, TlsFailed


def fail(kind: type[errors.CallError], message: str, record: CallRecord, **more: Any) -> errors.CallError:
    """An error that knows everything its call went through."""
    record.flag(kind.flag)
    return kind(
        message,
        authority=record.authority,
        route=record.route,
        cluster=record.cluster,
        endpoint=record.endpoint,
        attempts=record.attempts,
        flags=record.flags,
        **more,
    )


def overflowing(upstream: Upstream) -> str:
    """A call is one too many."""
    limit = upstream.cluster.circuit_breakers.max_requests
    return (
        f"{upstream.active} requests to {upstream.name} are under way, and its limit is {limit}: call less at a time, "
        "or raise http2MaxRequests (DestinationRule connectionPool.http)"
    )


def unusable(upstream: Upstream) -> str:
    """Nobody can be called."""
    hosts = upstream.hosts.values()
    if not hosts:
        return f"no endpoint of {upstream.name} can be used: it has none; `meshctl endpoints` shows what the catalog knows"
    reasons = Counter(map(_why_unused, hosts))
    known = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    return f"no endpoint of {upstream.name} can be used: {known}; see `meshctl endpoints`"


def _why_unused(host: Host) -> str:
    if host.ejected:
        return "ejected by outlier detection"
    if host.failed_check:
        return "failed its health checks"
    return _UNUSED.get(host.endpoint.health, "not to be used from here")


_UNUSED = {Health.UNHEALTHY: "unhealthy in the catalog", Health.DRAINING: "draining"}


_RESET_ERRORS: dict[Reset, tuple[type[errors.CallError], str]] = {
    Reset.CONNECT_FAILURE: (errors.ConnectFailed, "no connection to the endpoint"),
    Reset.CONNECT_TIMEOUT: (errors.ConnectTimeout, "no connection to the endpoint in time"),
    Reset.POOL_TIMEOUT: (errors.PoolTimeout, "no connection became free within the caller's pool timeout"),
    Reset.OVERFLOW: (errors.Overflow, "the cluster's limit of connections or pending requests is reached"),
    Reset.CONNECTION_TERMINATION: (errors.ConnectionTerminated, "the connection ended before the response was complete"),
    Reset.PROTOCOL_ERROR: (errors.UpstreamProtocolError, "the endpoint's answer breaks HTTP/1.1 or was cut short"),
    Reset.LOCAL: (errors.UpstreamError, "the attempt was given up on this side"),
}

_TLS_ERROR = (errors.TlsFailed, "no connection that both sides trust")

_TIMEOUT_TEXT = {
    "route": "the route's timeout (VirtualService http.timeout)",
    "per_try": "the route's timeout for one try (retries.perTryTimeout)",
    "deadline": "the deadline of the request that this process is serving",
    "total": "the caller's timeout",
}


def reset_error(outcome: Outcome, record: CallRecord, call: Call) -> errors.CallError:
    """The error for a call whose last outcome is a reset; the low-level exception stays as its cause."""
    reset = outcome.reset
    assert reset is not None
    error: errors.CallError
    if reset in (Reset.TIMEOUT, Reset.PER_TRY_TIMEOUT):
        which = outcome.timeout or ("per_try" if reset is Reset.PER_TRY_TIMEOUT else "total")
        text = _TIMEOUT_TEXT.get(which, f"the caller's {which} timeout")
        seconds = outcome.at - call.started
        message = f"{text} passed after {seconds:.3f} s"
        error = fail(errors.TimeoutExceeded, message, record, which=which, seconds=seconds)
    else:
        kind, text = _TLS_ERROR if isinstance(outcome.error, TlsFailed | NoIdentity) else _RESET_ERRORS[reset]
        error = fail(kind, f"{text}: {outcome.error}" if outcome.error is not None else text, record)
    error.__cause__ = outcome.error
    return error
