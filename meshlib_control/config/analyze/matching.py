"""Whether one condition holds whenever another does."""

from __future__ import annotations

from collections.abc import Mapping

from meshlib_control.config.kinds import HTTPMatchRequest, HTTPRoute, StringMatch

ANYTHING = HTTPMatchRequest()


def conditions(route: HTTPRoute) -> tuple[HTTPMatchRequest, ...]:
    """What leads to a route; one that always holds when it has no match."""
    return route.match or (ANYTHING,)


def is_unconditional(match: HTTPMatchRequest) -> bool:
    return implies(ANYTHING, match)


def implies(later: HTTPMatchRequest, earlier: HTTPMatchRequest) -> bool:
    """Whether every request that matches `later` matches `earlier`.  False when that is not plain to see."""
    return (
        _path_implies(later, earlier)
        and all(
            _string_implies(mine, yours)
            for mine, yours in (
                (later.scheme, earlier.scheme),
                (later.method, earlier.method),
                (later.authority, earlier.authority),
            )
        )
        and _map_implies(later.headers, earlier.headers)
        and _map_implies(later.query_params, earlier.query_params)
        and earlier.without_headers.items() <= later.without_headers.items()
        and earlier.source_labels.items() <= later.source_labels.items()
        and (not earlier.port or earlier.port == later.port)
        and (not earlier.source_namespace or earlier.source_namespace == later.source_namespace)
    )


def is_same(one: HTTPMatchRequest, other: HTTPMatchRequest) -> bool:
    """Whether they match the same requests."""
    return implies(one, other) and implies(other, one)


def _path_implies(later: HTTPMatchRequest, earlier: HTTPMatchRequest) -> bool:
    mine, yours = later.uri, earlier.uri
    if yours is None or yours.prefix == "/":
        return True
    if mine is None:
        return False
    if later.ignore_uri_case and not earlier.ignore_uri_case:
        return mine == yours and mine.regex is not None
    if earlier.ignore_uri_case:
        mine, yours = _lower(mine), _lower(yours)
    return _string_implies(mine, yours)


def _lower(match: StringMatch) -> StringMatch:
    return StringMatch(
        exact=match.exact.lower() if match.exact is not None else None,
        prefix=match.prefix.lower() if match.prefix is not None else None,
        regex=match.regex,
    )


def _string_implies(mine: StringMatch | None, yours: StringMatch | None) -> bool:
    if yours is None:
        return True
    if mine is None:
        return False
    if mine == yours or yours == StringMatch():
        return True
    if yours.prefix is not None:
        start = mine.exact if mine.exact is not None else mine.prefix
        return start is not None and start.startswith(yours.prefix)
    return False


def _map_implies(mine: Mapping[str, StringMatch], yours: Mapping[str, StringMatch]) -> bool:
    return all(name in mine and _string_implies(mine[name], match) for name, match in yours.items())
