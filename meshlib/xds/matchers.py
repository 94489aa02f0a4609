"""RouteMatch and its matchers → model.  A bad regular expression is refused here, not when the first request meets it."""

from __future__ import annotations

from typing import Final

from meshlib.model.route import HeaderMatch, PathMatch, QueryMatch, RouteMatch, StringKind, StringMatch, Substitution
from meshlib.model.substitution import parse_replacement
from meshlib.xds.fields import allow_only
from meshlib.xds.invalid import Problems
from meshlib.xds.proto import core_pb2, route_pb2

MAX_PATTERN: Final = 8192
"""Longest regular expression, in characters."""

_MATCH_FIELDS = frozenset(
    {
        "prefix",
        "path",
        "safe_regex",
        "path_separated_prefix",
        "case_sensitive",
        "runtime_fraction",
        "headers",
        "query_parameters",
        "grpc",
    }
)
_DENOMINATORS = {
    core_pb2.FractionalPercent.HUNDRED: 100,
    core_pb2.FractionalPercent.TEN_THOUSAND: 10_000,
    core_pb2.FractionalPercent.MILLION: 1_000_000,
}


def decode_route_match(match: route_pb2.RouteMatch, problems: Problems, *, field: str) -> RouteMatch:
    allow_only(match, _MATCH_FIELDS, field=field, problems=problems)
    return RouteMatch(
        path=_path(match, problems, field=field),
        headers=tuple(
            decode_header_match(item, problems, field=f"{field}.headers[{index}]") for index, item in enumerate(match.headers)
        ),
        query=tuple(
            _query(item, problems, field=f"{field}.query_parameters[{index}]")
            for index, item in enumerate(match.query_parameters)
        ),
        fraction=_fraction(match.runtime_fraction, problems, field=f"{field}.runtime_fraction")
        if match.HasField("runtime_fraction")
        else None,
        grpc=match.HasField("grpc"),
    )


def _path(match: route_pb2.RouteMatch, problems: Problems, *, field: str) -> PathMatch:
    case_sensitive = match.case_sensitive.value if match.HasField("case_sensitive") else True
    specifier = match.WhichOneof("path_specifier")
    match specifier:
        case "prefix":
            return PathMatch("prefix", match.prefix, case_sensitive)
        case "path":
            return PathMatch("exact", match.path, case_sensitive)
        case "safe_regex":
            pattern = decode_pattern(match.safe_regex, problems, field=f"{field}.safe_regex.regex")
            return PathMatch("regex", pattern)
        case "path_separated_prefix":
            value = match.path_separated_prefix
            if not value.startswith("/") or value.endswith("/") or "?" in value or "#" in value:
                problems.add(f"{field}.path_separated_prefix", value, "a path that does not end in / nor holds ? or #")
            return PathMatch("separated", value, case_sensitive)
        case _:
            problems.describe(field, "no path_specifier", "prefix, path, safe_regex or path_separated_prefix")
            return PathMatch("prefix", "")


def decode_header_match(
    item: route_pb2.HeaderMatcher, problems: Problems, *, field: str, longest: int = MAX_PATTERN
) -> HeaderMatch:
    if not item.name:
        problems.add(f"{field}.name", "", "a header name")
    string: StringMatch | None = None
    present: bool | None = None
    between: tuple[int, int] | None = None
    match item.WhichOneof("header_match_specifier"):
        case "string_match":
            string = decode_string_match(item.string_match, problems, field=f"{field}.string_match", longest=longest)
        case "range_match":
            between = (item.range_match.start, item.range_match.end)
        case "present_match":
            present = item.present_match
        case _:  # Envoy: without a specifier the header has to be there
            present = True
    return HeaderMatch(
        name=item.name.lower(),
        match=string,
        present=present,
        range=between,
        invert=item.invert_match,
        treat_missing_as_empty=item.treat_missing_header_as_empty,
    )


def _query(item: route_pb2.QueryParameterMatcher, problems: Problems, *, field: str) -> QueryMatch:
    if not item.name:
        problems.add(f"{field}.name", "", "a parameter name")
    match item.WhichOneof("query_parameter_match_specifier"):
        case "string_match":
            return QueryMatch(item.name, decode_string_match(item.string_match, problems, field=f"{field}.string_match"))
        case "present_match":
            return QueryMatch(item.name, present=item.present_match)
        case _:
            return QueryMatch(item.name)


def decode_string_match(
    matcher: core_pb2.StringMatcher, problems: Problems, *, field: str, longest: int = MAX_PATTERN
) -> StringMatch:
    """`longest`: of a regular expression, in characters."""
    kind = matcher.WhichOneof("match_pattern")
    if kind is None:
        problems.describe(field, "no match_pattern", "exact, prefix, suffix, contains or safe_regex")
        return StringMatch("exact", "")
    if kind == "safe_regex":
        pattern = decode_pattern(matcher.safe_regex, problems, field=f"{field}.safe_regex.regex", longest=longest)
        return StringMatch("regex", pattern)
    value: str = getattr(matcher, kind)
    if not value and kind != "exact":
        problems.add(f"{field}.{kind}", "", "at least one character")
    known: StringKind = kind
    return StringMatch(known, value, matcher.ignore_case)


def _group_count(pattern: str) -> int:
    """Of an RE2 expression; 0 for what is none."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        return int(re2.compile(pattern, options).groups)
    except re2.error:
        return 0


def decode_pattern(matcher: core_pb2.RegexMatcher, problems: Problems, *, field: str, longest: int = MAX_PATTERN) -> str:
    import re2  # 15 ms to import, and most configurations have no regular expression

    if not 0 < len(matcher.regex) <= longest:
        problems.describe(field, f"{len(matcher.regex)} characters", f"1 to {longest} characters")
        return matcher.regex
    options = re2.Options()
    options.log_errors = False  # RE2 writes to stderr by itself otherwise
    try:
        re2.compile(matcher.regex, options)
    except re2.error as error:
        detail = error.args[0] if error.args else error
        problems.add(field, matcher.regex, f"an RE2 expression: {detail.decode() if isinstance(detail, bytes) else detail}")
    return matcher.regex


def decode_substitution(message: core_pb2.RegexMatchAndSubstitute, problems: Problems, *, field: str) -> Substitution:
    """An expression, and a replacement that goes with it."""
    pattern = decode_pattern(message.pattern, problems, field=f"{field}.pattern.regex")
    try:
        parse_replacement(message.substitution, _group_count(pattern))
    except ValueError as error:
        problems.describe(f"{field}.substitution", str(error), "a replacement that goes with the expression")
    return Substitution(pattern, message.substitution)


def _fraction(percent: core_pb2.RuntimeFractionalPercent, problems: Problems, *, field: str) -> float:
    """The default value; the runtime key names an override that only Envoy's runtime layers could give."""
    if not percent.HasField("default_value"):
        problems.describe(f"{field}.default_value", "unset", "a FractionalPercent")
        return 1.0
    return decode_fraction(percent.default_value, problems, field=f"{field}.default_value")


def decode_fraction(percent: core_pb2.FractionalPercent, problems: Problems, *, field: str) -> float:
    """0..1; unset: 0."""
    denominator = _DENOMINATORS.get(percent.denominator)
    if denominator is None:
        problems.add(field, percent.denominator, "a FractionalPercent over HUNDRED, TEN_THOUSAND or MILLION")
        return 0.0
    return min(1.0, float(percent.numerator) / denominator)
