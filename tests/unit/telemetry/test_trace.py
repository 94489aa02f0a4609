"""W3C trace context."""

from __future__ import annotations

import random

import pytest

from meshlib.model.inbound import TraceContext
from meshlib.telemetry.trace import child_traceparent, parse_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_a_valid_header() -> None:
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-01".encode()) == TraceContext(TRACE, SPAN, "01")


def test_a_future_version_may_be_longer() -> None:
    assert parse_traceparent(f"01-{TRACE}-{SPAN}-01-more".encode()) == TraceContext(TRACE, SPAN, "01")


@pytest.mark.parametrize(
    "value",
    [
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        "",
        "garbage",
    ],
)
def test_invalid_headers_start_a_new_trace(value: str) -> None:
    assert parse_traceparent(value.encode()) is None


def test_a_child_keeps_trace_and_sampling() -> None:
    parent = TraceContext(TRACE, SPAN, "01")
    children = {child_traceparent(parent, random.Random(seed)) for seed in range(50)}
    assert len(children) == 50
    for header in children:
        child = parse_traceparent(header)
        assert child is not None
        assert (child.trace_id, child.flags) == (TRACE, "01")
        assert child.span_id != SPAN
