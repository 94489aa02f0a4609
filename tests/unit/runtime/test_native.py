"""The native call: what people write as URL, headers and body, and what they get back."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.errors import ConnectFailed, NoHealthyUpstream, RequestError
from meshlib.flow.record import CallRecord
from meshlib.lowlevel import Timeouts
from meshlib.runtime.native import Response, ResponseHeaders, build_request, split_url
from meshlib.testing import service, static_mesh


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://reviews", ("http", "reviews:80", "reviews", "/")),
        ("http://reviews/", ("http", "reviews:80", "reviews", "/")),
        ("http://reviews/7?x=1&y=/a", ("http", "reviews:80", "reviews", "/7?x=1&y=/a")),
        ("http://reviews:9080/7", ("http", "reviews:9080", "reviews:9080", "/7")),
        ("HTTP://Reviews.Default./7", ("http", "reviews.default:80", "Reviews.Default.", "/7")),
        ("https://reviews/7", ("https", "reviews:443", "reviews", "/7")),
        ("https://reviews:8443", ("https", "reviews:8443", "reviews:8443", "/")),
        ("http://127.0.0.1:80/", ("http", "127.0.0.1:80", "127.0.0.1:80", "/")),
        ("http://[::1]/", ("http", "[::1]:80", "[::1]", "/")),
        ("http://[::1]:8080/", ("http", "[::1]:8080", "[::1]:8080", "/")),
        ("http://reviews/%2F/%20?q=%3F", ("http", "reviews:80", "reviews", "/%2F/%20?q=%3F")),
        ("http://reviews/a//b/../c", ("http", "reviews:80", "reviews", "/a//b/../c")),
    ],
)
def test_urls_are_taken_apart(url: str, parts: tuple[str, str, str, str]) -> None:
    assert split_url(url) == parts
    assert split_url(url) == parts  # from memory


@pytest.mark.parametrize(
    "url",
    [
        "",
        "reviews",
        "/7",
        "//reviews/7",
        "reviews:9080/7",
        "ftp://reviews/",
        "http:/reviews/",
        "http:reviews",
        "http://",
        "http:///7",
        "http://:80/",
        "http://reviews:0/",
        "http://reviews:65536/",
        "http://reviews:port/",
        "http://reviews:-1/",
        "http://reviews:80:80/",
        "http://::1/",
        "http://user@reviews/",
        "http://user:secret@reviews/",
        "http://reviews?x=1",
        "http://reviews#top",
        "http://reviews\r\nx: 1/",
        "http://re views/",
        "http://reviews\x00/",
        "http://[::1/",
        "http://[]/",
        "http://reviews:/",
        "http://reviews\\@other/",
        "http://reviews:\u00b2/",
        "http://caf\u00e9/",
    ],
)
def test_bad_urls_are_refused(url: str) -> None:
    with pytest.raises(RequestError) as caught, static_mesh() as mesh:
        mesh.request("GET", url)
    assert "URL" in str(caught.value)


@pytest.mark.parametrize("target", ["/a b", "/a\r\nx: 1", "/caf\u00e9", "/a\x00"])
def test_targets_that_are_not_percent_encoded_are_refused(target: str) -> None:
    with pytest.raises(RequestError), static_mesh(service("reviews", ["127.0.0.1:9"], retry=None)) as mesh:
        mesh.request("GET", f"http://reviews{target}")


def test_headers_come_as_a_mapping_or_as_pairs() -> None:
    assert build_request("GET", "http://a/", {"X-A": "1"}, b"", None, None).headers == [(b"X-A", b"1")]
    pairs = [("x-a", "1"), ("X-A", "caf\u00e9")]
    assert build_request("GET", "http://a/", pairs, b"", None, None).headers == [(b"x-a", b"1"), (b"X-A", b"caf\xe9")]


@pytest.mark.parametrize("header", [("x-\u00e9", "1"), ("x-a", "\u20ac")])
def test_headers_beyond_latin_1_are_refused(header: tuple[str, str]) -> None:
    with pytest.raises(RequestError, match="headers"):
        build_request("GET", "http://a/", [header], b"", None, None)


def test_text_is_sent_as_utf_8() -> None:
    request = build_request("POST", "http://a/", None, "\u20ac", None, None)
    assert (request.body, request.length) == (b"\xe2\x82\xac", 3)


def test_a_number_of_seconds_covers_the_whole_call() -> None:
    assert build_request("GET", "http://a/", None, b"", 2, None).timeouts.total == 2
    timeouts = Timeouts(read=1.0)
    assert build_request("GET", "http://a/", None, b"", timeouts, None).timeouts is timeouts
    assert build_request("GET", "http://a/", None, b"", None, None).timeouts.total is None


def test_headers_are_looked_up_in_any_case() -> None:
    headers = ResponseHeaders([(b"Set-Cookie", b"a"), (b"set-cookie", b"b"), (b"X-Latin", b"caf\xe9")])
    assert headers["SET-COOKIE"] == "a"
    assert list(headers.all("set-cookie")) == ["a", "b"]
    assert headers.get("x-latin") == "caf\u00e9"
    assert headers.get("absent") is None
    assert headers.get("absent", "-") == "-"
    assert "x-latin" in headers
    assert "absent" not in headers
    assert len(headers) == 3
    assert next(iter(headers)) == ("Set-Cookie", "a")
    with pytest.raises(KeyError, match="absent"):
        headers["absent"]
    assert "Set-Cookie" in repr(headers)


def response(content: bytes) -> Response:
    return Response(200, [], content, CallRecord("reviews:80", 0.0), reason=b"OK", http_version=b"HTTP/1.1")


def test_a_response_as_text_and_json() -> None:
    assert response(b'{"a": [1]}').json() == {"a": [1]}
    assert response("caf\u00e9".encode()).text == "caf\u00e9"
    assert response(b"\xff").text == "\ufffd"
    with pytest.raises(ValueError, match="Expecting value"):
        response(b"<html>").json()
    assert repr(response(b"12")).startswith("<Response 200 2 bytes, <CallRecord reviews:80")


@pytest.mark.parametrize(
    ("content", "body"),
    [
        (None, b""),
        ("gr\u00fcn", b"gr\xc3\xbcn"),
        (bytearray(b"abc"), b"abc"),
        (memoryview(b"abc"), b"abc"),
    ],
)
def test_whatever_is_a_body_as_a_whole_can_be_sent_again(content: Any, body: bytes) -> None:
    request = build_request("POST", "http://reviews/", None, content, None, None)
    assert (request.body, request.length, request.replayable) == (body, len(body), True)


@pytest.mark.parametrize("content", [3, 0.5, object(), {"a": "b"}])
def test_what_is_no_body_is_refused(content: Any) -> None:
    with pytest.raises(RequestError, match="content must be bytes, str or an iterable of bytes, not "):
        build_request("POST", "http://reviews/", None, content, None, None)


@pytest.mark.parametrize("timeout", ["1", float("nan"), (1, 2)])
def test_what_is_no_time_is_refused(timeout: Any) -> None:
    with pytest.raises(RequestError, match="timeout must be seconds"):
        build_request("GET", "http://reviews/", None, None, timeout, None)


@pytest.mark.parametrize("timeout", [float("inf"), Timeouts(total=float("inf"))])
def test_all_the_time_there_is_is_no_limit(timeout: Any) -> None:
    with static_mesh(service("reviews", [])) as mesh, pytest.raises(NoHealthyUpstream):
        mesh.request("GET", "http://reviews/", timeout=timeout)
    with static_mesh(service("reviews", ["127.0.0.1:1"])) as mesh, pytest.raises(ConnectFailed):
        mesh.request("GET", "http://reviews/", timeout=timeout)
