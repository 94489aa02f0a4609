"""The server's flow: the gate, and what travels on."""

from __future__ import annotations

import pytest

from meshlib.flow.inbound import InboundPlan
from meshlib.flow.server import Handle, server_flow
from meshlib.model.inbound import Refusal, ServerRequest

HOST = (b"host", b"a.test")


def run(*headers: tuple[bytes, bytes], method: str = "GET", target: bytes = b"/", host: bool = True) -> Handle | Refusal:
    flow = server_flow(ServerRequest(method, target, [HOST, *headers] if host else list(headers)), 100.0)
    try:
        handle = next(flow)
    except StopIteration as stop:
        refusal: Refusal = stop.value
        return refusal
    flow.close()
    assert isinstance(handle, Handle)
    return handle


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ({"target": b"/admin#x"}, "path_normalization_failed"),  # P07
        ({"target": b"/admin%00"}, "path_normalization_failed"),  # P16
        ({"target": b"/adm%0ain"}, "path_normalization_failed"),
        ({"target": b"/a\x00b"}, "path_normalization_failed"),
        ({"target": b"/caf\xc3\xa9"}, "path_normalization_failed"),
        ({"target": b"admin"}, "path_normalization_failed"),  # P17
        ({"target": b"@evil/admin"}, "path_normalization_failed"),
        ({"target": b""}, "path_normalization_failed"),
        ({"target": b"http://evil.test/admin"}, "authority_mismatch"),  # P18
        ({"target": b"a:443", "method": "CONNECT"}, "connect_not_supported"),  # P19
        ({"target": b"*"}, "path_normalization_failed"),
        ({"method": "get"}, "invalid_method"),
        ({"method": "GE T"}, "invalid_method"),
        ({"host": False}, "missing_host_header"),  # H07
    ],
)
def test_refused_targets(case: dict[str, object], reason: str) -> None:
    result = run(**case)  # type: ignore[arg-type]
    assert isinstance(result, Refusal)
    assert (result.status, result.reason, result.close) == (400, reason, True)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([HOST], "duplicate_host_header"),  # H05
        ([(b"content-length", b"1"), (b"content-length", b"2")], "contradicting_content_length"),  # H24
        ([(b"content-length", b"+5")], "invalid_content_length"),
        ([(b"content-length", b"1"), (b"transfer-encoding", b"chunked")], "content_length_and_chunked_not_allowed"),
        ([(b"transfer-encoding", b"xchunked")], "invalid_transfer_encoding"),
        ([(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")], "duplicate_transfer_encoding"),
        ([(b"x-role", b"admin\x00")], "invalid_characters"),  # H12
        ([(b"x-role", b"a\r\nb: c")], "invalid_characters"),
        ([(b"x role", b"a")], "invalid_header_name"),
        ([(b"", b"a")], "invalid_header_name"),
        ([(b"x-role", b"user"), (b"x_role", b"admin")], "underscore_in_header_name"),  # H14
    ],
)
def test_refused_headers(headers: list[tuple[bytes, bytes]], reason: str) -> None:
    result = run(*headers)
    assert isinstance(result, Refusal)
    assert (result.status, result.reason) == (400, reason)


@pytest.mark.parametrize("host", [b"a/?x=", b"a b", b"", b"a@b", b"a:b", b"a.test:999999", b"[::1", b"\xff"])
def test_refused_hosts(host: bytes) -> None:
    """H06: the Host header has a grammar."""
    result = run((b"host", host), host=False)
    assert isinstance(result, Refusal)
    assert result.reason == "invalid_authority"


@pytest.mark.parametrize("host", [b"a.test", b"A.TEST.:80", b"127.0.0.1:8080", b"[::1]:80", b"my_svc"])
def test_accepted_hosts(host: bytes) -> None:
    assert isinstance(run((b"host", host), host=False), Handle)


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        (b"/", b"/"),
        (b"/a%20b?x=%0A", b"/a%20b?x=%0A"),  # an encoded control character in the query is data
        (b"/a%2Fb", b"/a%2Fb"),
        (b"http://A.TEST/admin?x", b"/admin?x"),
        (b"http://a.test", b"/"),
        (b"http://a.test?x", b"/?x"),
    ],
)
def test_accepted_targets(target: bytes, seen: bytes) -> None:
    handle = run(target=target)
    assert isinstance(handle, Handle)
    assert handle.target == seen


def test_H20_the_plan_says_how_many_hops_are_trusted() -> None:
    request = ServerRequest("GET", b"/", [HOST, (b"x-forwarded-for", b"1.2.3.4, 5.6.7.8")])
    for hops, expected in ((0, ""), (1, "5.6.7.8"), (2, "1.2.3.4")):
        flow = server_flow(request, 100.0, InboundPlan(trusted_hops=hops))
        handle = next(flow)
        flow.close()
        assert isinstance(handle, Handle)
        assert handle.inspection.remote_address == expected


def test_options_asterisk_is_a_request_of_its_own() -> None:
    handle = run(target=b"*", method="OPTIONS")
    assert isinstance(handle, Handle)
    assert handle.target == b"*"


def test_too_many_or_too_large_headers() -> None:
    many = run(*[(b"x-%d" % n, b"") for n in range(100)])
    large = run((b"x-large", b"a" * 61_440))
    assert isinstance(many, Refusal)
    assert isinstance(large, Refusal)
    assert (many.status, large.status) == (431, 431)
    assert isinstance(run(*[(b"x-%d" % n, b"") for n in range(99)]), Handle)


@pytest.mark.parametrize(
    ("headers", "deadline"),
    [
        ([], None),
        ([(b"x-envoy-expected-rq-timeout-ms", b"1500")], 101.5),
        ([(b"grpc-timeout", b"200m")], 100.2),
        ([(b"grpc-timeout", b"2S"), (b"x-envoy-expected-rq-timeout-ms", b"1500")], 101.5),
        ([(b"x-envoy-expected-rq-timeout-ms", b"0")], None),
        ([(b"x-envoy-expected-rq-timeout-ms", b"-5")], None),
        ([(b"x-envoy-expected-rq-timeout-ms", b"9" * 30)], None),
        ([(b"grpc-timeout", b"1x")], None),
    ],
)
def test_what_is_left_of_the_callers_time(headers: list[tuple[bytes, bytes]], deadline: float | None) -> None:
    handle = run(*headers)
    assert isinstance(handle, Handle)
    assert handle.context.deadline == deadline


def test_trace_and_attempt() -> None:
    parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    handle = run(
        (b"traceparent", parent),
        (b"tracestate", b"a=1"),
        (b"x-request-id", b"r1"),
        (b"x-b3-traceid", b"t" * 9000),  # oversized: not handed on
        (b"x-envoy-attempt-count", b"2"),
        (b"x-other", b"not ours"),
    )
    assert isinstance(handle, Handle)
    context = handle.context
    assert context.trace is not None
    assert (context.trace.trace_id, context.trace.flags, context.attempt) == ("0af7651916cd43dd8448eb211c80319c", "01", 2)
    assert context.forwarded == ((b"tracestate", b"a=1"), (b"x-request-id", b"r1"))
    assert context.remaining(100.0) is None
