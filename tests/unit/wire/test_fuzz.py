"""Arbitrary, mutated and arbitrarily cut bytes: no crash, no hang, no framing but the one an independent parser finds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import h11
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from meshlib.wire.connection import ClientConnection, State
from meshlib.wire.errors import WireError
from meshlib.wire.response import END, Event, Informational, ResponseHead, Trailers

Result = tuple[int, tuple[tuple[bytes, bytes], ...], bytes, tuple[tuple[bytes, bytes], ...]]
SEEDED = settings(max_examples=400, derandomize=True, deadline=None)

HEADER = st.sampled_from(
    [
        b"content-length: 0",
        b"Content-Length: 5",
        b"content-length: 12 ",
        b"content-length: 5, 5",
        b"content-length: -1",
        b"Transfer-Encoding: chunked",
        b"transfer-encoding: Chunked\t",
        b"transfer-encoding: identity",
        b"transfer-encoding: gzip, chunked",
        b"transfer-encoding\t: chunked",
        b"transfer-encoding: chunked\r\n folded: x",
        b"connection: close",
        b"connection: keep-alive",
        b"connection: upgrade\r\nupgrade: websocket",
        b"x-plain: value",
        b"x-\xff: \xfe",
        b"x: a\x00b",
        b"x: a\rb",
        b"x: a\nb: c",
        b"",
    ]
)
STATUS = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 200", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No", b"HTTP/1.1 304 Not",
     b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK", b"HTTP/1.1 101 Switch", b"HTTP/2 200", b"http/1.1 200 OK"]
)  # fmt: skip
BODY = st.sampled_from(
    [
        b"",
        b"hello",
        b"hello, world",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5;ext=1\r\nhello\r\n0\r\nx-t: 1\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"05\r\nhello\r\n00\r\n\r\n",
        b"g\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"hell",
        b"\r\n",
    ]
)
PLAUSIBLE = st.builds(
    lambda status, headers, body: status + b"\r\n" + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body,
    STATUS,
    st.lists(HEADER, max_size=4),
    BODY,
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A plausible response with a few bytes changed, dropped or inserted."""
    raw = bytearray(draw(PLAUSIBLE))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(0, len(raw) - 1)))
        byte = draw(st.sampled_from(b"\r\n\t :,;0159aAfF\x00\xff"))
        match draw(st.integers(0, 2)):
            case 0:
                raw[at : at + 1] = bytes([byte])
            case 1:
                raw[at:at] = bytes([byte])
            case _:
                del raw[at : at + 1]
    return bytes(raw)


def cut(raw: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = [0, *sorted(at % (len(raw) + 1) for at in cuts), len(raw)]
    return [raw[start:end] for start, end in pairwise(places) if end > start]


def normal(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """As h11 shows it."""
    name = name.lower()
    return name, value.lower() if name == b"transfer-encoding" else value


def ours(pieces: Sequence[bytes], *, head_only: bool = False) -> Result | None:
    """What our connection makes of a whole stream that ends with EOF; None: refused."""
    connection = ClientConnection()
    connection.start(head_only=head_only)
    events: list[Event] = []
    try:
        for piece in pieces:
            if connection.state in (State.IDLE, State.CLOSED):
                break
            events += connection.receive(piece)
        if connection.state not in (State.IDLE, State.CLOSED):
            events += connection.receive_eof()
    except WireError:
        assert connection.state is State.CLOSED
        return None
    assert events[-1] is END
    [head] = [found for found in events if isinstance(found, ResponseHead)]
    body = b"".join(found for found in events if isinstance(found, bytes))
    trailers = next((found.headers for found in events if isinstance(found, Trailers)), ())
    return head.status, tuple(normal(*field) for field in head.headers), body, trailers


def theirs(raw: bytes, *, head_only: bool) -> Result | None:
    """The same by h11."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="HEAD" if head_only else "GET", target="/", headers=[("host", "a")]))
    client.send(h11.EndOfMessage())
    head: h11.Response | None = None
    body = b""
    try:
        client.receive_data(raw)
        client.receive_data(b"")
        while True:
            found = client.next_event()
            if isinstance(found, h11.Response):
                head = found
            elif isinstance(found, h11.Data):
                body += found.data
            elif isinstance(found, h11.EndOfMessage):
                assert head is not None
                trailers = tuple((bytes(name), bytes(value)) for name, value in found.headers)
                return head.status_code, tuple(normal(*field) for field in head.headers), body, trailers
            elif not isinstance(found, h11.InformationalResponse):
                return None
    except h11.RemoteProtocolError:
        return None


@SEEDED
@given(st.lists(st.binary(max_size=64), max_size=6))
def test_arbitrary_bytes(pieces: list[bytes]) -> None:
    """Anything at all ends in a response or a WireError."""
    ours(pieces)
    ours([b"HTTP/1.1 ", *pieces])
    ours([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", *pieces])


@SEEDED
@given(mutated(), st.lists(st.integers(0, 1 << 16), max_size=6), st.booleans())
def test_cuts_do_not_matter(raw: bytes, cuts: list[int], head_only: bool) -> None:
    """However the network cuts a stream, it is accepted or refused alike, and means the same."""
    assert ours(cut(raw, cuts), head_only=head_only) == ours([raw], head_only=head_only)
    assert ours(cut(raw, range(len(raw))), head_only=head_only) == ours([raw], head_only=head_only)


@settings(SEEDED, max_examples=1500)
@given(mutated(), st.booleans())
def test_an_independent_parser_agrees(raw: bytes, head_only: bool) -> None:
    """Where both accept, h11 finds the same status, headers, body and trailers: no desynchronisation."""
    mine, other = ours([raw], head_only=head_only), theirs(raw, head_only=head_only)
    event(f"ours {'accepts' if mine else 'refuses'}, h11 {'accepts' if other else 'refuses'}")
    if mine is not None and other is not None:
        assert mine == other


@SEEDED
@given(mutated(), mutated())
def test_a_response_never_leaks_into_the_next(first: bytes, second: bytes) -> None:
    """If a connection is offered for reuse after any first response, the second one is read as on a new connection."""
    connection = ClientConnection()
    connection.start()
    try:
        connection.receive(first)
    except WireError:
        return
    assume(connection.state is State.IDLE)
    connection.start()
    try:
        reused: list[Event] | None = list(connection.receive(second))
    except WireError:
        reused = None
    fresh = ClientConnection()
    fresh.start()
    try:
        expected: list[Event] | None = list(fresh.receive(second))
    except WireError:
        expected = None
    assert describe(reused) == describe(expected)


def describe(events: list[Event] | None) -> list[object] | None:
    """Comparable; the shortcut for repeated heads may give an empty piece of body."""
    if events is None:
        return None
    plain = [(found.status, found.headers) if isinstance(found, ResponseHead) else found for found in events]
    return [found.headers if isinstance(found, Trailers | Informational) else found for found in plain if found != b""]
