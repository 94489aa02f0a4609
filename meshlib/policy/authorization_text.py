"""String matchers of policies, compiled: many at once, over text or over the bytes of a header.

A regular expression is RE2 over UTF-8, as in Envoy.  RE2's dot sees neither a line feed nor what is not UTF-8, so such a value
slips past a rule that everybody reads as "anything" (CVE-2026-73552).  Which way it goes there is the caller's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, AnyStr, Generic

from meshlib.model.route import StringMatch
from meshlib.policy.authorization_globs import compile_glob, parse_globs

_ASCII_LOWER = {ord(letter): ord(letter.lower()) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


@dataclass(frozen=True, slots=True)
class Script(Generic[AnyStr]):
    """What a value is written in.  `legible`: a regular expression sees all of it."""

    encode: Callable[[str], AnyStr]
    lower: Callable[[AnyStr], AnyStr]  # ASCII letters only
    legible: Callable[[AnyStr], bool]
    to_bytes: Callable[[AnyStr], bytes]


def _legible_text(value: str) -> bool:
    return "\n" not in value and (value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value))


def _legible_bytes(value: bytes) -> bool:
    if b"\n" in value:
        return False
    if value.isascii():
        return True
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


TEXT: Script[str] = Script(
    lambda text: text,
    lambda value: value.lower() if value.isascii() else value.translate(_ASCII_LOWER),
    _legible_text,
    str.encode,
)
BYTES: Script[bytes] = Script(str.encode, bytes.lower, _legible_bytes, lambda value: value)


def compile_texts(matches: Iterable[StringMatch], script: Script[AnyStr], *, unknown: bool) -> Callable[[AnyStr], bool]:
    """True for a value that any of `matches` takes.  `unknown`: the answer where a regular expression cannot see the value.

    Raises ValueError for what is no RE2 expression.
    """
    exact: set[AnyStr] = set()
    prefixes: list[AnyStr] = []
    suffixes: list[AnyStr] = []
    others: list[Callable[[AnyStr], bool]] = []
    for match in matches:
        wanted = script.encode(match.value)
        if match.kind == "regex":
            others.append(_compile_regex(match.value, script, unknown=unknown))
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
    lower, plain = script.lower, compile_texts([lowered], script, unknown=False)
    return lambda value: plain(lower(value))


def _compile_regex(pattern: str, script: Script[AnyStr], *, unknown: bool) -> Callable[[AnyStr], bool]:
    legible = script.legible
    globs = parse_globs(pattern)
    if globs is not None:
        test = _any_of([compile_glob(glob, script.encode) for glob in globs])
    else:
        fullmatch, to_bytes = _compile_re2(pattern), script.to_bytes

        def test(value: AnyStr) -> bool:
            return fullmatch(to_bytes(value)) is not None

    return lambda value: test(value) if legible(value) else unknown


def _compile_re2(pattern: str) -> Callable[[bytes], object]:
    import re2  # costs 10 ms: only for those who have such an expression

    options = re2.Options()
    options.log_errors = False
    try:
        fullmatch: Callable[[bytes], object] = re2.compile(pattern.encode("utf-8"), options).fullmatch
    except re2.error as error:
        message: Any = error.args[0]
        raise ValueError(message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)) from None
    return fullmatch
