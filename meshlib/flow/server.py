"""The server's side of a request: the order of mechanisms, written once.

    sanity gate → context (trace, deadline, attempt) → application → outcome

1. **Sanity gate** first: what two readers could read differently must not reach any rule that is written about it.
2. **Context** before the application: whatever it calls carries the trace on, is bounded by what is left of its caller's time,
   and knows whether it is itself a retry.

A flow yields `Handle` once and is resumed when the application is done; a refusal is returned without yielding.
"""

from __future__ import annotations

from collections.abc import Generator

from meshlib.model.inbound import Refusal, RequestContext, ServerRequest
from meshlib.policy.deadline import parse_attempt, parse_grpc_timeout, parse_milliseconds
from meshlib.policy.sanity import check_request
from meshlib.telemetry.trace import FORWARDED, TRACEPARENT, parse_traceparent

_MAX_FORWARDED = 8192


class Handle:
    """Run the application with this context.  ``target`` is the request target in origin form."""

    __slots__ = ("context", "target")

    def __init__(self, context: RequestContext, target: bytes) -> None:
        self.context = context
        self.target = target


ServerFlow = Generator[Handle, None, "Refusal | None"]


def server_flow(request: ServerRequest, now: float) -> ServerFlow:
    """`now`: monotonic seconds at which the request arrived."""
    checked = check_request(request)
    if isinstance(checked, Refusal):
        return checked
    yield Handle(read_context(request, now), checked)
    return None


def read_context(request: ServerRequest, now: float) -> RequestContext:
    """What the caller said about time, trace and retries.  Nothing here is trusted with more than shortening things."""
    fields = request.fields
    context = RequestContext()
    expected = fields.get(b"x-envoy-expected-rq-timeout-ms")
    if expected is not None:
        _tighten(context, now, parse_milliseconds(expected))
    grpc = fields.get(b"grpc-timeout")
    if grpc is not None:
        _tighten(context, now, parse_grpc_timeout(grpc))
    attempt = fields.get(b"x-envoy-attempt-count")
    if attempt is not None and attempt != b"1":
        context.attempt = parse_attempt(attempt)
    trace = fields.get(TRACEPARENT)
    if trace is not None:
        context.trace = parse_traceparent(trace)
    if not FORWARDED.isdisjoint(fields):
        context.forwarded = tuple(pair for pair in request.headers if pair[0] in FORWARDED and len(pair[1]) <= _MAX_FORWARDED)
    return context


def _tighten(context: RequestContext, now: float, seconds: float | None) -> None:
    if seconds is not None and (context.deadline is None or now + seconds < context.deadline):
        context.deadline = now + seconds
