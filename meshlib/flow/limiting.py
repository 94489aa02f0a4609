"""Rate limits in the two flows: a step of the server's, and what stands before a call's cluster.

Served requests: after tokens and authorization, so that limits go by identities and claims that were proved, and nobody who
would be refused anyway uses up what others have.  Calls: before the cluster is drawn and outside of the retry loop, so that a
call counts once, however often it is tried.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from meshlib import errors
from meshlib.flow.record import CallRecord
from meshlib.model.call import Call
from meshlib.model.inbound import Inspection, Refusal
from meshlib.model.rate_limit import RateLimits
from meshlib.policy.rate_limit import CompiledLimits, Decision, Limiters
from meshlib.policy.rate_limit_fields import retry_after, retry_pushback
from meshlib.policy.rate_limit_keys import Limited
from meshlib.telemetry.events import Emit, Event

STATUS = 429
BODY = b"rate limit exceeded"
REASON = "rate_limited"
FLAG = "RL"


@dataclass(slots=True, eq=False)
class Limiting:
    """The limits of one side of a process: their state, what guards it, and the clock that refills it."""

    lock: AbstractContextManager[object]
    clock: Callable[[], float]  # monotonic seconds
    limiters: Limiters = field(default_factory=Limiters)
    emit: Emit | None = None


def compile_step(limits: RateLimits, limiting: Limiting) -> Callable[[Inspection], Refusal | None]:
    """The step of one port.  Raises ValueError for a regular expression that is none."""
    clock = limiting.clock
    with limiting.lock:
        compiled = CompiledLimits(limits, limiting.limiters, clock())

    def step(inspection: Inspection) -> Refusal | None:
        request = Limited.served(inspection)
        now = clock()
        with limiting.lock:
            decision = compiled.decide(request, now)
            if decision is not None and decision.began:
                tell(decision, now, limiting.emit)
        if decision is None:
            return None
        if decision.refused is not None:
            return _refusal(decision, grpc=_is_grpc(inspection))
        inspection.response_headers += decision.fields
        inspection.notes += decision.notes
        return None

    return step


class CallLimits:
    """The limits of the calls to one host.  Used by flows, whose steps have the lock already."""

    __slots__ = ("_compiled", "_limiting")

    def __init__(self, limits: RateLimits, limiting: Limiting) -> None:
        """Raises ValueError for a regular expression that is none."""
        self._limiting = limiting
        with limiting.lock:
            self._compiled = CompiledLimits(limits, limiting.limiters, limiting.clock())

    def check(self, call: Call, record: CallRecord) -> None:
        """Raises errors.RateLimited when a limit refuses the call."""
        decision = self._compiled.decide(Limited.called(call, record.route), call.started)
        if decision is None or decision.refused is None:
            return
        tell(decision, call.started, self._limiting.emit)
        limiter, wait = decision.refused
        record.flag(FLAG)
        raise errors.RateLimited(
            f"the rate limit {limiter.id} is reached; in {wait:.3f} s there is room again",
            limit=limiter.id,
            retry_after=wait,
            headers=tuple((name.decode("ascii"), value.decode("ascii")) for name, value in _headers(decision)),
            authority=call.authority,
            route=record.route,
            flags=record.flags,
        )


def tell(decision: Decision, now: float, emit: Emit | None) -> None:
    """An event for each limit that refuses again after a while."""
    if emit is not None:
        for limiter in decision.began:
            emit(Event("rate_limit.limited", now, reason=limiter.id))


def _refusal(decision: Decision, *, grpc: bool) -> Refusal:
    assert decision.refused is not None
    headers = _headers(decision)
    if grpc:
        headers.append(retry_pushback(decision.refused.wait))
    policy = f"rate limit {decision.refused.limiter.id}"
    return Refusal(STATUS, REASON, BODY, close=False, headers=tuple(headers), flag=FLAG, policy=policy)


def _headers(decision: Decision) -> list[tuple[bytes, bytes]]:
    assert decision.refused is not None
    return [*retry_after(decision.refused.wait), *decision.fields]


def _is_grpc(inspection: Inspection) -> bool:
    return inspection.request.grpc or inspection.request.fields.get(b"content-type", b"").startswith(b"application/grpc")
