"""Path normalization in Istio's four modes: its own vectors, the rules of Envoy's reference, and what holds for any path."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.listener import PathNormalization
from meshlib.policy.paths import canonical_target, canonical_text, has_dot_parameters, has_dot_segment, is_plain, readings_of

NONE, BASE = PathNormalization.NONE, PathNormalization.BASE
MERGE, DECODE = PathNormalization.MERGE_SLASHES, PathNormalization.DECODE_AND_MERGE_SLASHES

CORPUS = Path(__file__).resolve().parents[4] / "shared/corpora/path-normalization.json"

PIECES = [
    *(b"/", b"/", b"/", b"//", b"\\", b".", b"..", b"...", b"%2e", b"%2E%2e", b"%2f", b"%2F", b"%5c", b";", b"..;x=1", b".;"),
    *(b"%41", b"%7e", b"%25", b"%252e", b"%3b", b"%20", b"%c3%a9", b"%c0%ae", b"%00", b"%", b"%4", b"|", b'"', b"{", b"a"),
]  # fmt: skip
crafted = st.lists(st.sampled_from(PIECES), max_size=10).map(lambda pieces: b"/" + b"".join(pieces))
modes = st.sampled_from(PathNormalization)


@pytest.mark.skipif(not CORPUS.exists(), reason="the corpora are not here")
def test_vectors_of_istio() -> None:
    for case in json.loads(CORPUS.read_text()):
        found = canonical_target(case["in"].encode(), PathNormalization[case["mode"]])
        assert found == case["out"].encode(), case


@pytest.mark.parametrize(
    ("path", "none", "base", "merged", "decoded"),
    [
        ("/", "/", "/", "/", "/"),
        ("/a//b", "/a//b", "/a//b", "/a/b", "/a/b"),
        ("/a%2Fb", "/a%2Fb", "/a%2Fb", "/a%2Fb", "/a/b"),
        ("/a/../b", "/a/../b", "/b", "/b", "/b"),
        ("/a\\b", "/a\\b", "/a/b", "/a/b", "/a/b"),
        ("/%2F", "/%2F", "/%2F", "/%2F", "//"),
        ("/a%2F..%2Fb", "/a%2F..%2Fb", "/a%2F..%2Fb", "/a%2F..%2Fb", "/b"),
        ("/a%5c..%5Cb", "/a%5c..%5Cb", "/a%5c..%5Cb", "/a%5c..%5Cb", "/b"),
        # P01, P02: dot segments, however their dots are written.
        ("/a/..", "/a/..", "/", "/", "/"),
        ("/a/.", "/a/.", "/a/", "/a/", "/a/"),
        ("/../../a", "/../../a", "/a", "/a", "/a"),
        ("/a/%2e%2E/b", "/a/%2e%2E/b", "/b", "/b", "/b"),
        ("/a/.%2e", "/a/.%2e", "/", "/", "/"),
        ("/a/...", "/a/...", "/a/...", "/a/...", "/a/..."),
        ("/a%2e%2e/b", "/a%2e%2e/b", "/a../b", "/a../b", "/a../b"),
        ("/a//../b", "/a//../b", "/a/b", "/a/b", "/a/b"),
        # P04: "//" alone stays, as in Envoy.
        ("//", "//", "//", "//", "//"),
        ("///", "///", "///", "//", "//"),
        ("//a", "//a", "//a", "/a", "/a"),
        # P06: what is encoded twice is decoded never.
        ("/a%252Fb", "/a%252Fb", "/a%252Fb", "/a%252Fb", "/a%252Fb"),
        ("/%252e%252e/a", "/%252e%252e/a", "/%252e%252e/a", "/%252e%252e/a", "/%252e%252e/a"),
        ("/%%32%65/a", "/%%32%65/a", "/%252e/a", "/%252e/a", "/%252e/a"),
        ("/%zz%", "/%zz%", "/%zz%", "/%zz%", "/%zz%"),
        ("/abc%/../%41", "/abc%/../%41", "/A", "/A", "/A"),
        ("/%%/../=/f%32", "/%%/../=/f%32", "/=/f2", "/=/f2", "/=/f2"),
        # P07: as Istio's proxies do with fragments; `check_target` refuses them before.
        ("/a#b", "/a", "/a", "/a", "/a"),
        ("/a%23b", "/a%23b", "/a%23b", "/a%23b", "/a%23b"),
        # P08, and the query is never touched.
        ("/a?", "/a?", "/a?", "/a?", "/a?"),
        ("/a?b//../c%2F%41", *["/a?b//../c%2F%41"] * 4),
        # P09: parameters of dot segments, in one pass and only where the dots are dots.
        ("/a/..;x/b", "/a/..;x/b", "/b", "/b", "/b"),
        ("/a/.;/b", "/a/.;/b", "/a/b", "/a/b", "/a/b"),
        ("/a/%2e%2e;/b", "/a/%2e%2e;/b", "/a/..;/b", "/a/..;/b", "/a/..;/b"),
        # P10: other parameters are part of their segment.
        ("/a;x=y/b;c", *["/a;x=y/b;c"] * 4),
        # P16: overlong UTF-8 is no dot.
        ("/%c0%ae%c0%ae/a", *["/%c0%ae%c0%ae/a"] * 4),
        ("/%41%2D%7e%5f%30", "/%41%2D%7e%5f%30", "/A-~_0", "/A-~_0", "/A-~_0"),
        ('/"<>^`{|}', '/"<>^`{|}', *["/%22%3C%3E%5E%60%7B%7C%7D"] * 3),
        ("/!$&'()*+,:=@[]%21%3d", *["/!$&'()*+,:=@[]%21%3d"] * 4),
    ],
)
def test_modes(path: str, none: str, base: str, merged: str, decoded: str) -> None:
    found = [canonical_text(path, mode) for mode in (NONE, BASE, MERGE, DECODE)]
    assert found == [none, base, merged, decoded]


@pytest.mark.parametrize("path", [b"", b"a", b"?", b"*", b"\\a", b"/a b", b"/\x00", b"/\xc3\xa9", b"/\x7f", b"/a?\x01"])
def test_what_is_refused_in_every_mode(path: bytes) -> None:
    assert [canonical_target(path, mode) for mode in PathNormalization] == [None] * 4


def test_an_encoded_nul_is_refused_where_anything_is_normalized() -> None:
    """P16."""
    assert canonical_target(b"/a%00", NONE) == b"/a%00"
    assert [canonical_target(b"/a%00", mode) for mode in (BASE, MERGE, DECODE)] == [None] * 3
    assert canonical_target(b"/a?%00", BASE) == b"/a?%00"


def test_clients_may_ask_for_no_path_at_all() -> None:
    assert canonical_text("*", BASE) == "*"


@pytest.mark.parametrize("byte", range(256))
def test_every_escape_is_decoded_or_kept(byte: int) -> None:
    """One vector for each byte, in both cases of the digits: only what means the same without an escape loses it."""
    unreserved = b"-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    for written in (b"/a%%%02xb" % byte, b"/a%%%02Xb" % byte):
        kept = b"/a%cb" % byte if byte in unreserved else None if byte == 0 else written
        assert canonical_target(written, BASE) == kept
        assert canonical_target(written, MERGE) == kept
        assert canonical_target(written, DECODE) == (b"/a/b" if byte in b"/\\" else kept)
        assert canonical_target(written, NONE) == written


@given(st.binary(max_size=40), modes)
def test_no_bytes_are_an_error(path: bytes, mode: PathNormalization) -> None:
    for target in (path, b"/" + path):
        found = canonical_target(target, mode)
        assert found is None or found.startswith(b"/")
        if found is not None:
            readings_of(found.partition(b"?")[0], target)


@given(st.text(max_size=40), modes)
def test_no_text_is_an_error(path: str, mode: PathNormalization) -> None:
    canonical_text("/" + path, mode)


@given(crafted, modes)
def test_what_is_plain_is_canonical(path: bytes, mode: PathNormalization) -> None:
    if is_plain(path):
        assert canonical_target(path, mode) == path
        assert readings_of(path, path) is None


@given(crafted, modes)
def test_a_canonical_path_is_its_own_canonical_path(path: bytes, mode: PathNormalization) -> None:
    """But for one pass over parameters: ``%2e%2e;`` leaves ``..;``, which is why it is refused."""
    found = canonical_target(path, mode)
    if found is not None and not has_dot_parameters(found) and found != b"//":
        assert canonical_target(found, mode) == found


@given(crafted, st.sampled_from([BASE, MERGE, DECODE]))
def test_no_dot_segment_is_left(path: bytes, mode: PathNormalization) -> None:
    found = canonical_target(path, mode)
    if found is not None:
        assert not {b".", b".."} & set(found.partition(b"?")[0].split(b"/"))


FLAT = [b"%", b"%%", b"%2", b"%4", b"%25", b"%32", b"%65", b"%31", b"%41", b"%2e", b"%c0", b"a", b"2", b"e", b"E", b"1", b"-"]


@given(st.lists(st.sampled_from(FLAT), max_size=12).map(b"".join), modes)
def test_P06_nothing_is_ever_decoded_twice(name: bytes, mode: PathNormalization) -> None:
    """What decodes the canonical form once sees what it would have seen in the path as it came."""
    found = canonical_target(b"/-" + name, mode)
    assert found is not None
    assert unquote_to_bytes(found) == unquote_to_bytes(b"/-" + name)


@given(crafted)
def test_readings_are_what_a_decoding_reader_sees(path: bytes) -> None:
    found = canonical_target(path, BASE)
    if found is None:
        return
    found = found.partition(b"?")[0]
    readings = readings_of(found, found)
    if readings is None:
        assert unquote_to_bytes(found) == found
        assert b"//" not in found
    else:
        assert all("//" not in other and "\\" not in other for other in readings.paths)
        assert found.decode() not in readings.paths


@pytest.mark.parametrize(
    ("path", "paths", "decoded"),
    [
        (b"/admin%2Fkeys", ("/admin/keys",), "/admin/keys"),
        (b"/x%5c..%5cadmin", ("/admin",), "/admin"),
        (b"//admin", ("/admin",), "/admin"),
        (b"/admin//", ("/admin", "/admin/"), "/admin/"),
        (b"/a%20b", (), "/a b"),
        (b"/v1/items%3Adelete", (), "/v1/items:delete"),
        (b"/caf%C3%A9", (), "/caf\xc3\xa9"),
        (b"/%252F", (), "/%2F"),
        (b"/a/../b", ("/b",), "/b"),  # without normalization
        (b"/%61", ("/a",), "/a"),
    ],
)
def test_readings(path: bytes, paths: tuple[str, ...], decoded: str) -> None:
    readings = readings_of(path, path)
    assert readings is not None
    assert (readings.paths, readings.decoded) == (paths, decoded)


def test_slashes_at_the_end_are_remembered_when_they_are_merged() -> None:
    """P04: ``/admin//`` came, ``/admin/`` is its canonical form, and ``/admin`` is what it may be meant to be."""
    readings = readings_of(b"/admin/", b"/admin//")
    assert readings is not None
    assert readings.paths == ("/admin",)
    assert readings_of(b"/admin/", b"/admin/") is None


@pytest.mark.parametrize("path", [b"/", b"/a/b", b"/a/", b"/.well-known/x", b"/a;b=c/d", b"/a.b"])
def test_one_reading_is_enough(path: bytes) -> None:
    assert readings_of(path, path) is None


@pytest.mark.parametrize("path", [b"/a%2f..", b"/a%2F../b", b"/a%5C%2e%2E%2fb", b"/a\\..", b"/./a", b"/a%2f."])
def test_dot_segments_are_seen_behind_escapes(path: bytes) -> None:
    assert has_dot_segment(path)


@pytest.mark.parametrize("path", [b"/a%2fb", b"/a..", b"/..a", b"/...", b"/a%2f...", b"/%252e%252e/"])
def test_other_dots_are_none(path: bytes) -> None:
    assert not has_dot_segment(path)
    assert not has_dot_parameters(path)


@pytest.mark.parametrize("path", [b"/..;/a", b"/a/.;b", b"/a%2f..;/b", b"/%2e%2e;x", b"/..%3Bx", b"/.%2e%3b"])
def test_P09_dot_segments_with_parameters(path: bytes) -> None:
    assert has_dot_parameters(path)
