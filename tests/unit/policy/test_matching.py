"""Header, query and path matching, held against what Envoy 1.40 was seen to do."""

from __future__ import annotations

import random

import pytest

from meshlib.model.call import Call
from meshlib.model.route import HeaderMatch, PathMatch, QueryMatch, StringMatch
from meshlib.policy.matching import compile_header, compile_query, compile_string, is_grpc, values_of
from meshlib.policy.routing import compile_path


def call(path: str = "/", *headers: tuple[str, str], method: str = "GET") -> Call:
    return Call(method, "reviews:80", path, [(name.encode(), value.encode("latin-1")) for name, value in headers])


EXACT_ABC = StringMatch("exact", "abc")


@pytest.mark.parametrize(
    ("headers", "match", "expected"),
    [
        # Each value of a repeated header is tested by itself, never the joined string.
        ([("x-t", "x"), ("x-t", "abc")], HeaderMatch("x-t", EXACT_ABC), True),
        ([("x-t", "x"), ("x-t", "abc")], HeaderMatch("x-t", StringMatch("exact", "x,abc")), False),
        ([("x-t", "x"), ("x-t", "abc")], HeaderMatch("x-t", StringMatch("regex", "x,abc")), False),
        ([("x-t", "x"), ("x-t", "abc")], HeaderMatch("x-t", EXACT_ABC, invert=True), False),
        ([("x-t", "x")], HeaderMatch("x-t", EXACT_ABC, invert=True), True),
        # A missing header is no match, even inverted, unless it counts as empty.
        ([], HeaderMatch("x-t", EXACT_ABC), False),
        ([], HeaderMatch("x-t", EXACT_ABC, invert=True), False),
        ([], HeaderMatch("x-t", EXACT_ABC, invert=True, treat_missing_as_empty=True), True),
        ([], HeaderMatch("x-t", StringMatch("regex", ".*"), treat_missing_as_empty=True), True),
        ([("X-T", "abc")], HeaderMatch("x-t", EXACT_ABC), True),
        # Presence.
        ([("x-t", "")], HeaderMatch("x-t", present=True), True),
        ([], HeaderMatch("x-t", present=True), False),
        ([], HeaderMatch("x-t", present=False), True),
        ([], HeaderMatch("x-t", present=True, invert=True), True),
        ([("x-t", "")], HeaderMatch("x-t"), True),
        # Kinds.
        ([("x-t", "abcd")], HeaderMatch("x-t", StringMatch("prefix", "abc")), True),
        ([("x-t", "zabc")], HeaderMatch("x-t", StringMatch("suffix", "abc")), True),
        ([("x-t", "zabcz")], HeaderMatch("x-t", StringMatch("contains", "abc")), True),
        ([("x-t", "zabcz")], HeaderMatch("x-t", StringMatch("regex", "abc")), False),
        ([("x-t", "ABC")], HeaderMatch("x-t", StringMatch("exact", "abc", ignore_case=True)), True),
        ([("x-t", "ABC")], HeaderMatch("x-t", EXACT_ABC), False),
        # Ranges are half open, of decimal numbers.
        ([("x-n", "+5")], HeaderMatch("x-n", range=(5, 6)), True),
        ([("x-n", "6")], HeaderMatch("x-n", range=(5, 6)), False),
        ([("x-n", "5x")], HeaderMatch("x-n", range=(5, 6)), False),
        ([("x-n", "5x")], HeaderMatch("x-n", range=(5, 6), invert=True), True),
    ],
)
def test_headers(headers: list[tuple[str, str]], match: HeaderMatch, expected: bool) -> None:
    assert compile_header(match)(call("/", *headers)) is expected


def test_headers_that_are_replaced_are_filed_anew() -> None:
    found = call("/", ("X-T", " a"), ("x-u", "1"), ("x-u", "2"))
    assert list(values_of(found, b"x-t")) == [b"a"]
    assert list(values_of(found, b"x-u")) == [b"1", b"2"]
    found.headers = [(b"x-t", b"b")]
    assert list(values_of(found, b"x-t")) == [b"b"]
    assert not values_of(found, b"x-u")


def test_a_regex_answers_alike_whether_it_remembers_or_not() -> None:
    test = compile_string(StringMatch("regex", "a+"))
    for value, expected in ((b"aa", True), (b"ab", False), (b"a" * 1000, True), (b"a" * 1000 + b"b", False)):
        assert [test(value), test(value)] == [expected, expected]


def test_a_regex_sees_bytes_that_are_not_utf8() -> None:
    """P23: an undecodable byte must not let a value slip past a rule."""
    test = compile_string(StringMatch("regex", ".*admin.*"))
    assert test(b"ad\xffmin-admin")
    assert not test(b"ad\xffmin")


def test_a_regex_is_linear() -> None:
    """P22: a pattern that makes a backtracking engine explode ends at once."""
    assert not compile_string(StringMatch("regex", "(a+)+$"))(b"a" * 32_000 + b"!")


def test_a_regex_that_is_not_re2_says_why() -> None:
    with pytest.raises(ValueError, match="perl"):
        compile_string(StringMatch("regex", "(?=a)b"))


@pytest.mark.parametrize(
    ("path", "match", "expected"),
    [
        ("/?k=v", QueryMatch("k", StringMatch("exact", "v")), True),
        ("/?k=a&k=v", QueryMatch("k", StringMatch("exact", "v")), False),  # the first occurrence only
        ("/?k", QueryMatch("k", StringMatch("exact", "")), True),
        ("/?k", QueryMatch("k"), True),
        ("/?K=v", QueryMatch("k"), False),
        ("/", QueryMatch("k"), False),
        ("/", QueryMatch("k", present=False), True),
        ("/?k=%41", QueryMatch("k", StringMatch("exact", "A")), False),  # nothing is decoded
        ("/?a=1;k=v", QueryMatch("k"), False),  # `;` does not separate
    ],
)
def test_query_parameters(path: str, match: QueryMatch, expected: bool) -> None:
    assert compile_query(match)(call(path)) is expected


@pytest.mark.parametrize(
    ("match", "matching", "other"),
    [
        (PathMatch("exact", "/exact"), ["/exact"], ["/exact/", "/Exact"]),
        (PathMatch("exact", "/exact", case_sensitive=False), ["/EXACT"], ["/exact/"]),
        (PathMatch("prefix", "/foo"), ["/foo", "/foobar", "/foo/"], ["/fo", "/FOO"]),
        (PathMatch("prefix", "/foo", case_sensitive=False), ["/FOObar"], ["/fo"]),
        (PathMatch("separated", "/sep"), ["/sep", "/sep/", "/sep/a"], ["/sepa"]),
        (PathMatch("regex", "/v[0-9]+"), ["/v1", "/v22"], ["/v", "/v1/x", "x/v1"]),
    ],
)
def test_paths(match: PathMatch, matching: list[str], other: list[str]) -> None:
    test = compile_path(match)
    assert test is not None
    assert all(map(test, matching))
    assert not any(map(test, other))


def test_the_root_prefix_needs_no_test() -> None:
    assert compile_path(PathMatch("prefix", "/")) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("application/grpc", True),
        ("application/grpc+proto", True),
        ("application/grpc;x", False),
        ("application/grpc-web", False),
        ("Application/grpc", False),
    ],
)
def test_grpc_is_told_by_the_content_type(value: str, expected: bool) -> None:
    assert is_grpc(call("/", ("content-type", value))) is expected


def test_pseudo_headers() -> None:
    assert compile_header(HeaderMatch(":method", StringMatch("exact", "POST")))(call(method="POST"))
    assert compile_header(HeaderMatch(":authority", StringMatch("prefix", "reviews")))(call())
    plain = Call("GET", "reviews:80", "/", (), host="Reviews")
    assert compile_header(HeaderMatch(":authority", StringMatch("exact", "Reviews")))(plain)
    assert not compile_header(HeaderMatch(":authority", StringMatch("exact", "reviews")))(plain)  # values are case-sensitive
    assert not compile_header(HeaderMatch(":authority", StringMatch("exact", "reviews:80")))(plain)
    assert compile_header(HeaderMatch(":path", StringMatch("exact", "/a?b")))(call("/a?b"))
    assert not compile_header(HeaderMatch(":scheme", StringMatch("exact", "https")))(call())


def test_random_is_what_policies_need() -> None:
    """The runtime hands in random.Random."""
    rng = random.Random(1)
    assert 0 <= rng.random() < 1
    assert rng.randrange(3) in (0, 1, 2)
