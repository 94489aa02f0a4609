"""Policies and requests in a few words, and an evaluator of policies that takes every word of their definition literally."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

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
    RbacFilter,
    RbacPolicy,
    RequestedServerName,
    UriTemplate,
    UrlPath,
    ValueMatch,
)
from meshlib.model.identity import Peer, SpiffeId
from meshlib.model.inbound import Connection, Inspection, ServerRequest
from meshlib.model.route import HeaderMatch, StringKind, StringMatch

PORT = 8080
ALICE = Peer(SpiffeId.of_workload("cluster.local", "foo", "alice"))
BOB = Peer(SpiffeId.of_workload("cluster.local", "bar", "bob"))
ANYBODY = Always()


def text(value: str, kind: StringKind = "exact", *, ignore_case: bool = False) -> StringMatch:
    return StringMatch(kind, value, ignore_case)


def path(value: str, kind: StringKind = "exact", *, ignore_case: bool = False) -> UrlPath:
    return UrlPath(text(value, kind, ignore_case=ignore_case))


def header(name: str, value: str, kind: StringKind = "exact", *, ignore_case: bool = False) -> Header:
    return Header(HeaderMatch(name, text(value, kind, ignore_case=ignore_case)))


def host(value: str, kind: StringKind = "exact") -> Header:
    """As Istio compiles `hosts`."""
    return header(":authority", value, kind, ignore_case=True)


def principal(value: str, kind: StringKind = "exact") -> Authenticated:
    return Authenticated(text(value, kind))


def namespace(name: str) -> Authenticated:
    """As Istio compiles `namespaces`."""
    return principal(f".*/ns/{re.escape(name)}/.*", "regex")


def any_of(*of: Matcher) -> AnyOf:
    return AnyOf(of)


def all_of(*of: Matcher) -> AllOf:
    return AllOf(of)


def policy(permission: Matcher = ANYBODY, who: Matcher = ANYBODY, name: str = "ns[foo]-policy[p]-rule[0]") -> RbacPolicy:
    return RbacPolicy(name, permission, who)


def rules(action: Action, *policies: RbacPolicy) -> RbacFilter:
    return RbacFilter("rbac", Rbac(action, policies))


def allow(permission: Matcher = ANYBODY, who: Matcher = ANYBODY) -> RbacFilter:
    return rules(Action.ALLOW, policy(permission, who))


def deny(permission: Matcher = ANYBODY, who: Matcher = ANYBODY) -> RbacFilter:
    return rules(Action.DENY, policy(permission, who))


def inspect(
    target: str = "/",
    *headers: tuple[str, str | bytes],
    method: str = "GET",
    authority: str = "a.test",
    connection: Connection | None = None,
    metadata: Mapping[str, dict[str, Any]] | None = None,
    joined: bool = False,
) -> Inspection:
    """A request whose canonical view is as given."""
    pairs = [(name.encode(), value if isinstance(value, bytes) else value.encode("latin-1")) for name, value in headers]
    request = ServerRequest(
        method,
        target.encode(),
        [(b"host", authority.encode()), *pairs],
        connection=connection or Connection(local_port=PORT),
        joined=joined,
    )
    bare, _, query = target.partition("?")
    found = Inspection(request, bare, query, authority.partition(":")[0], authority, target.encode())
    found.metadata.update(metadata or {})
    return found


def from_peer(peer: Peer | None, **more: Any) -> Connection:
    return Connection(tls=peer is not None, peer=peer, local_port=PORT, **more)


def claims(**payload: Any) -> dict[str, dict[str, Any]]:
    return {"envoy.filters.http.jwt_authn": {"payload": payload}}


# --- literally


def first_policy(rbac: Rbac, inspection: Inspection) -> str | None:
    """The first policy that matches, by the definition in `meshlib.policy.authorization_predicates`."""
    grants = rbac.action is Action.ALLOW
    for item in rbac.policies:
        if all(holds(side, inspection, allow=grants, restricts=not grants) for side in (item.permission, item.principal)):
            return item.name
    return None


def holds(node: Matcher | _Alternatives, inspection: Inspection, *, allow: bool, restricts: bool) -> bool:
    def inner(item: Matcher | _Alternatives) -> bool:
        return holds(item, inspection, allow=allow, restricts=restricts)

    connection = inspection.request.connection
    match node:
        case Always():
            return True
        case Not():
            return not holds(node.of, inspection, allow=allow, restricts=not restricts)
        case AllOf():
            return all(map(inner, node.of))
        case AnyOf():
            return any(map(inner, _grouped(node.of))) if allow and not restricts else any(map(inner, node.of))
        case UrlPath():
            return _string(node.match, inspection.path.encode(), restricts=restricts)
        case UriTemplate():
            return _template(node.template, inspection.path)
        case DestinationPort():
            return node.port == PORT
        case Authenticated():
            if connection.peer is None:
                return restricts
            return node.match is None or _string(node.match, connection.peer.uri.encode(), restricts=restricts)
        case RequestedServerName():
            return _string(node.match, connection.server_name.encode(), restricts=restricts)
        case IpBlock():
            return _block(node, connection, restricts=restricts)
        case MetadataMatch():
            return _metadata(node, inspection, restricts=restricts)
        case Header():
            return _header([node.match], inspection, allow=allow, restricts=restricts)
        case _Alternatives():
            return _header([item.match for item in node.of], inspection, allow=allow, restricts=restricts)


@dataclass(frozen=True)
class _Alternatives:
    """Several values for the same header: one matcher, as every value of the header has to satisfy one of them."""

    of: tuple[Header, ...]


def _grouped(of: Sequence[Matcher]) -> list[Matcher | _Alternatives]:
    found: list[Matcher | _Alternatives] = []
    groups: dict[str, list[Header]] = {}
    for item in of:
        if isinstance(item, Header) and item.match.match is not None and not item.match.invert:
            groups.setdefault(item.match.name, []).append(item)
        else:
            found.append(item)
    return found + [_Alternatives(tuple(items)) for items in groups.values()]


def _header(matches: Sequence[HeaderMatch], inspection: Inspection, *, allow: bool, restricts: bool) -> bool:
    first = matches[0]
    values = _values(first.name, inspection, restricts=restricts)
    if first.match is None:
        return bool(values) is not first.invert
    if not values:
        return False
    strings = [match.match for match in matches if match.match is not None]
    if first.invert:
        results = [not _string(strings[0], value, restricts=not restricts) for value in values]
        return any(results) if allow and restricts else all(results)
    results = [any(_string(string, value, restricts=restricts) for string in strings) for value in values]
    return all(results) if allow and not restricts and first.name != ":authority" else any(results)


def _values(name: str, inspection: Inspection, *, restricts: bool) -> list[bytes]:
    if name == ":method":
        return [inspection.request.method.encode()]
    if name == ":authority":
        both = [inspection.host.encode(), inspection.authority.encode()]
        return both if restricts else both[:1]
    return [value for key, value in inspection.request.headers if key == name.encode()]


def _string(match: StringMatch, value: bytes, *, restricts: bool) -> bool:
    wanted = match.value.encode()
    if match.kind == "regex":
        if b"\n" in value:
            return restricts
        readings = [re.fullmatch(match.value.encode(), value) is not None]
        try:
            readings.append(re.fullmatch(match.value, value.decode()) is not None)
        except UnicodeDecodeError:
            readings.append(False)
        return any(readings) if restricts else all(readings)
    if match.ignore_case:
        value, wanted = value.lower(), wanted.lower()
    return {
        "exact": value == wanted,
        "prefix": value.startswith(wanted),
        "suffix": value.endswith(wanted),
        "contains": wanted in value,
    }[match.kind]


def _template(template: str, value: str) -> bool:
    pattern = "/".join({"*": "[^/]+", "**": ".*"}.get(part, re.escape(part)) for part in template.split("/"))
    return re.fullmatch(pattern, value) is not None


def _block(node: IpBlock, connection: Connection, *, restricts: bool) -> bool:
    which = connection.local_address if node.which is Address.DESTINATION else connection.remote_address
    try:
        return ip_address(which) in ip_network(node.cidr)
    except ValueError:
        return restricts


def _metadata(node: MetadataMatch, inspection: Inspection, *, restricts: bool) -> bool:
    value: Any = inspection.metadata.get(node.filter)
    for key in node.path:
        value = value.get(key) if isinstance(value, dict) else None  # no null among the generated values
    return _value(node.value, value, restricts=restricts)


def _value(match: ValueMatch, value: Any, *, restricts: bool) -> bool:
    if match.string is not None:
        return isinstance(value, str) and _string(match.string, value.encode("utf-8", "surrogatepass"), restricts=restricts)
    if match.one_of is not None:
        return isinstance(value, list) and any(_value(match.one_of, item, restricts=restricts) for item in value)
    if match.any_of:
        return any(_value(item, value, restricts=restricts) for item in match.any_of)
    return value is not None
