"""String matchers of policies, compiled: many at once, over text or over the bytes of a header.

Envoy 1.40's regular expressions are RE2 over bytes (Latin-1), others' over UTF-8, and in both the dot sees no line feed.  So a
value that is not ASCII has two readings, and one with a line feed slips past what everybody reads as "anything"
(CVE-2026-73552).  A matcher that restricts takes what it matches in either reading, one that grants only what it does in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import AnyStr, Generic

from meshlib.model.route import StringMatch
from meshlib.policy.authorization_globs import compile_glob, parse_globs
from meshlib.policy.matching import compile_regex

_ASCII_LOWER = {ord(letter): ord(letter.lower()) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


@dataclass(frozen=True, slots=True)
class Script(Generic[AnyStr]):
    """What a value is written in.  `plain`: ASCII without a line feed, which reads the same in every way."""

    encode: Callable[[str], AnyStr]
    lower: Callable[[AnyStr], AnyStr]  # ASCII letters only
    plain: Callable[[AnyStr], bool]
    to_bytes: Callable[[AnyStr], bytes]


TEXT: Script[str] = Script(
    lambda text: text,
    lambda value: value.lower() if value.isascii() else value.translate(_ASCII_LOWER),
    lambda value: value.isascii() and "\n" not in value,
    lambda value: value.encode("utf-8", "surrogatepass"),
)
BYTES: Script[bytes] = Script(
    str.encode,
    bytes.lower,
    lambda value: value.isascii() and b"\n" not in value,
    lambda value: value,
)


def compile_texts(matches: Iterable[StringMatch], script: Script[AnyStr], *, restricts: bool) -> Callable[[AnyStr], bool]:
    """True for a value that any of `matches` takes.

    Raises ValueError for what is no RE2 expression.
    """
    exact: set[AnyStr] = set()
    prefixes: list[AnyStr] = []
    suffixes: list[AnyStr] = []
    others: list[Callable[[AnyStr], bool]] = []
    for match in matches:
        wanted = script.encode(match.value)
        if match.kind == "regex":
            others.append(_compile_regex(match.value, script, restricts=restricts))
        elif match.ignore_case:
            others.append(_ignoring_case(match, script))
        elif match.kind == "exact":
            exact.add(wanted)
        elif match.kind == "prefix":
            prefixes.append(wanted)
        elif match.kind == "suffix":
            suffixes.append(wanted)
        else:
            others.append(_containing(wanted))
    if suffixes:
        others.insert(0, _ending(tuple(suffixes)))
    if prefixes:
        others.insert(0, _starting(tuple(prefixes)))
    if exact:
        others.insert(0, frozenset(exact).__contains__)
    return _any_of(others)


def _any_of(tests: list[Callable[[AnyStr], bool]]) -> Callable[[AnyStr], bool]:
    if len(tests) == 1:
        return tests[0]
    return lambda value: any(test(value) for test in tests)


def _starting(wanted: tuple[AnyStr, ...]) -> Callable[[AnyStr], bool]:
    return lambda value: value.startswith(wanted)


def _ending(wanted: tuple[AnyStr, ...]) -> Callable[[AnyStr], bool]:
    return lambda value: value.endswith(wanted)


def _containing(wanted: AnyStr) -> Callable[[AnyStr], bool]:
    return lambda value: wanted in value


def _ignoring_case(match: StringMatch, script: Script[AnyStr]) -> Callable[[AnyStr], bool]:
    lowered = StringMatch(match.kind, match.value.translate(_ASCII_LOWER))
    lower, plain = script.lower, compile_texts([lowered], script, restricts=False)
    return lambda value: plain(lower(value))


def _compile_regex(pattern: str, script: Script[AnyStr], *, restricts: bool) -> Callable[[AnyStr], bool]:
    globs = parse_globs(pattern)
    if globs is not None:
        in_plain = _any_of([compile_glob(glob, script.encode) for glob in globs])
        in_latin = in_utf8 = _any_of([compile_glob(glob, str.encode) for glob in globs])
    else:
        in_latin, in_utf8 = compile_regex(pattern), compile_regex(pattern, latin=False)
        to_bytes = script.to_bytes

        def in_plain(value: AnyStr) -> bool:
            return in_latin(to_bytes(value))

    doubtful = _in_both_readings(in_latin, in_utf8, restricts=restricts)
    plain, encode = script.plain, script.to_bytes
    return lambda value: in_plain(value) if plain(value) else doubtful(encode(value))


def _in_both_readings(
    in_latin: Callable[[bytes], bool], in_utf8: Callable[[bytes], bool], *, restricts: bool
) -> Callable[[bytes], bool]:
    def test(value: bytes) -> bool:
        if b"\n" in value:
            return restricts
        if in_latin(value) is restricts:
            return restricts
        try:
            value.decode("utf-8")
        except UnicodeDecodeError:
            return False
        return in_utf8(value)

    return test
