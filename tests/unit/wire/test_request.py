"""Request heads: what is written, what is refused, and that nothing can be smuggled in."""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshlib.errors import RequestError
from meshlib.wire.request import LAST_CHUNK, announced_length, asks_to_close, encode_chunk, encode_head, expects_continue

Pairs = list[tuple[bytes, bytes]]


def encode(method: str = "GET", target: str = "/", headers: Pairs | None = None, body_length: int | None = 0) -> bytes:
    return encode_head(method, target, headers or [], authority="reviews:80", body_length=body_length)


def test_host_comes_first_and_from_the_authority() -> None:
    assert encode(headers=[(b"Accept", b"*/*")]) == b"GET / HTTP/1.1\r\nhost: reviews:80\r\nAccept: */*\r\n\r\n"


def test_the_callers_host_is_kept() -> None:
    assert encode(headers=[(b"Host", b"other")]) == b"GET / HTTP/1.1\r\nHost: other\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "headers", "body_length", "framing"),
    [
        ("GET", [], 0, b""),
        ("POST", [], 0, b"content-length: 0\r\n"),
        ("DELETE", [], 0, b""),
        ("POST", [], 5, b"content-length: 5\r\n"),
        ("GET", [], 5, b"content-length: 5\r\n"),
        ("POST", [(b"Content-Length", b"5")], 5, b"Content-Length: 5\r\n"),
        ("POST", [(b"Content-Length", b"5")], None, b"Content-Length: 5\r\n"),
        ("POST", [], None, b"transfer-encoding: chunked\r\n"),
        ("POST", [(b"Transfer-Encoding", b"Chunked")], None, b"Transfer-Encoding: chunked\r\n"),
    ],
)
def test_framing(method: str, headers: Pairs, body_length: int | None, framing: bytes) -> None:
    """Exactly one of content-length, transfer-encoding, or neither."""
    head = encode(method, "/", headers, body_length)
    assert head == b"%b / HTTP/1.1\r\nhost: reviews:80\r\n%b\r\n" % (method.encode(), framing)


@pytest.mark.parametrize(
    ("headers", "body_length", "says"),
    [
        ([(b"content-length", b"5")], 4, "content-length says 5"),
        ([(b"content-length", b"5"), (b"Content-Length", b"5")], 5, "more than one content-length"),
        ([(b"content-length", b"+5")], 5, "not a number"),
        ([(b"content-length", b"")], None, "not a number"),
        ([(b"content-length", b"5, 5")], 5, "not a number"),
        ([(b"transfer-encoding", b"chunked")], 5, "contradicts"),
        ([(b"transfer-encoding", b"chunked"), (b"content-length", b"5")], None, "contradicts"),
        ([(b"transfer-encoding", b"gzip, chunked")], None, "only chunked"),
        ([(b"transfer-encoding", b"xchunked")], None, "only chunked"),
        ([(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")], None, "more than one"),
        ([(b"host", b"a"), (b"Host", b"a")], 0, "more than one host"),
        ([(b"host", b"a/?x=")], 0, "not a host"),
        ([(b"expect", b"200-ok")], 0, "100-continue"),
    ],
)
def test_contradictions_are_refused(headers: Pairs, body_length: int | None, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        encode("POST", "/", headers, body_length)


@pytest.mark.parametrize("method", ["", "GE T", "GET\r\n", "GET\n", "GÉT", "CONNECT", "GET\0"])
def test_methods_that_are_refused(method: str) -> None:
    with pytest.raises(RequestError, match="method"):
        encode(method)


@pytest.mark.parametrize("target", ["", "/a b", "/a\r\nx: y", "/a\n", "/a\0", "/\x7f", "/ü", "/#fragment", "/a\tb"])
def test_targets_that_are_refused(target: str) -> None:
    with pytest.raises(RequestError, match="target"):
        encode("GET", target)


@pytest.mark.parametrize("target", ["/", "*", "/a?b=c&d=%20", "/a/../b;x=y", "http://reviews/a", '/{"a"}|^`'])
def test_targets_go_out_as_they_are(target: str) -> None:
    assert encode("GET", target).startswith(b"GET %b HTTP/1.1\r\n" % target.encode())


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a\r\nb", b"a\n", b"\xc3\xbc", b" a", b"a\0"])
def test_header_names_that_are_refused(name: bytes) -> None:
    with pytest.raises(RequestError, match="header name"):
        encode(headers=[(name, b"v")])


@pytest.mark.parametrize("value", [b"a\r\nb: c", b"a\n", b"\ra", b"a\0b", b"a\x1b", b"a\x7f"])
@pytest.mark.parametrize("name", [b"x-plain", b"authorization"])
def test_header_values_that_are_refused(name: bytes, value: bytes) -> None:
    """H12, H22: control characters never leave the process, whether the line is cached or not."""
    with pytest.raises(RequestError, match="control character"):
        encode(headers=[(name, value)])
    with pytest.raises(RequestError, match="control character"):
        encode(headers=[(name, value + b"x" * 200)])


def test_header_values_are_stripped_and_may_hold_any_other_byte() -> None:
    assert b"\r\nx: a\t\xfc b\r\n" in encode(headers=[(b"x", b" \ta\t\xfc b\t ")])


@pytest.mark.parametrize("authority", ["a b", "a\r\nx: y", "user@host", "a/b", "ü"])
def test_authorities_that_are_refused(authority: str) -> None:
    with pytest.raises(RequestError, match="authority"):
        encode_head("GET", "/", [], authority=authority)


HOSTILE = st.text(st.sampled_from(list("aZ0 :,;=\t\r\n\0\x7f\x0b-_/?#%")), max_size=12)


def mostly(text: str) -> st.SearchStrategy[str]:
    """Something acceptable two times in three, so that whole heads are accepted often."""
    return st.one_of(st.just(text), st.text("aB-_9", min_size=1, max_size=9).map(text.__add__), HOSTILE)


@given(
    method=mostly("GET"),
    target=mostly("/a"),
    authority=mostly("reviews"),
    headers=st.lists(st.tuples(mostly("x-a").map(str.encode), mostly("v").map(str.encode)), max_size=4),
    body_length=st.one_of(st.none(), st.integers(0, 9)),
)
@example(method="GET", target="/", authority="a", headers=[(b"a", b"b")], body_length=0)
def test_nothing_can_be_injected(method: str, target: str, authority: str, headers: Pairs, body_length: int | None) -> None:
    """Whatever is accepted has one line per header, and an independent parser reads back what was put in."""
    try:
        head = encode_head(method, target, headers, authority=authority, body_length=body_length)
    except RequestError:
        return
    lines = head.split(b"\r\n")
    assert lines[-2:] == [b"", b""]
    assert b"\r" not in b"".join(lines)
    assert b"\n" not in b"".join(lines)
    assert b"\0" not in head
    server = h11.Connection(h11.SERVER)
    server.receive_data(head)
    request = server.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) == (method.encode(), target.encode())
    read_back = [(bytes(name), bytes(value)) for name, value in request.headers]
    ours = {b"host", b"content-length", b"transfer-encoding"}
    assert [pair for pair in read_back if pair[0] not in ours] == [(n.lower(), v.strip(b" \t")) for n, v in headers]


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_chunks_read_back(pieces: list[bytes]) -> None:
    """Chunks and the last one give the pieces' bytes back; an empty piece does not end the body."""
    body = b"".join(encode_chunk(piece) for piece in pieces) + LAST_CHUNK
    server = h11.Connection(h11.SERVER)
    server.receive_data(encode("POST", "/", [], None) + body)
    server.next_event()
    received = b""
    while not isinstance(event := server.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data)
        received += event.data
    assert received == b"".join(pieces)


@pytest.mark.parametrize(
    ("headers", "body_length", "length", "expects", "closes"),
    [
        ([], 0, 0, False, False),
        ([], 7, 7, False, False),
        ([], None, None, False, False),
        ([(b"Content-Length", b"3")], None, 3, False, False),
        ([(b"Expect", b"100-Continue")], 7, 7, True, False),
        ([(b"Connection", b"keep-alive, Close")], 0, 0, False, True),
        ([(b"CONNECTION", b"CLOSE")], 0, 0, False, True),
        ([(b"x", b"close"), (b"y", b"100-continue"), (b"z", b"content-length: 9")], 0, 0, False, False),
    ],
)
def test_what_a_head_says(headers: Pairs, body_length: int | None, length: int | None, expects: bool, closes: bool) -> None:
    """The engine learns framing from the head that is really sent, so the two cannot disagree."""
    head = encode("GET", "/", headers, body_length)
    assert (announced_length(head), expects_continue(head), asks_to_close(head)) == (length, expects, closes)
