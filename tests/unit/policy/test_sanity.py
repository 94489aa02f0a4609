"""The gate for headers: framing that two readers could read differently, and what no header may look like."""

from __future__ import annotations

import pytest

from meshlib.model.inbound import Refusal, ServerRequest
from meshlib.policy.sanity import MAX_HEADER_BYTES, MAX_HEADERS, authorities, check_headers

HOST = (b"host", b"a.test")


def check(*headers: tuple[bytes, bytes], method: str = "GET") -> str:
    """The reason of the refusal; empty if there is none."""
    found = check_headers(ServerRequest(method, b"/", [HOST, *headers]))
    return found.reason if isinstance(found, Refusal) else ""


def test_what_is_left_to_look_at() -> None:
    assert check_headers(ServerRequest("GET", b"/", [HOST, (b"x-a", b"1"), (b"x-a", b"2")])) == (True, b"a.test\n1\n2")


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([(b"content-length", b"4"), (b"transfer-encoding", b"chunked")], "content_length_and_chunked_not_allowed"),
        ([(b"content-length", b"1"), (b"content-length", b"2")], "contradicting_content_length"),
        ([(b"content-length", b"1"), (b"content-length", b"1")], ""),  # RFC 9110 section 8.6 allows the same twice
        ([(b"content-length", b"+5")], "invalid_content_length"),
        ([(b"content-length", b"0x5")], "invalid_content_length"),
        ([(b"content-length", b"5,5")], "invalid_content_length"),
        ([(b"content-length", b"")], "invalid_content_length"),
        ([(b"content-length", b"9" * 20)], "invalid_content_length"),
        ([(b"transfer-encoding", b"xchunked")], "invalid_transfer_encoding"),
        ([(b"transfer-encoding", b"gzip, chunked")], "invalid_transfer_encoding"),
        ([(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")], "duplicate_transfer_encoding"),
        ([(b"transfer-encoding", b"Chunked")], ""),
        ([(b"te ", b"trailers")], "invalid_header_name"),
        ([(b"content-length", b"5")], ""),
    ],
)
def test_H24_framing(headers: list[tuple[bytes, bytes]], reason: str) -> None:
    assert check(*headers) == reason


@pytest.mark.parametrize("value", [b"some_special\x00", b"a\r\nb: c", b"a\nb", b"\x1b[31m", b"\x7f"])
def test_H12_controls_in_values(value: bytes) -> None:
    assert check((b"x-foo", value)) == "invalid_characters"


@pytest.mark.parametrize("value", [b"", b"a\tb", b"\xff", b" a "])
def test_H12_what_values_may_have(value: bytes) -> None:
    assert check((b"x-foo", value)) == ""


@pytest.mark.parametrize("name", [b"x_role", b"_", b"x-role_"])
def test_H14_underscores(name: bytes) -> None:
    """They are hyphens for CGI, WSGI and Django: one would be seen by policies and another one by the application."""
    assert check((name, b"admin")) == "underscore_in_header_name"
    assert check((name.replace(b"_", b"-"), b"admin")) == ""


@pytest.mark.parametrize("name", [b"", b"x role", b"x:role", b"X-Role", b"x-r\xc3\xb6le", b"x\x00", b"a\nb", b"\n"])
def test_names_are_lower_case_tokens(name: bytes) -> None:
    """The servers' job; where one hands on ``X-Role``, no policy about ``x-role`` would see it."""
    assert check((name, b"1")) == "invalid_header_name"


def test_many_names_are_looked_at_as_few_are() -> None:
    many = [(b"x-%030d" % number, b"") for number in range(50)]
    assert check(*many) == ""
    assert check(*many, (b"x_a", b"")) == "underscore_in_header_name"
    assert check(*many, (b"", b"")) == "invalid_header_name"


@pytest.mark.parametrize("method", ["get", "GE T", "", "G\x00T", "G" * 65, "GET\n", "Post"])
def test_methods_are_upper_case_tokens(method: str) -> None:
    assert check(method=method) == "invalid_method"


@pytest.mark.parametrize("method", ["GET", "QUERY", "M-SEARCH", "VERSION-CONTROL"])
def test_methods_of_all_kinds(method: str) -> None:
    assert check(method=method) == ""


def test_L01_limits() -> None:
    """Envoy's defaults, to the byte."""
    assert check(*[(b"x-%d" % number, b"") for number in range(MAX_HEADERS - 1)]) == ""
    assert check(*[(b"x-%d" % number, b"") for number in range(MAX_HEADERS)]) == "too_many_headers"
    room = MAX_HEADER_BYTES - len(b"hosta.testx-a")
    assert check((b"x-a", b"a" * room)) == ""
    assert check((b"x-a", b"a" * (room + 1))) == "headers_too_large"
    assert check(*[(b"x-a", b"a" * (MAX_HEADER_BYTES // 90))] * 95) == "headers_too_large"


def test_L02_long_hosts() -> None:
    assert authorities(b"a" * 255) is not None
    assert authorities(b"a" * 256) is None
