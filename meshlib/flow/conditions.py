"""Authorization policies in words: what a rule asks for, and which part of it a request does not meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from meshlib.model.authorization import (
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
    RequestedServerName,
    UriTemplate,
    UrlPath,
    ValueMatch,
)
from meshlib.model.inbound import Inspection
from meshlib.model.route import StringMatch
from meshlib.policy.authorization_metadata import value_at
from meshlib.policy.authorization_predicates import Reading, header_values

Holds = Callable[[Matcher, Reading], bool]
"""Whether a matcher holds for the request in question."""

_ADDRESSES = {
    Address.DESTINATION: "destination address",
    Address.DIRECT_REMOTE: "source address",
    Address.REMOTE: "remote address",
}
_PSEUDO = {":method": "method", ":authority": "host", ":path": "path and query"}
_TOKEN = "envoy.filters.http.jwt_authn"
_LONGEST = 200


def unmet(matcher: Matcher, reading: Reading, holds: Holds, inspection: Inspection) -> str:
    """The first condition that does not hold, and what there is instead: ``asks for method POST; it is GET``.

    Of alternatives: that of each of them.
    """
    match matcher:
        case AllOf():
            failed = next((item for item in matcher.of if not holds(item, reading)), None)
            return unmet(failed, reading, holds, inspection) if failed is not None else ""
        case AnyOf() if len(matcher.of) == 1:
            return unmet(matcher.of[0], reading, holds, inspection)
        case AnyOf() if any(isinstance(item, AllOf) for item in matcher.of):
            reasons = dict.fromkeys(unmet(item, reading, holds, inspection) for item in matcher.of)
            return _shortened("; or ".join(reasons))
        case AnyOf() if not matcher.of:
            return "never matches"
        case Not() if isinstance(matcher.of, Always):
            return "has no rules and never matches"
        case _:
            subject, found = _found(matcher, inspection)
            return _shortened(f"asks for {wanted(matcher)}; {subject} is {found}" if subject else f"asks for {wanted(matcher)}")


def wanted(matcher: Matcher) -> str:
    """``method GET or HEAD``, ``identity like spiffe://.+``, ``not (path /admin)``."""
    match matcher:
        case Always():
            return "anything"
        case Not():
            return f"not ({wanted(matcher.of)})"
        case AllOf():
            return " and ".join(wanted(item) for item in matcher.of) or "anything"
        case AnyOf():
            return " or ".join(wanted(item) for item in matcher.of) or "nothing"
        case Header():
            name = _header_name(matcher.match.name)
            return f"{name} {_string(matcher.match.match)}" if matcher.match.match is not None else f"{name} to be there"
        case UrlPath():
            return f"path {_string(matcher.match)}"
        case UriTemplate():
            return f"path like the template {matcher.template}"
        case DestinationPort():
            return f"port {matcher.port}"
        case IpBlock():
            return f"{_ADDRESSES[matcher.which]} in {matcher.cidr}"
        case RequestedServerName():
            return f"server name (SNI) {_string(matcher.match)}"
        case Authenticated():
            return f"identity {_string(matcher.match)}" if matcher.match is not None else "a verified identity"
        case MetadataMatch():
            return f"{_metadata_name(matcher)} {'not ' if matcher.invert else ''}{_value(matcher.value)}"


def _found(matcher: Matcher, inspection: Inspection) -> tuple[str, str]:
    """What a matcher looks at, and what the request has there."""
    leaf = _first_leaf(matcher)
    connection = inspection.request.connection
    match leaf:
        case Header():
            return _header_name(leaf.match.name), _header(leaf.match.name.lower(), inspection)
        case UrlPath() | UriTemplate():
            return "path", inspection.path
        case DestinationPort():
            return "port", str(connection.local_port)
        case IpBlock():
            known = {
                Address.DESTINATION: connection.local_address,
                Address.DIRECT_REMOTE: connection.remote_address,
                Address.REMOTE: inspection.remote_address or connection.remote_address,
            }
            return _ADDRESSES[leaf.which], known[leaf.which] or "unknown"
        case RequestedServerName():
            return "server name", connection.server_name or "not sent"
        case Authenticated():
            return "identity", str(connection.peer) if connection.peer is not None else "not proved"
        case MetadataMatch():
            value = value_at(leaf.filter, leaf.path)(inspection)
            there = isinstance(value, str | int | float | bool | list | tuple | dict) or value is None
            return _metadata_name(leaf), repr(value) if there else "missing"
        case _:
            return "", ""


def _first_leaf(matcher: Matcher) -> Matcher | None:
    match matcher:
        case Not():
            return _first_leaf(matcher.of)
        case AllOf() | AnyOf():
            return next((leaf for item in matcher.of if (leaf := _first_leaf(item)) is not None), None)
        case Always():
            return None
        case _:
            return matcher


def _header_name(name: str) -> str:
    return _PSEUDO.get(name.lower(), f"header {name}")


def _header(name: str, inspection: Inspection) -> str:
    if name == ":method":
        return inspection.request.method
    if name in (":authority", "host"):
        return inspection.host
    if name == ":path":
        return inspection.target.decode("latin-1")
    values: Sequence[bytes] = header_values(inspection, name.encode("latin-1", "replace"))
    return ", ".join(value.decode("latin-1") for value in values) if values else "missing"


def _metadata_name(matcher: MetadataMatch) -> str:
    if matcher.filter == _TOKEN and matcher.path[:1] == ("payload",):
        return f"claim {'.'.join(matcher.path[1:])}"
    return f"metadata {matcher.filter} {'.'.join(matcher.path)}"


def _value(match: ValueMatch) -> str:
    """Istio asks for a value or a list with it: said once."""
    if match.string is not None:
        return _string(match.string)
    if match.one_of is not None:
        return f"with an element {_value(match.one_of)}"
    if match.any_of:
        of = [item for item in match.any_of if item.one_of is None] or list(match.any_of)
        return " or ".join(_value(item) for item in of)
    if match.boolean is not None:
        return str(match.boolean).lower()
    return "to be there" if match.present else "of a kind that is never there"


def _string(match: StringMatch) -> str:
    if match.kind == "exact":
        return match.value or '""'
    return f"{'like' if match.kind == 'regex' else match.kind} {match.value}"


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
