"""String matches, header operations, durations, percentages: the small parts that many rules use."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import re2

from meshlib_control.config.durations import format_duration, is_whole_milliseconds
from meshlib_control.config.kinds import HeaderOperations, Headers, Percent, StringMatch
from meshlib_control.config.problems import Problem, under
from meshlib_control.config.validate.names import header_name_fault

LONGEST_REGEX = 1024
"""Istio's bound; Envoy's own is on the size of the compiled program, which is always larger."""

_AUTHORITY = frozenset({":authority", "host"})


@lru_cache(maxsize=4096)
def regex_fault(pattern: str) -> str | None:
    """What keeps `pattern` from being a usable RE2 expression."""
    if not pattern:
        return "the expression is empty"
    if len(pattern) > LONGEST_REGEX:
        return f"the expression has {len(pattern)} characters; at most {LONGEST_REGEX} are allowed"
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options=options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if error.args and isinstance(error.args[0], bytes) else str(error)
        return f"{pattern!r} is not an RE2 expression: {reason}"
    return None


def check_string_match(match: StringMatch) -> Iterator[Problem]:
    """An empty prefix or expression matches everything by accident."""
    if match.prefix == "":
        yield Problem(
            ("prefix",), "MSH0124", "an empty prefix matches everything; leave the condition out, or ask for presence with {}"
        )
    if match.regex is not None:
        fault = regex_fault(match.regex)
        if fault:
            yield Problem(("regex",), "MSH0123", fault)


def check_duration(seconds: float | None) -> Iterator[Problem]:
    """At least a millisecond, and nothing finer."""
    if seconds is None:
        return
    if seconds < 0.001:
        yield Problem((), "MSH0133", f"{format_duration(seconds)} is shorter than 1ms, the least that is allowed")
    elif not is_whole_milliseconds(seconds):
        yield Problem((), "MSH0133", f"{format_duration(seconds)} is finer than a millisecond, which nothing measures")


def check_percent(percent: Percent | None) -> Iterator[Problem]:
    """0 to 100."""
    if percent is not None and not 0 <= percent.value <= 100:
        yield Problem(("value",), "MSH0139", f"{percent.value:g} is not a percentage; it goes from 0 to 100")


def check_headers(headers: Headers | None) -> Iterator[Problem]:
    """Header operations of a route or destination.  The authority may be set on requests."""
    if headers is None:
        return
    if headers.request is not None:
        yield from under(("request",), _check_operations(headers.request, authority=True))
    if headers.response is not None:
        yield from under(("response",), _check_operations(headers.response, authority=False))


def _check_operations(operations: HeaderOperations, *, authority: bool) -> Iterator[Problem]:
    for verb, values in (("set", operations.set), ("add", operations.add)):
        for name, value in values.items():
            yield from under((verb, name), _check_operation_name(name, authority=authority))
            if value.count("%") % 2:  # as Istio counts; what a command may be is the data plane's to know
                message = f"{value!r} has a lone %: write %% for a percent sign, %NAME% for a variable"
                yield Problem((verb, name), "MSH0126", message)
    for index, name in enumerate(operations.remove):
        yield from under(("remove", index), _check_operation_name(name, authority=False))


def _check_operation_name(name: str, *, authority: bool) -> Iterator[Problem]:
    if authority and name.lower() in _AUTHORITY:
        return
    if not name:
        yield Problem((), "MSH0126", "the header's name is empty")
    elif name.startswith(":"):
        yield Problem((), "MSH0126", f"{name} is a pseudo header; only :authority of a request can be set")
    elif name.lower() == "host":
        yield Problem((), "MSH0126", "the Host header can only be set, and only on requests")


def authorities_set(headers: Headers | None) -> list[str]:
    """Names under which header operations on the request set the authority."""
    if headers is None or headers.request is None:
        return []
    return [name for name in (*headers.request.set, *headers.request.add) if name.lower() in _AUTHORITY]


def check_header_names(names: tuple[str, ...]) -> Iterator[Problem]:
    """Of a list in which an asterisk stands for all of them."""
    for index, name in enumerate(names):
        fault = header_name_fault(name) if name != "*" else None
        if fault:
            yield Problem((index,), "MSH0126", fault)
