"""The hash that places a call, against vectors that were verified on Envoy 1.40."""

from __future__ import annotations

import random
import re

import pytest

from meshlib.model.call import Call
from meshlib.model.route import HashPolicy, Substitution
from meshlib.policy.hashing import Hasher, cookie_value, hasher_of
from tests.support.hosts import as_hash

H = as_hash()


def call(path: str = "/", *headers: tuple[str, str], host: str = "reviews") -> Call:
    return Call("GET", "reviews:80", path, [(name.encode(), value.encode()) for name, value in headers], host=host)


def hashed(policies: list[HashPolicy], of: Call, address: str = "") -> int | None:
    return Hasher(policies, address)(of, random.Random(1)).value


def header(name: str, *, terminal: bool = False, rewrite: Substitution | None = None) -> HashPolicy:
    return HashPolicy("header", name, terminal=terminal, rewrite=rewrite)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", 17241709254077376921),
        ("a", 15154266338359012955),
        ("user-0", 8942776895475828064),
        ("user-1", 11633770265628666856),
        ("user-2", 8328806736226637289),
        ("user-3", 12566532025316769246),
        ("user-4", 3614034704237850984),
        ("hello world", 5020219685658847592),
        ("127.0.0.1:21001_0", 14844687884669271813),
    ],
)
def test_the_hash_function(text: str, value: int) -> None:
    assert hashed([header("x-key")], call("/", ("x-key", text))) == value == H(text)


def test_the_hash_function_takes_a_seed() -> None:
    from xxhash import xxh64_intdigest

    assert xxh64_intdigest(b"127.0.0.1:21001", 1) == 1072226520161090901


@pytest.mark.parametrize(
    ("names", "value"),
    [("a", 0xD24EC4F1A98C6E5B), ("ab", 0xDCD8A34249EB432C), ("aa", 0x76D34D12FA94B2EC), ("abc", 0x1A6B97C057D0D1B4)],
)
def test_several_policies_are_combined_in_order(names: str, value: int) -> None:
    of = call("/", *((f"x-{name}", name) for name in "abc"))
    assert hashed([header(f"x-{name}") for name in names], of) == value


@pytest.mark.parametrize("values", ["ab", "ba"])
def test_a_repeated_header_is_hashed_in_sorted_order(values: str) -> None:
    assert hashed([header("x-key")], call("/", *(("X-Key", value) for value in values))) == 8564053812407216358


def test_what_is_absent_has_no_hash() -> None:
    policies = [header("x-key"), HashPolicy("query", "q"), HashPolicy("cookie", "c"), HashPolicy("source_ip")]
    for policy in policies:
        assert hashed([policy], call()) is None
    assert hashed([header("x-key")], call("/", ("x-key", ""))) == H("")
    assert hashed([*policies, header("x-other")], call("/", ("x-other", "a"))) == H("a")


def test_terminal_ends_it_once_there_is_any_hash() -> None:
    both = call("/", ("x-a", "a"), ("x-b", "b"))
    assert hashed([header("x-a", terminal=True), header("x-b")], both) == H("a")
    assert hashed([header("x-a"), header("x-none", terminal=True), header("x-b")], both) == H("a")
    assert hashed([header("x-none", terminal=True), header("x-b")], both) == H("b")


@pytest.mark.parametrize(
    ("path", "text"),
    [("/?q=a", "a"), ("/?q=%41", "%41"), ("/?p=1&q=b&q=c", "b"), ("/?q=", ""), ("/?q", "")],
)
def test_query_parameters_are_hashed_as_they_stand(path: str, text: str) -> None:
    assert hashed([HashPolicy("query", "q")], call(path)) == H(text)


def test_pseudo_headers() -> None:
    of = call("/p?q=1", host="Reviews")
    assert hashed([header(":path")], of) == H("/p?q=1")
    assert hashed([header(":authority")], of) == H("Reviews")
    assert hashed([header(":method")], of) == H("GET")


def test_a_header_may_be_rewritten_first() -> None:
    rewrite = Substitution(r"^([^.]*)\..*$", r"\1")
    assert hashed([header("x-key", rewrite=rewrite)], call("/", ("x-key", "alice.example"))) == H("alice")


def test_the_source_is_this_process() -> None:
    assert hashed([HashPolicy("source_ip")], call(), "10.1.2.3") == H("10.1.2.3")


def test_a_cookie() -> None:
    policy = HashPolicy("cookie", "sess", ttl=60.0)
    result = Hasher([policy])(call("/", ("cookie", "other=1; sess=abc")), random.Random(1))
    assert result == (H("abc"), ())


@pytest.mark.parametrize(
    ("policy", "form"),
    [
        (HashPolicy("cookie", "sess", ttl=60.0, path="/p"), rb'sess="([0-9a-f]{16})"; Max-Age=60; Path=/p; HttpOnly'),
        (HashPolicy("cookie", "sess", ttl=0.0), rb'sess="([0-9a-f]{16})"; HttpOnly'),
        (
            HashPolicy("cookie", "sess", ttl=0.0, attributes=(("SameSite", "Lax"), ("Secure", ""))),
            rb'sess="([0-9a-f]{16})"; SameSite=Lax; Secure; HttpOnly',
        ),
    ],
)
def test_a_missing_cookie_is_made(policy: HashPolicy, form: bytes) -> None:
    found = Hasher([policy])(call(), random.Random(1))
    match = re.fullmatch(form, found.cookies[0])
    assert match is not None
    assert found.value == H(match[1].decode())
    again = Hasher([policy])(call("/", ("cookie", f"sess={match[1].decode()}")), random.Random(2))
    assert again == (found.value, ())  # the next call goes to the same place


def test_each_session_has_a_place_of_its_own() -> None:
    hasher, rng = Hasher([HashPolicy("cookie", "sess", ttl=0.0)]), random.Random(1)
    assert len({hasher(call(), rng).value for _ in range(20)}) == 20


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ([b"sess=a"], b"a"),
        ([b'x=1;  sess="a b"'], b"a b"),
        ([b"sess=first; sess=second"], b"first"),
        ([b"x=1", b"sess=late"], b"late"),
        ([b"sess"], b""),
        ([b"session=x"], b""),
        ([b"sess=a=b"], b"a=b"),
    ],
)
def test_cookies_are_read_as_they_are_written(headers: list[bytes], value: bytes) -> None:
    assert cookie_value(headers, b"sess") == value


def test_a_route_without_policies_has_no_hasher() -> None:
    assert hasher_of(()) is None
