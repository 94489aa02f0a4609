"""RouteAction.hash_policy → model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from meshlib.model.route import HashPolicy, Substitution
from meshlib.xds.fields import seconds
from meshlib.xds.invalid import Problems
from meshlib.xds.matchers import decode_substitution
from meshlib.xds.proto import route_pb2

_Policy = route_pb2.RouteAction.HashPolicy
_HEADER: Final = re.compile(r":?[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_COOKIE: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_COOKIE_PATH: Final = re.compile(r"[ -:<-~]*")  # RFC 6265: printable ASCII without ";"


def decode_hash_policies(policies: Sequence[_Policy], problems: Problems, *, field: str) -> tuple[HashPolicy, ...]:
    """In their order, which counts."""
    found = (_policy(policy, problems, field=f"{field}[{index}]") for index, policy in enumerate(policies))
    return tuple(policy for policy in found if policy is not None)


def _policy(policy: _Policy, problems: Problems, *, field: str) -> HashPolicy | None:
    match policy.WhichOneof("policy_specifier"):
        case "header":
            return _header(policy, problems, field=f"{field}.header")
        case "cookie":
            return _cookie(policy, problems, field=f"{field}.cookie")
        case "connection_properties":
            if not policy.connection_properties.source_ip:
                return None  # hashes nothing, and says so
            return HashPolicy("source_ip", terminal=policy.terminal)
        case "query_parameter":
            if not policy.query_parameter.name:
                problems.add(f"{field}.query_parameter.name", "", "a name")
            return HashPolicy("query", policy.query_parameter.name, terminal=policy.terminal)
        case _:
            problems.describe(field, "no policy", "header, cookie, connection_properties or query_parameter")
            return None


def _header(policy: _Policy, problems: Problems, *, field: str) -> HashPolicy:
    header = policy.header
    if not _HEADER.fullmatch(header.header_name):
        problems.add(f"{field}.header_name", header.header_name, "the name of a header")
    rewrite: Substitution | None = None
    if header.HasField("regex_rewrite"):
        rewrite = decode_substitution(header.regex_rewrite, problems, field=f"{field}.regex_rewrite")
    return HashPolicy("header", header.header_name.lower(), rewrite=rewrite, terminal=policy.terminal)


def _cookie(policy: _Policy, problems: Problems, *, field: str) -> HashPolicy:
    cookie = policy.cookie
    if not _COOKIE.fullmatch(cookie.name):
        problems.add(f"{field}.name", cookie.name, "the name of a cookie (RFC 6265)")
    if not _COOKIE_PATH.fullmatch(cookie.path):
        problems.add(f"{field}.path", cookie.path, "visible ASCII without a semicolon")
    ttl = seconds(cookie.ttl, field=f"{field}.ttl", problems=problems) if cookie.HasField("ttl") else None
    for index, attribute in enumerate(cookie.attributes):
        if not (_COOKIE.fullmatch(attribute.name) and _COOKIE_PATH.fullmatch(attribute.value)):
            shown = f"{attribute.name}={attribute.value}"
            problems.add(f"{field}.attributes[{index}]", shown, "a name, and a value of visible ASCII without a semicolon")
    attributes = tuple((attribute.name, attribute.value) for attribute in cookie.attributes)
    return HashPolicy("cookie", cookie.name, ttl=ttl, path=cookie.path, attributes=attributes, terminal=policy.terminal)
