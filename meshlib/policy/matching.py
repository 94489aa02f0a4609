"""Matchers compiled to predicates, as Envoy 1.40 evaluates them.

Header values are bytes on the wire and are matched as bytes: an undecodable value must not slip past a rule.  Regexes are RE2
and match the whole value; RE2 is linear in its input, so no request can make a pattern slow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from meshlib.model.call import Call, Headers
from meshlib.model.route import HeaderMatch, QueryMatch, StringMatch

BytesTest = Callable[[bytes], bool]
CallTest = Callable[[Call], bool]

_REMEMBERED, _LONGEST = 64, 128
"""So many values, and no longer ones, each regex of a header or a parameter remembers: most calls have one of a few."""


def compile_regex(pattern: str, *, latin: bool = True) -> Callable[[bytes], bool]:
    """A full match over bytes.  Raises ValueError with RE2's own words when the pattern is not RE2 syntax.

    `latin`: a byte is a character (Envoy), so that nothing is undecodable; else the value is UTF-8, and no match if it is not.
    """
    import re2  # costs 10 ms: only for those who have a regex

    options = re2.Options()
    options.log_errors = False
    options.encoding = re2.Options.Encoding.LATIN1 if latin else re2.Options.Encoding.UTF8
    try:
        fullmatch = re2.compile(pattern.encode("utf-8"), options).fullmatch
    except re2.error as error:
        message: Any = error.args[0]
        raise ValueError(message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)) from None
    return lambda value: fullmatch(value) is not None


def compile_string(match: StringMatch) -> BytesTest:
    """Envoy ``StringMatcher``; `ignore_case` is ASCII only, and not for regexes."""
    if match.kind == "regex":
        return _remembering(compile_regex(match.value))
    wanted = match.value.encode("utf-8")
    if match.ignore_case:
        plain = compile_string(StringMatch(match.kind, match.value.lower()))
        return lambda value: plain(value.lower())
    if match.kind == "exact":
        return wanted.__eq__
    if match.kind == "prefix":
        return lambda value: value.startswith(wanted)
    if match.kind == "suffix":
        return lambda value: value.endswith(wanted)
    return lambda value: wanted in value


def _remembering(test: BytesTest) -> BytesTest:
    """The same with its latest answers at hand: RE2 costs microseconds to ask."""
    remembered = lru_cache(_REMEMBERED)(test)
    return lambda value: remembered(value) if len(value) <= _LONGEST else test(value)


def header_values(headers: Headers, name: bytes) -> list[bytes]:
    """All values of `name` (given in lower case), in wire order and as on the wire: without white space around them."""
    return [value.strip(b" \t") for key, value in headers if key == name or key.lower() == name]


def values_of(call: Call, name: bytes) -> Sequence[bytes]:
    """The same of a call, whose headers are filed by name the first time that somebody asks."""
    headers, filed = call.headers, call.filed
    if filed is None or filed[0] is not headers:
        call.filed = filed = headers, {key.lower(): value for key, value in headers}
    value = filed[1].get(name)
    if value is None:
        return ()
    return (value.strip(b" \t"),) if len(filed[1]) == len(headers) else header_values(headers, name)


def _pseudo(name: str) -> Callable[[Call], Sequence[bytes]] | None:
    if name == ":method":
        return lambda call: [call.method.encode("ascii")]
    if name == ":path":
        return lambda call: [call.path.encode("latin-1", "replace")]
    if name == ":scheme":
        return lambda call: [b"http"]
    if name in (":authority", "host"):
        # As on the wire: which host it is has been decided without regard to case, but Istio's `authority` looks at it.
        return lambda call: [call.host.encode("latin-1", "replace")]
    return None


def compile_header(match: HeaderMatch) -> CallTest:
    """Envoy ``HeaderMatcher``: each value of a repeated header is tested by itself, any one satisfies; an inverted match on a
    missing header is no match, unless it is a presence test or the missing header counts as empty.
    """
    name = match.name.lower().encode("ascii")
    values = _pseudo(match.name.lower()) or (lambda call: values_of(call, name))
    invert = match.invert

    if match.present is not None:
        wanted = match.present != invert
        return lambda call: bool(values(call)) is wanted

    if match.range is not None:
        test = _range_test(*match.range)
    elif match.match is not None:
        test = compile_string(match.match)
    else:
        return lambda call: bool(values(call)) is not invert

    missing = (b"",) if match.treat_missing_as_empty else ()

    def matches(call: Call) -> bool:
        found = values(call) or missing
        if len(found) == 1:
            return test(found[0]) is not invert
        return bool(found) and any(map(test, found)) is not invert

    return matches


def _range_test(start: int, end: int) -> BytesTest:
    def test(value: bytes) -> bool:
        try:
            return start <= int(value) < end
        except ValueError:
            return False

    return test


def query_value(path: str, name: str) -> str | None:
    """The first value of a key: split on ``&`` only, nothing decoded, ``?k`` is ``?k=``; None when absent."""
    _, mark, query = path.partition("?")
    if not mark:
        return None
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if key == name:
            return value
    return None


def compile_query(match: QueryMatch) -> CallTest:
    """Envoy ``QueryParameterMatcher``."""
    name = match.name
    if match.match is None:
        return lambda call: (query_value(call.path, name) is not None) is match.present
    test = compile_string(match.match)

    def matches(call: Call) -> bool:
        value = query_value(call.path, name)
        return value is not None and test(value.encode("latin-1", "replace"))

    return matches


def is_grpc(call: Call) -> bool:
    """Envoy's `grpc: {}`: content type exactly ``application/grpc`` or starting ``application/grpc+``."""
    found = values_of(call, b"content-type")
    return bool(found) and (found[0] == b"application/grpc" or found[0].startswith(b"application/grpc+"))


def all_of(tests: Sequence[CallTest]) -> CallTest | None:
    """One predicate for a conjunction; None when there is nothing to test."""
    if not tests:
        return None
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda call: first(call) and second(call)
    if len(tests) == 3:
        first, second, third = tests
        return lambda call: first(call) and second(call) and third(call)
    frozen = tuple(tests)

    def every(call: Call) -> bool:
        for test in frozen:  # all() costs a generator  # noqa: SIM110
            if not test(call):
                return False
        return True

    return every
