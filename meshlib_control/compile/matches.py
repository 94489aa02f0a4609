"""Conditions of a VirtualService rule → RouteMatch."""

from __future__ import annotations

from collections.abc import Mapping

from meshlib.xds.proto import core_pb2, route_pb2
from meshlib_control.compile.virtual_services import MESH
from meshlib_control.config.kinds import HTTPMatchRequest, StringMatch

_PRESENT = "*"  # as a regex it is none; Istio reads it as "any value"
_PSEUDO = frozenset({"uri", "scheme", "method", "authority"})  # virtual_service.proto: ignored as header names


def is_for_caller(match: HTTPMatchRequest, *, port: int, namespace: str, labels: Mapping[str, str]) -> bool:
    """What is known before any request: the port, and who calls (Istio's sourceMatchHTTP).

    Where `gateways` is given, it alone decides about the caller.
    """
    if match.port and match.port != port:
        return False
    if match.gateways:
        return MESH in match.gateways
    if not match.source_labels.items() <= labels.items():
        return False
    return match.source_namespace in (None, "", namespace)


def route_match(match: HTTPMatchRequest | None) -> route_pb2.RouteMatch:
    """All conditions on the request itself.  Headers are in order of their names, so that equal rules give equal bytes."""
    result = route_pb2.RouteMatch()
    _set_path(result, match)
    if match is None:
        return result
    for name in sorted(match.headers):
        if name.lower() not in _PSEUDO:
            result.headers.append(_header(name, match.headers[name]))
    for name in sorted(match.without_headers):
        if name.lower() not in _PSEUDO:
            result.headers.append(_inverse(name, match.without_headers[name]))
    for name, condition in ((":method", match.method), (":authority", match.authority), (":scheme", match.scheme)):
        if condition is not None:
            result.headers.append(_header(name, condition))
    for name in sorted(match.query_params):
        result.query_parameters.append(_query(name, match.query_params[name]))
    return result


def is_catch_all(match: route_pb2.RouteMatch) -> bool:
    """Nothing after it can be reached."""
    everything = match.prefix == "/" or match.safe_regex.regex in (".*", "/.*")
    return everything and not match.headers and not match.query_parameters


def _set_path(result: route_pb2.RouteMatch, match: HTTPMatchRequest | None) -> None:
    uri = match.uri if match is not None else None
    if uri is None or _is_presence(uri) or uri.prefix == "":
        result.prefix = "/"
        return
    if uri.regex is not None:
        result.safe_regex.regex = uri.regex
        return
    if uri.exact is not None:
        result.path = uri.exact
    elif uri.prefix is not None:
        result.prefix = uri.prefix
    if match is not None and match.ignore_uri_case:
        result.case_sensitive.value = False


def _is_presence(condition: StringMatch) -> bool:
    return (condition.exact is None and condition.prefix is None and condition.regex is None) or condition.regex == _PRESENT


def _string_matcher(condition: StringMatch) -> core_pb2.StringMatcher | None:
    """None: any value will do.  An empty prefix means that too, and Envoy refuses it as a prefix."""
    if _is_presence(condition) or condition.prefix == "":
        return None
    if condition.exact is not None:
        return core_pb2.StringMatcher(exact=condition.exact)
    if condition.prefix is not None:
        return core_pb2.StringMatcher(prefix=condition.prefix)
    return core_pb2.StringMatcher(safe_regex=core_pb2.RegexMatcher(regex=condition.regex or ""))


def _header(name: str, condition: StringMatch) -> route_pb2.HeaderMatcher:
    matcher = _string_matcher(condition)
    if matcher is None:
        return route_pb2.HeaderMatcher(name=name, present_match=True)
    return route_pb2.HeaderMatcher(name=name, string_match=matcher)


def _inverse(name: str, condition: StringMatch) -> route_pb2.HeaderMatcher:
    """An absent x satisfies "without x = abc" too, which an inverted matcher alone would not give."""
    header = _header(name, condition)
    header.invert_match = True
    header.treat_missing_header_as_empty = not header.HasField("present_match")
    return header


def _query(name: str, condition: StringMatch) -> route_pb2.QueryParameterMatcher:
    matcher = _string_matcher(condition)
    if matcher is None:
        return route_pb2.QueryParameterMatcher(name=name, present_match=True)
    return route_pb2.QueryParameterMatcher(name=name, string_match=matcher)
