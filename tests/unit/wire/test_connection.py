"""One connection as a state machine: events, framing, limits, reuse."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from meshlib.model.outcome import Reset
from meshlib.wire.connection import ClientConnection, State
from meshlib.wire.errors import BodyTruncated, ProtocolViolation, Terminated, WireError
from meshlib.wire.response import END, Event, Informational, ResponseHead, Trailers

OK = b"HTTP/1.1 200 OK\r\n"


def started(*, head_only: bool = False, close: bool = False, sent: bool = True) -> ClientConnection:
    connection = ClientConnection()
    connection.start(head_only=head_only, close=close, sent=sent)
    return connection


def seen(events: Sequence[Event]) -> list[object]:
    """Events as plain values, with neighbouring body pieces joined."""
    values: list[object] = []
    for event in events:
        if isinstance(event, ResponseHead):
            values.append((event.status, event.reason, event.http_version, event.headers))
        elif isinstance(event, Informational):
            values.append((event.status, event.headers))
        elif isinstance(event, Trailers):
            values.append(event.headers)
        elif isinstance(event, bytes):
            if values and isinstance(values[-1], bytes):
                values[-1] += event
            elif event:
                values.append(event)
        else:
            values.append(event)
    return values


def run(raw: bytes, connection: ClientConnection, *, step: int = 1 << 20, eof: bool = False) -> list[object]:
    events: list[Event] = []
    for start in range(0, len(raw), step):
        events += connection.receive(raw[start : start + step])
    if eof:
        events += connection.receive_eof()
    return seen(events)


def head(status: int, reason: bytes, *headers: tuple[bytes, bytes], version: bytes = b"HTTP/1.1") -> object:
    return (status, reason, version, headers)


RESPONSES: list[tuple[str, bytes, list[object], bool]] = [
    # name, bytes, events, reusable
    ("length", OK + b"Content-Length: 3\r\n\r\nabc", [head(200, b"OK", (b"Content-Length", b"3")), b"abc", END], True),
    ("empty", OK + b"content-length: 0\r\n\r\n", [head(200, b"OK", (b"content-length", b"0")), END], True),
    ("no reason", b"HTTP/1.1 204\r\n\r\n", [head(204, b""), END], True),
    ("304", b"HTTP/1.1 304 N\r\ncontent-length: 9\r\n\r\n", [head(304, b"N", (b"content-length", b"9")), END], True),
    ("204 with a length", b"HTTP/1.1 204 N\r\ncontent-length: 9\r\n\r\n",
     [head(204, b"N", (b"content-length", b"9")), END], False),
    ("spaces", OK + b"content-length: 1 \t\r\nx:  y \r\n\r\na",
     [head(200, b"OK", (b"content-length", b"1"), (b"x", b"y")), b"a", END], True),
    ("close", OK + b"Connection: x, Close\r\ncontent-length: 1\r\n\r\na",
     [head(200, b"OK", (b"Connection", b"x, Close"), (b"content-length", b"1")), b"a", END], False),
    ("1.0", b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na",
     [head(200, b"OK", (b"content-length", b"1"), version=b"HTTP/1.0"), b"a", END], False),
    ("1.0 keep-alive", b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\na",
     [head(200, b"OK", (b"connection", b"keep-alive"), (b"content-length", b"1"), version=b"HTTP/1.0"), b"a", END], True),
    ("chunked", OK + b"Transfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0a;x=y\r\n0123456789\r\n0\r\n\r\n",
     [head(200, b"OK", (b"Transfer-Encoding", b"Chunked")), b"abc0123456789", END], True),
    ("trailers", OK + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-sum: 1\r\ny:z\r\n\r\n",
     [head(200, b"OK", (b"transfer-encoding", b"chunked")), b"a", ((b"x-sum", b"1"), (b"y", b"z")), END], True),
    ("chunked, empty", OK + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
     [head(200, b"OK", (b"transfer-encoding", b"chunked")), END], True),
    ("informational",
     b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 103 E\r\nlink: x\r\n\r\nHTTP/1.1 104 ?\r\n\r\n" + OK + b"content-length: 1\r\n\r\na",
     [(100, ()), (103, ((b"link", b"x"),)), (104, ()), head(200, b"OK", (b"content-length", b"1")), b"a", END], True),
    ("upgrade offered, not taken", OK + b"connection: Upgrade\r\nupgrade: h2c\r\ncontent-length: 1\r\n\r\na",
     [head(200, b"OK", (b"connection", b"Upgrade"), (b"upgrade", b"h2c"), (b"content-length", b"1")), b"a", END], True),
    ("odd status", b"HTTP/1.1 799 Odd\r\ncontent-length: 0\r\n\r\n", [head(799, b"Odd", (b"content-length", b"0")), END], True),
]  # fmt: skip


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize(("raw", "events", "reusable"), [case[1:] for case in RESPONSES], ids=[case[0] for case in RESPONSES])
def test_responses(raw: bytes, events: list[object], reusable: bool, step: int) -> None:
    """The same events, however the bytes are cut, and the second time on a connection that lives on as well."""
    connection = started()
    assert run(raw, connection, step=step) == events
    assert (connection.state is State.IDLE) is reusable
    if reusable:
        connection.start()
        assert run(raw, connection, step=step) == events


@pytest.mark.parametrize("step", [1, 1 << 20])
def test_a_body_that_ends_with_the_connection(step: int) -> None:
    connection = started()
    assert run(OK + b"\r\nabc", connection, step=step, eof=True) == [head(200, b"OK"), b"abc", END]
    assert connection.state is State.CLOSED


@pytest.mark.parametrize("framing", [b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b""])
def test_a_response_to_head_has_no_body(framing: bytes) -> None:
    """Whatever its headers announce; and the connection is fit for the next one unless a body would end with it."""
    connection = started(head_only=True)
    events = run(OK + framing + b"\r\n", connection)
    assert [event for event in events if isinstance(event, bytes)] == []
    assert events[-1] is END
    assert (connection.state is State.IDLE) is bool(framing)


def test_a_remembered_head_is_not_used_for_head_requests() -> None:
    """The shortcut for repeated heads must not invent a body."""
    raw = OK + b"content-length: 5\r\n\r\n"
    connection = started()
    run(raw + b"12345", connection)
    connection.start(head_only=True)
    assert run(raw, connection)[1:] == [END]
    connection.start()
    assert run(raw + b"67890", connection)[1:] == [b"67890", END]


def test_a_remembered_head_with_a_body_in_pieces() -> None:
    raw = OK + b"content-length: 5\r\n\r\n"
    connection = started()
    run(raw + b"12345", connection)
    connection.start()
    assert run(raw + b"6", connection)[1:] == [b"6"]
    assert run(b"7890", connection) == [b"7890", END]


@pytest.mark.parametrize(
    "raw",
    [
        OK + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n",
        OK + b"content-length: 1\r\ncontent-length: 1\r\n\r\n",
        OK + b"content-length: 1\r\nContent-Length: 2\r\n\r\n",
        OK + b"content-length: 1, 1\r\n\r\n",
        OK + b"content-length: +1\r\n\r\n",
        OK + b"content-length: 0x1\r\n\r\n",
        OK + b"content-length: 1_0\r\n\r\n",
        OK + b"content-length: \xb2\r\n\r\n",
        OK + b"content-length:\r\n\r\n",
        OK + b"content-length: 99999999999999999999999999\r\n\r\n",
        OK + b"transfer-encoding: xchunked\r\n\r\n",
        OK + b"transfer-encoding: gzip, chunked\r\n\r\n",
        OK + b"transfer-encoding: chunked, gzip\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
        OK + b"transfer-encoding : chunked\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n1\r\nxy0\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n1\r\nx\n0\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n1 \r\nx\r\n0\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n0\r\ncontent-length: 5\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"a: b\r\n c\r\n\r\n",
        OK + b"a: b\r\n\tc\r\n\r\n",
        OK + b"a: b\nc: d\r\n\r\n",
        OK + b"a: b\rc: d\r\n\r\n",
        OK + b"a: b\0\r\n\r\n",
        OK + b"a b: c\r\n\r\n",
        OK + b": c\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        b"HTTP/1.1 200 OK\nA: b\n\n",
        b"HTTP/1.1 200 O\0K\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.2 200 OK\r\n\r\n",
        b"HTTP/0.9 200 OK\r\n\r\n",
        b"http/1.1 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"RTSP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 1000 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"<html>",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\nGET /admin HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 100 C\r\n\r\n" * 40,
    ],
)
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_what_is_refused(raw: bytes, step: int) -> None:
    """H24, H25: a response that could be read in two ways, or is none, is an error at once, whole or byte by byte."""
    connection = started()
    with pytest.raises(ProtocolViolation) as caught:
        run(raw, connection, step=step)
    assert connection.state is State.CLOSED
    assert (caught.value.reset, caught.value.responded) == (Reset.PROTOCOL_ERROR, True)


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", Terminated),
        (b"HTTP/1.1 200 OK\r\nconte", Terminated),
        (b"HTTP/1.1 100 C\r\n\r\n", Terminated),
        (OK + b"content-length: 5\r\n\r\n1234", BodyTruncated),
        (OK + b"transfer-encoding: chunked\r\n\r\n5\r\n1234", BodyTruncated),
        (OK + b"transfer-encoding: chunked\r\n\r\n5\r\n12345\r\n", BodyTruncated),
        (OK + b"transfer-encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n", BodyTruncated),
    ],
)
def test_an_early_end_raises(raw: bytes, error: type[WireError]) -> None:
    """F15: never a silently short body."""
    connection = started()
    with pytest.raises(error) as caught:
        run(raw, connection, eof=True)
    assert (caught.value.sent, caught.value.responded) == (True, bool(raw) or error is BodyTruncated)


@pytest.mark.parametrize(
    "raw", [OK + b"content-length: 1\r\n\r\nab", OK + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n" + OK]
)
def test_bytes_after_the_end_cost_the_connection_but_not_the_response(raw: bytes) -> None:
    connection = started()
    assert run(raw, connection)[1:] == [b"a", END]
    assert connection.state is State.CLOSED


def test_bytes_without_a_request() -> None:
    """A response that nobody asked for must never answer the next request."""
    connection = started()
    run(OK + b"content-length: 0\r\n\r\n", connection)
    with pytest.raises(ProtocolViolation) as caught:
        connection.receive(OK)
    assert (caught.value.sent, connection.state) == (False, State.CLOSED)


@pytest.mark.parametrize(("close", "sent"), [(True, True), (False, False)])
def test_what_else_ends_a_connection(close: bool, sent: bool) -> None:
    """We asked to close; or the answer came before the whole request was sent."""
    connection = started(close=close, sent=sent)
    assert run(OK + b"content-length: 1\r\n\r\na", connection)[-1] is END
    assert connection.state is State.CLOSED


def test_the_request_may_be_completed_before_the_response_is() -> None:
    connection = started(sent=False)
    run(OK + b"content-length: 2\r\n\r\na", connection)
    connection.request_sent = True
    run(b"b", connection)
    assert connection.state is State.IDLE


@pytest.mark.parametrize(
    ("raw", "allowed"),
    [
        (OK + b"".join(b"h%d: v\r\n" % n for n in range(10)) + b"\r\n", True),
        (OK + b"".join(b"h%d: v\r\n" % n for n in range(11)) + b"\r\n", False),
        (OK + b"h: " + b"v" * 950 + b"\r\n\r\n", True),
        (OK + b"h: " + b"v" * 1000 + b"\r\n\r\n", False),
        (OK + b"h: " + b"v" * 5000, False),
        (OK + b"transfer-encoding: chunked\r\n\r\n1;" + b"x" * 900 + b"\r\na\r\n0\r\n\r\n", True),
        (OK + b"transfer-encoding: chunked\r\n\r\n1;" + b"x" * 5000, False),
        (OK + b"transfer-encoding: chunked\r\n\r\n0\r\nt: " + b"x" * 5000, False),
        (OK + b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"t: v\r\n" * 11 + b"\r\n", False),
    ],
)
@pytest.mark.parametrize("step", [1, 100])
def test_limits(raw: bytes, allowed: bool, step: int) -> None:
    """A peer cannot make us collect headers, trailers or chunk extensions without end."""
    connection = ClientConnection(max_headers=10, max_head_bytes=1000)
    connection.start()
    if allowed:
        run(raw, connection, step=step)
    else:
        with pytest.raises(ProtocolViolation, match=r"more than|larger than"):
            run(raw, connection, step=step)


def test_a_request_cannot_start_twice() -> None:
    with pytest.raises(AssertionError, match="head"):
        started().start()
