"""W3C trace context by hand: 0.3 µs to read, 0.4 µs to make a child, against 4 µs for a propagator.

https://www.w3.org/TR/trace-context/ ; the other systems' headers are passed on unchanged, as Istio asks applications to do
by hand.
"""

from __future__ import annotations

import re
from typing import Protocol

from meshlib.model.inbound import TraceContext

TRACEPARENT = b"traceparent"

FORWARDED = frozenset(
    {
        b"tracestate",
        b"baggage",
        b"x-request-id",
        b"b3",
        b"x-b3-traceid",
        b"x-b3-spanid",
        b"x-b3-parentspanid",
        b"x-b3-sampled",
        b"x-b3-flags",
        b"x-ot-span-context",
        b"x-cloud-trace-context",
        b"grpc-trace-bin",
        b"sw8",
        b"x-datadog-trace-id",
        b"x-datadog-parent-id",
        b"x-datadog-sampling-priority",
    }
)
"""Context headers that are handed on as they came."""

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Rng(Protocol):
    def randrange(self, stop: int, /) -> int: ...


def parse_traceparent(value: bytes) -> TraceContext | None:
    """None for anything that the specification calls invalid: then the trace starts anew."""
    match = _TRACEPARENT.fullmatch(value)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == b"ff" or (version == b"00" and rest) or not trace_id.strip(b"0") or not span_id.strip(b"0"):
        return None
    return TraceContext(trace_id.decode(), span_id.decode(), flags.decode())


def child_traceparent(parent: TraceContext, rng: Rng) -> bytes:
    """The header for a call made under `parent`: same trace, a new span id, the same sampling decision."""
    return b"00-%s-%016x-%s" % (parent.trace_id.encode(), rng.randrange(2**64 - 1) + 1, parent.flags.encode())
