"""Compiled policies decide as their definition says, whatever is in policies and requests."""

from __future__ import annotations

import re

import hypothesis.strategies as st
from hypothesis import example, given, settings

from meshlib.model.authorization import (
    Action,
    Address,
    AllOf,
    Always,
    AnyOf,
    Authenticated,
    DestinationPort,
    Header,
    IpBlock,
    Matcher,
    MetadataMatch,
    Not,
    Rbac,
    RbacPolicy,
    RequestedServerName,
    UriTemplate,
    UrlPath,
    ValueMatch,
)
from meshlib.model.inbound import Connection, Inspection
from meshlib.model.route import HeaderMatch, StringMatch
from meshlib.policy.authorization import Engine
from meshlib.policy.authorization_globs import compile_glob, parse_globs
from tests.support.rbac import ALICE, BOB, PORT, claims, first_policy, inspect

PATHS = ["/", "/a", "/a/b", "/a/b/c", "/ab", "/A", "/a//b", "/a/*/c", "/b/a", "*"]
VALUES = ["a", "b", "ab", "A", "a,b", "", "ba"]
HOSTS = ["a.test", "b.test", "a.test:80", "A.test"]
PATTERNS = [".*", ".+", "a.*", ".*a", "a", "(a|b)", ".*a.*", "[ab]", "a?b", "(a|b)+", "/a/.*", ".*/b", "/[^/]*/b", "é."]
IDENTITIES = [ALICE.uri, BOB.uri, "spiffe://cluster.local/", "spiffe://"]
ID_PATTERNS = [".+", ".*/ns/foo/.*", r"spiffe://.+/ns/bar/(.+/|)sa/bob(/.+)?", "spiffe://clus[^/]*al/.*", "spiffe://.*alice"]
ADDRESSES = ["10.0.0.1", "10.9.9.9", "192.168.0.1", ""]
CIDRS = ["10.0.0.0/8", "10.0.0.1/32", "192.168.0.0/16", "0.0.0.0/0"]

PORT_MATCHERS = st.sampled_from([DestinationPort(PORT), DestinationPort(1)])


def strings(values: list[str], patterns: list[str] = PATTERNS) -> st.SearchStrategy[StringMatch]:
    simple = st.builds(
        StringMatch, st.sampled_from(["exact", "prefix", "suffix", "contains"]), st.sampled_from(values), st.booleans()
    ).filter(lambda match: bool(match.value) or match.kind == "exact")
    return simple | st.builds(StringMatch, st.just("regex"), st.sampled_from(patterns))


def header_matchers() -> st.SearchStrategy[HeaderMatch]:
    names = st.sampled_from(["x-a", "x-b"])
    with_string = st.builds(HeaderMatch, names, strings(VALUES), invert=st.booleans())
    present = st.builds(HeaderMatch, names, present=st.just(True), invert=st.booleans())
    hosts = st.builds(StringMatch, st.sampled_from(["exact", "prefix", "suffix"]), st.sampled_from(HOSTS), st.just(True))
    method = st.builds(StringMatch, st.just("exact"), st.sampled_from(["GET", "POST"]))
    return (
        with_string
        | present
        | st.builds(HeaderMatch, st.just(":authority"), hosts)
        | st.builds(HeaderMatch, st.just(":method"), method)
    )


def value_matchers() -> st.SearchStrategy[ValueMatch]:
    string = st.builds(ValueMatch, string=strings(VALUES))
    return st.recursive(
        string | st.just(ValueMatch(present=True)),
        lambda inner: (
            st.builds(lambda item: ValueMatch(one_of=item), inner)
            | st.builds(lambda items: ValueMatch(any_of=tuple(items)), st.lists(inner, min_size=2, max_size=3))
        ),
        max_leaves=4,
    )


LEAVES: st.SearchStrategy[Matcher] = st.one_of(
    st.just(Always()),
    st.builds(UrlPath, strings(PATHS)),
    st.builds(UriTemplate, st.sampled_from(["/a/*", "/*/b/**", "/**", "/a/**/c", "/a"])),
    st.builds(Header, header_matchers()),
    st.builds(Authenticated, st.none() | strings(IDENTITIES, ID_PATTERNS)),
    PORT_MATCHERS,
    st.builds(IpBlock, st.sampled_from([Address.DESTINATION, Address.DIRECT_REMOTE]), st.sampled_from(CIDRS)),
    st.builds(RequestedServerName, strings(VALUES)),
    st.builds(
        MetadataMatch,
        st.just("envoy.filters.http.jwt_authn"),
        st.sampled_from([("payload", "sub"), ("payload", "aud"), ("payload", "n", "m")]),
        value_matchers(),
    ),
)
TREES: st.SearchStrategy[Matcher] = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(lambda items: AllOf(tuple(items)), st.lists(inner, max_size=3))
        | st.builds(lambda items: AnyOf(tuple(items)), st.lists(inner, max_size=4))
    ),
    max_leaves=10,
)
POLICIES = st.lists(st.tuples(TREES, TREES), max_size=4) | st.lists(
    # Many that differ by path, header or claim: those are looked up.
    st.tuples(st.builds(UrlPath, strings(PATHS)) | st.builds(Header, header_matchers()) | TREES, st.just(Always()) | TREES),
    min_size=6,
    max_size=12,
)
HEADER_VALUES = st.sampled_from([*(value.encode() for value in VALUES), b"a\xff", "é1".encode(), b"a "])


@st.composite
def inspections(draw: st.DrawFn) -> Inspection:
    connection = Connection(
        tls=draw(st.booleans()),
        peer=draw(st.sampled_from([None, ALICE, BOB])),
        local_port=PORT,
        remote_address=draw(st.sampled_from(ADDRESSES)),
        local_address=draw(st.sampled_from(ADDRESSES)),
        server_name=draw(st.sampled_from(VALUES)),
    )
    texts = st.sampled_from([*VALUES, "a\nb", "\ud800"])
    subject = texts | st.lists(texts, max_size=3) | st.booleans()
    return inspect(
        draw(st.sampled_from(PATHS)) + draw(st.sampled_from(["", "?x=1"])),
        *draw(st.lists(st.tuples(st.sampled_from(["x-a", "x-b"]), HEADER_VALUES), max_size=4)),
        method=draw(st.sampled_from(["GET", "POST"])),
        authority=draw(st.sampled_from(["a.test", "b.test:80", "a.test:80"])),
        connection=connection,
        metadata=claims(sub=draw(subject), n={"m": draw(subject)}) if draw(st.booleans()) else {},
    )


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(Action), POLICIES, st.lists(inspections(), min_size=1, max_size=4))
def test_compiled_policies_decide_as_their_definition_says(
    action: Action, trees: list[tuple[Matcher, Matcher]], requests: list[Inspection]
) -> None:
    """Several requests to one engine: what it remembers of one must not show in another."""
    rbac = Rbac(action, tuple(RbacPolicy(f"p{number}", *tree) for number, tree in enumerate(trees)))
    engine = Engine(rbac, port=PORT)
    for inspection in [*requests, *requests]:
        assert engine.match(inspection) == first_policy(rbac, inspection)


# --- expressions that are globs

PIECES = st.sampled_from(["a", "b", "/", r"\.", r"\[", ".*", ".+", "[^/]*", "[^/]+", "(a|b)", "(.+/|)", "(/.+)?", "(a)?", "ab"])


@settings(max_examples=600, deadline=None)
@given(st.lists(PIECES, max_size=6).map("".join), st.lists(st.text(alphabet="ab/.[", max_size=8), min_size=5, max_size=5))
@example(r"spiffe://.+/ns/foo/(.+/|)sa/x\.y(/.+)?", ["spiffe://td/ns/foo/sa/x.y", "spiffe://td/ns/foo/sa/xzy", "", "a", "b"])
@example("a.*a", ["a", "aa", "aba", "", "b"])
@example(".*a[^/]*b", ["a/ab", "a/a/b", "ab", "b", "a"])
def test_a_glob_means_what_its_expression_does(pattern: str, values: list[str]) -> None:
    globs = parse_globs(pattern)
    if globs is None:
        return
    tests = [compile_glob(glob, lambda text: text) for glob in globs]
    as_bytes = [compile_glob(glob, str.encode) for glob in globs]
    for value in values:
        expected = re.fullmatch(pattern, value) is not None
        assert any(test(value) for test in tests) is expected, (globs, value)
        assert any(test(value.encode()) for test in as_bytes) is expected


def test_what_istio_writes_is_a_glob() -> None:
    for pattern in (
        ".+",
        ".*/ns/foo/.*",
        r".*/ns/foo\-.*/.*",
        r"spiffe://.*/sa/sleep",
        r"spiffe://.+/ns/foo/(.+/|)sa/cert\-manager\.io(/.+)?",
        "spiffe://bad[^/]*/.*",
    ):
        assert parse_globs(pattern) is not None, pattern


def test_what_is_more_than_a_glob_is_left_to_re2() -> None:
    for pattern in ("a+", "[ab]", r"\d", "a{2}", "^a", "(?i)a", "(a", "a)", ".*?", "(a)*", "a|b)", ".", "", "\\"):
        assert parse_globs(pattern) is None or pattern == "", pattern
