"""The server's side of a request: the order of mechanisms, written once.

    sanity gate and canonical view → mTLS mode → filters (CORS, external authorizer, JWT, authorization) → context → application

1. **Sanity gate** first: what two readers could read differently must not reach any rule that is written about it.
2. **mTLS mode**: a plain request under STRICT is refused here whatever way it came in, also around the mesh's own port.
3. **Filters** in the order of the listener, which is Istio's: CUSTOM, JWT, AUDIT, DENY, ALLOW.  CORS comes before them: a
   browser's preflight carries no credentials, so it is answered without any, and never gets further than that.  Rate limits
   come after them, and count by what was proved.
4. **Limits** of what is in the application at once: the last of all, so that who is not let in takes no place.  Load shedding
   before the queue: what is to be refused is not to wait for it.
5. **Context** before the application: whatever it calls carries the trace on, is bounded by what is left of its caller's time,
   and knows whether it is itself a retry.

A flow yields `Check` for each external authorizer that is to be asked, `Wait` when the application has no place yet, then
`Handle` once, and is resumed or closed when the application is done; a refusal is returned without yielding `Handle`.
"""

from __future__ import annotations

from collections.abc import Generator

from meshlib.flow.admission import OVERFLOW, Admission, Wait, waiting
from meshlib.flow.inbound import NO_POLICY, InboundPlan, Question
from meshlib.flow.shedding import Stay
from meshlib.model.inbound import Inspection, Refusal, RequestContext, ServerRequest
from meshlib.model.listener import MtlsMode
from meshlib.policy.canonical import canonicalize
from meshlib.policy.deadline import parse_attempt, parse_grpc_timeout, parse_milliseconds
from meshlib.telemetry.trace import FORWARDED, TRACEPARENT, parse_traceparent

_MAX_FORWARDED = 8192


class Check:
    """Ask an external authorizer; send back a refusal, or None and what it changes in the inspection."""

    __slots__ = ("dialogue", "filter", "inspection")

    def __init__(self, question: Question, inspection: Inspection) -> None:
        self.filter = question.filter
        self.dialogue = question.dialogue
        self.inspection = inspection


class Handle:
    """Run the application with this context.  ``target`` is the request target in origin form, canonical.

    ``stay`` is to be ended when the response begins; None: nobody wants to know.
    """

    __slots__ = ("context", "inspection", "stay", "target")

    def __init__(self, context: RequestContext, inspection: Inspection, stay: Stay | None = None) -> None:
        self.context = context
        self.inspection = inspection
        self.stay = stay
        self.target = inspection.target


ServerFlow = Generator["Check | Wait | Handle", "Refusal | None", "Refusal | None"]


def server_flow(request: ServerRequest, now: float, plan: InboundPlan = NO_POLICY) -> ServerFlow:
    """`now`: monotonic seconds at which the request arrived."""
    inspection = canonicalize(request, plan.normalization, plan.trusted_hops)
    if isinstance(inspection, Refusal):
        return inspection
    peer = request.connection.peer
    if peer is None and plan.mtls is MtlsMode.STRICT:
        return Refusal(403, "mtls_required", b"mTLS required")
    for step in plan.steps:
        if not isinstance(step, Question):
            refusal = step(inspection)
        elif step.applies(inspection):
            refusal = yield Check(step, inspection)
        else:
            continue
        if refusal is not None:
            return refusal
    context = read_context(request, now)
    context.peer = peer
    if inspection.metadata:
        context.claims = inspection.claims
    context.path = inspection.path
    if plan.shedding is not None:
        stay = plan.shedding.enter(inspection)
        if isinstance(stay, Refusal):  # too much to do for a request of this urgency
            return stay
        try:
            if plan.admission is not None:
                return (yield from _limited(plan.admission, context, inspection, now, stay))
            yield Handle(context, inspection, stay)
            return None
        finally:
            stay.end()
    if plan.admission is not None:
        return (yield from _limited(plan.admission, context, inspection, now))
    yield Handle(context, inspection)
    return None


def _limited(
    admission: Admission, context: RequestContext, inspection: Inspection, now: float, stay: Stay | None = None
) -> ServerFlow:
    """The application, once there is a place in it."""
    place = admission.enter(multiplexed=inspection.request.grpc)
    if place is None:
        return OVERFLOW
    try:
        refusal = yield from waiting(place, context.remaining(now), inspection)
        if refusal is None:
            yield Handle(context, inspection, stay)
        return refusal
    finally:
        admission.leave(place)


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
