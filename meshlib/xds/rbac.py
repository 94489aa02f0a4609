"""RBAC → model (Envoy's HTTP filter, gRFC A41).

Nothing is left out: a matcher that is dropped makes a DENY rule narrower or an ALLOW rule wider than it was written
(GHSA-hrxh-6v49-42gf), so whatever is not understood refuses the whole resource by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import ip_network
from typing import Final, TypeVar

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
from meshlib.model.identity import SCHEME
from meshlib.model.route import StringMatch
from meshlib.xds.fields import unpack
from meshlib.xds.invalid import Problems
from meshlib.xds.matchers import decode_header_match, decode_string_match
from meshlib.xds.proto import core_pb2, rbac_pb2, route_pb2

M = TypeVar("M")
Matchers = tuple[Matcher, ...]

MAX_PATTERN: Final = 1024
"""Longest regular expression in a policy, in characters: Istio's own limit."""

NEVER: Final = AnyOf(())
"""Stands where a problem was found, too; the resource is refused then anyway."""

_ACTIONS: Final = {rbac_pb2.RBAC.ALLOW: Action.ALLOW, rbac_pb2.RBAC.DENY: Action.DENY, rbac_pb2.RBAC.LOG: Action.LOG}
_PSEUDO: Final = frozenset({":authority", ":method", ":path"})
_HEADER_NAME: Final = re.compile(r"[0-9a-z!#$%&'*+.^_`|~-]+")  # lower case by now
_TEMPLATE_SEGMENT: Final = re.compile(r"\*\*?|[A-Za-z0-9._~%!$&'()+,;:@=-]+")


def decode_rbac(message: rbac_pb2.HttpRBAC, name: str, problems: Problems, *, field: str) -> RbacFilter:
    """`name`: of the filter, for people.  The prefix of the enforced rules' statistics has no meaning here."""
    rules = decode_rules(message.rules, problems, field=f"{field}.rules") if message.HasField("rules") else None
    shadow = None
    if message.HasField("shadow_rules"):
        shadow = decode_rules(message.shadow_rules, problems, field=f"{field}.shadow_rules")
    return RbacFilter(name, rules, shadow, message.shadow_rules_stat_prefix)


def decode_rules(message: rbac_pb2.RBAC, problems: Problems, *, field: str) -> Rbac:
    action = _ACTIONS.get(message.action)
    if action is None:
        problems.add(f"{field}.action", message.action, "ALLOW, DENY or LOG")
        action = Action.DENY
    # Envoy evaluates in the order of the names, byte by byte; the map on the wire has none.
    names = sorted(message.policies, key=lambda name: name.encode())
    policies = tuple(_policy(name, message.policies[name], problems, f"{field}.policies[{name!r}]") for name in names)
    return Rbac(action, policies)


def _policy(name: str, policy: rbac_pb2.Policy, problems: Problems, field: str) -> RbacPolicy:
    return RbacPolicy(
        name,
        AnyOf(_each(policy.permissions, _permission, problems, f"{field}.permissions")),
        AnyOf(_each(policy.principals, _principal, problems, f"{field}.principals")),
    )


def _permission(rule: rbac_pb2.Permission, problems: Problems, field: str) -> Matcher:
    kind = rule.WhichOneof("rule")
    where = f"{field}.{kind}"
    match kind:
        case "and_rules":
            return AllOf(_each(rule.and_rules.rules, _permission, problems, f"{where}.rules"))
        case "or_rules":
            return AnyOf(_each(rule.or_rules.rules, _permission, problems, f"{where}.rules"))
        case "not_rule":
            return Not(_permission(rule.not_rule, problems, where))
        case "any":
            return _any(rule.any, problems, where)
        case "header":
            return _header(rule.header, problems, where)
        case "url_path":
            return _url_path(rule.url_path, problems, where)
        case "uri_template":
            return _uri_template(rule.uri_template, problems, where)
        case "destination_ip":
            return _block(Address.DESTINATION, rule.destination_ip, problems, where)
        case "destination_port":
            if rule.destination_port > 65535:
                problems.add(where, rule.destination_port, "a port, at most 65535")
            # No connection has the port 0, which policies of Istio may name.
            return DestinationPort(rule.destination_port) if rule.destination_port else NEVER
        case "metadata":
            return decode_metadata_match(rule.metadata, problems, field=where)
        case "requested_server_name":
            return RequestedServerName(_string(rule.requested_server_name, problems, where))
        case _:
            return _refused(rule.matcher.name if kind == "matcher" else "", problems, where if kind else field)


def _principal(identifier: rbac_pb2.Principal, problems: Problems, field: str) -> Matcher:
    kind = identifier.WhichOneof("identifier")
    where = f"{field}.{kind}"
    match kind:
        case "and_ids":
            return AllOf(_each(identifier.and_ids.ids, _principal, problems, f"{where}.ids"))
        case "or_ids":
            return AnyOf(_each(identifier.or_ids.ids, _principal, problems, f"{where}.ids"))
        case "not_id":
            return Not(_principal(identifier.not_id, problems, where))
        case "any":
            return _any(identifier.any, problems, where)
        case "authenticated":
            return _authenticated(identifier.authenticated, problems, where)
        case "direct_remote_ip":
            return _block(Address.DIRECT_REMOTE, identifier.direct_remote_ip, problems, where)
        case "remote_ip":
            return _block(Address.REMOTE, identifier.remote_ip, problems, where)
        case "source_ip":  # deprecated; without the PROXY protocol it is the same address
            return _block(Address.DIRECT_REMOTE, identifier.source_ip, problems, where)
        case "header":
            return _header(identifier.header, problems, where)
        case "url_path":
            return _url_path(identifier.url_path, problems, where)
        case "metadata":
            return decode_metadata_match(identifier.metadata, problems, field=where)
        case _:
            return _refused(identifier.filter_state.key if kind == "filter_state" else "", problems, where if kind else field)


def _each(items: Iterable[M], decode: Callable[[M, Problems, str], Matcher], problems: Problems, field: str) -> Matchers:
    found = tuple(decode(item, problems, f"{field}[{index}]") for index, item in enumerate(items))
    if not found:
        problems.describe(field, "empty", "at least one")
    return found


def _refused(name: str, problems: Problems, field: str) -> Matcher:
    problems.describe(field, repr(name) if name else "no matcher", "a matcher that this data plane knows")
    return NEVER


def _any(value: bool, problems: Problems, field: str) -> Matcher:
    if not value:
        problems.add(field, value, "true")
    return Always()


def _string(matcher: core_pb2.StringMatcher, problems: Problems, field: str) -> StringMatch:
    return decode_string_match(matcher, problems, field=field, longest=MAX_PATTERN)


def _header(matcher: route_pb2.HeaderMatcher, problems: Problems, field: str) -> Matcher:
    found = decode_header_match(matcher, problems, field=field, longest=MAX_PATTERN)
    name = found.name  # lower case: "X-Role" in a policy is the x-role of requests
    if name.startswith(":"):
        # The scheme is the client's own claim: nothing may depend on it (gRFC A41).
        if name not in _PSEUDO:
            problems.add(f"{field}.name", matcher.name, ":authority, :method or :path, if a pseudo header")
    elif name.startswith("grpc-"):  # gRFC A41: not every data plane shows them to policies
        problems.add(f"{field}.name", matcher.name, "a header that policies may look at, not one of gRPC's own")
    elif name and _HEADER_NAME.fullmatch(name) is None:
        problems.add(f"{field}.name", matcher.name, "a header name (RFC 9110 section 5.1)")
    return Header(found)


def _url_path(matcher: core_pb2.PathMatcher, problems: Problems, field: str) -> Matcher:
    return UrlPath(_string(matcher.path, problems, f"{field}.path"))


def _uri_template(extension: core_pb2.TypedExtensionConfig, problems: Problems, field: str) -> Matcher:
    where = f"{field}.typed_config"
    config = unpack(extension.typed_config, rbac_pb2.UriTemplateMatchConfig, field=where, problems=problems)
    if config is None:
        return NEVER
    template = config.path_template
    segments = template.split("/")
    if segments[-1] == "":  # "/" at the end is a part of the path like any other
        segments.pop()
    operators = [segment for segment in segments if segment in ("*", "**")]
    plain = all(_TEMPLATE_SEGMENT.fullmatch(segment) for segment in segments[1:])
    if not template.startswith("/") or not plain or "**" in operators[:-1]:
        problems.add(
            f"{where}.path_template", template, "a path whose segments are *, ** (only as the last operator) or plain text"
        )
        return NEVER
    return UriTemplate(template)


def _block(which: Address, block: core_pb2.CidrRange, problems: Problems, field: str) -> Matcher:
    length = block.prefix_len.value  # unset: 0, as in Envoy
    try:
        network = ip_network(f"{block.address_prefix}/{length}", strict=False)
    except ValueError:
        problems.describe(field, f"'{block.address_prefix}/{length}'", "an IPv4 or IPv6 address and the length of its prefix")
        return NEVER
    return IpBlock(which, str(network))


def _authenticated(message: rbac_pb2.Principal.Authenticated, problems: Problems, field: str) -> Matcher:
    if not message.HasField("principal_name"):
        return Authenticated()
    found = _string(message.principal_name, problems, f"{field}.principal_name")
    # Only the SPIFFE ID of a peer is looked at: what asks for a DNS name or a subject would never match, and a DENY with it
    # would deny nothing.
    value = found.value.lower() if found.ignore_case else found.value
    possible = value.startswith(SCHEME) or (found.kind == "prefix" and SCHEME.startswith(value))
    if found.kind in ("exact", "prefix") and not possible:
        problems.add(f"{field}.principal_name.{found.kind}", found.value, f"a SPIFFE ID ({SCHEME}...)")
    return Authenticated(found)


def decode_metadata_match(message: core_pb2.MetadataMatcher, problems: Problems, *, field: str) -> MetadataMatch:
    if not message.filter:
        problems.add(f"{field}.filter", "", "a name")
    path = tuple(segment.key for segment in message.path)
    if not path or not all(path):
        problems.describe(f"{field}.path", repr(list(path)), "at least one key, and none of them empty")
    return MetadataMatch(message.filter, path, _value(message.value, problems, f"{field}.value"), message.invert)


def _value(message: core_pb2.ValueMatcher, problems: Problems, field: str) -> ValueMatch:
    kind = message.WhichOneof("match_pattern")
    where = f"{field}.{kind}"
    match kind:
        case "string_match":
            return ValueMatch(string=_string(message.string_match, problems, where))
        case "bool_match":
            return ValueMatch(boolean=message.bool_match)
        case "present_match":
            return ValueMatch(present=message.present_match)
        case "null_match":
            return ValueMatch(null=True)
        case "double_match" if message.double_match.WhichOneof("match_pattern") == "exact":
            return ValueMatch(number=message.double_match.exact)
        case "list_match" if message.list_match.WhichOneof("match_pattern") == "one_of":
            return ValueMatch(one_of=_value(message.list_match.one_of, problems, f"{where}.one_of"))
        case "or_match":
            if len(message.or_match.value_matchers) < 2:
                problems.describe(f"{where}.value_matchers", str(len(message.or_match.value_matchers)), "at least two")
            of = enumerate(message.or_match.value_matchers)
            return ValueMatch(any_of=tuple(_value(item, problems, f"{where}.value_matchers[{index}]") for index, item in of))
        case _:
            problems.describe(where if kind else field, "no match_pattern", "a matcher that this data plane knows")
            return ValueMatch(present=False)
