"""What generated rules and requests are made of: few enough words that requests hit the rules, and nearly hit them.

Everything draws from a `random.Random` that is handed in: a seed is a configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")
Document = dict[str, Any]

VERSIONS = ("v1", "v2", "v3")
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Words:
    """Values of one thing that can be matched.  `patterns`: regular expressions, each with values that match or nearly do."""

    values: Sequence[str]
    prefixes: Sequence[str]
    patterns: Mapping[str, Sequence[str]]

    def near(self, rng: Random) -> str:
        """Some value that a rule may ask for, or one letter beside it."""
        pool = (*self.values, *(each for examples in self.patterns.values() for each in examples))
        return _bent(rng, rng.choice(pool))


PATHS = Words(
    (
        "/",
        "/a",
        "/a/b",
        "/A/b",
        "/api/v1",
        "/api/v1/",
        "/a.b",
        "/a%20b",
        "/a;b=c",
        "/a%2Fb",
        "/~x",
        "/a/b/c.json",
        "/a//b",
        "/a%2fb",
    ),
    ("/", "/a", "/a/", "/api", "/api/v1/", "/A", "/a%2F", "/a//", "/%61", "/.a"),
    {
        "/a/.*": ("/a/", "/a/b", "/a/b/c?x=1", "/a", "/A/b"),
        "/(a|api)/[a-z0-9]+": ("/a/b7", "/api/v1", "/api/V1", "/a/"),
        "/[^/]+/b": ("/x/b", "/a%2Fb/b", "/b", "/x/y/b"),
        "(?i)/API/.*": ("/api/x", "/Api/", "/apis"),
        ".*b": ("/b", "/a/b", "/ab/", "/a/b?c=d"),
        r"/a\.b": ("/a.b", "/aXb"),
        r"/api/v[12](/.*)?": ("/api/v1", "/api/v2/x", "/api/v3", "/api/v1x"),
        "/a": ("/a", "/a/", "/aa"),
        "/": ("/", "/x"),
        ".*": ("/any/thing",),
    },
)
ODD_PATHS = (
    *(
        "//a",
        "/a/./b",
        "/a/../b",
        "/../a",
        "/a/%2e%2e/b",
        "/%61/b",
        "/a%2F..%2Fb",
        "/a\\b",
        "/a%5Cb",
        "/a%5cb",
        "/a/b/",
        "/a//b//",
    ),
    *("/a%zzb", "/%", "/a/b;v=1?x=/a", "/a?", "/?a/b", "/a??x=1", "/a/b?user=1&user=2", "/a%00b", "/a%0Ab", "/%C3%A4", "/a+b"),
    *("/a*b", "/a|b", '/a"b', "/a<b>", "/a{b}", "/a^b", "/a`b", "/a'b", "/a!b$&(),=:@", "/a/..", "/a/.", "/..."),
    *("/a/b%23frag", "/api/v1/../../a/b", "/a/;x/b", "/%2F", "/%2f/a", "/a%252Fb", "/" + "long/" * 200),
)
HEADERS: Mapping[str, Words] = {
    "end-user": Words(
        ("jason", "Jason", "jasmin", "a,b"),
        ("ja", "j"),
        {"ja.*": ("jason", "ja", "Jason"), "(jason|jasmin)": ("jasmin", "jasonx"), ".*": ("", "x"), "[^,]+": ("a,b",)},
    ),
    "x-version": Words(
        ("1", "2", "beta", ""),
        ("1", "be"),
        {r"\d+": ("1", "42", "4a"), r"v?[0-9]+(\.[0-9]+)*": ("v1.2", "1", "v"), "(?i)BETA": ("beta", "Beta", "gamma")},
    ),
    "cookie": Words(
        ("user=jason", "user=jason; id=7"),
        ("user=", "id"),
        {
            "^(.*?;)?(user=jason)(;.*)?$": ("user=jason", "id=7;user=jason;x=y", "id=7; user=jason"),
            ".*id=[0-9].*": ("id=7", "id=x"),
        },
    ),
    "user-agent": Words(("curl/8", "Mozilla/5.0 (X11)"), ("Mozilla", "curl"), {".*(Chrome|X11).*": ("Mozilla/5.0 (X11)",)}),
    "x-a": Words(("1", "ä", " ", "1, 2"), ("1",), {"[12](, ?[12])*": ("1", "1,2", "1, 2", "3")}),
}
QUERY: Mapping[str, Words] = {
    "user": Words(
        ("1", "jason", "", "a%20b", "a b"), ("ja", "a%20"), {r"\d+": ("1", "12", "1x"), "[a-z]+": ("jason", "J"), ".*": ("",)}
    ),
    "q": Words(("x", "x=y", "+"), ("x",), {"x.*": ("x=y", "x", "yx")}),
    "A": Words(("1",), ("1",), {"1": ("1", "11")}),
}
SCHEMES = Words(("http", "https"), ("http", "https"), {"https?": (), "HTTP": ()})


def chance(rng: Random, share: float) -> bool:
    return rng.random() < share


def some(rng: Random, items: Sequence[T], most: int) -> list[T]:
    """Up to `most` of them, at least one, in an order of their own."""
    return rng.sample(list(items), rng.randint(1, min(most, len(items))))


def string_match(rng: Random, words: Words) -> Document:
    kind = rng.choice(("exact", "exact", "prefix", "regex"))
    pool = {"exact": words.values, "prefix": words.prefixes, "regex": tuple(words.patterns)}[kind]
    return {kind: rng.choice(pool)}


def satisfying(rng: Random, condition: Document, words: Words) -> str:
    """A value that the condition asks for, more often than not."""
    if "exact" in condition:
        found = str(condition["exact"])
    elif "prefix" in condition:
        found = str(condition["prefix"]) + rng.choice(("", "x", "/b", "1"))
    elif "regex" in condition:
        found = rng.choice(words.patterns.get(str(condition["regex"])) or ("x",))
    else:
        found = words.near(rng)
    return _bent(rng, found) if chance(rng, 0.2) else found


def _bent(rng: Random, value: str) -> str:
    """Sometimes one letter more, fewer, or in the other case."""
    match rng.randrange(12):
        case 0:
            return value + rng.choice("x/1")
        case 1:
            return value[:-1] if len(value) > 1 else value
        case 2:
            return value.swapcase()
        case _:
            return value
