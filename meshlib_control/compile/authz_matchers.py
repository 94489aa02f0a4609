"""Values of an AuthorizationPolicy as matchers, exactly as Istio writes them (pilot/pkg/security/authz/matcher)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from meshlib.xds.proto import core_pb2, rbac_pb2, route_pb2
from meshlib.xds.types import pack

SPIFFE: Final = "spiffe://"
JWT_FILTER: Final = "envoy.filters.http.jwt_authn"

_SOMETHING: Final = ".+"
_SPECIAL: Final = frozenset("\\.+*?()|[]{}^$")
_URI_TEMPLATE: Final = "uri-template"


def quoted(text: str) -> str:
    """`text` as a regular expression for itself, with the same backslashes as Go's ``regexp.QuoteMeta``."""
    return "".join(f"\\{char}" if char in _SPECIAL else char for char in text)


def string(value: str, *, ignore_case: bool = False) -> core_pb2.StringMatcher:
    """``*`` is any value that is not empty, ``*x`` a suffix, ``x*`` a prefix, everything else the value itself."""
    if value == "*":
        return regex(_SOMETHING)
    if value.startswith("*"):
        return core_pb2.StringMatcher(suffix=value[1:], ignore_case=ignore_case)
    if value.endswith("*"):
        return core_pb2.StringMatcher(prefix=value[:-1], ignore_case=ignore_case)
    return core_pb2.StringMatcher(exact=value, ignore_case=ignore_case)


def regex(expression: str) -> core_pb2.StringMatcher:
    return core_pb2.StringMatcher(safe_regex=core_pb2.RegexMatcher(regex=expression))


_ANY: Final = regex(_SOMETHING)


def principal(value: str) -> core_pb2.StringMatcher:
    """A SPIFFE ID from how policies write it, without scheme."""
    if value == "*":
        return regex(_SOMETHING)
    if value.startswith("*"):
        return regex(f"{SPIFFE}.*{quoted(value[1:])}")
    if value.endswith("*"):
        return core_pb2.StringMatcher(prefix=f"{SPIFFE}{value[:-1]}")
    return core_pb2.StringMatcher(exact=f"{SPIFFE}{value}")


def namespace(value: str) -> core_pb2.StringMatcher:
    """A SPIFFE ID of a namespace.  Asterisks may stand anywhere."""
    return regex(f".*/ns/{quoted(value).replace(quoted('*'), '.*')}/.*")


def service_account(value: str, default_namespace: str) -> core_pb2.StringMatcher:
    """A SPIFFE ID of ``namespace/account``, or of ``account`` in the policy's namespace, with or without more segments."""
    owner, slash, account = value.partition("/")
    if not slash:
        owner, account = default_namespace, value
    return regex(f"{SPIFFE}.+/ns/{quoted(owner)}/(.+/|)sa/{quoted(account)}(/.+)?")


def trust_domain(value: str) -> core_pb2.StringMatcher:
    """A SPIFFE ID of a trust domain; one asterisk may stand anywhere in its name."""
    if value == "*":
        return core_pb2.StringMatcher(prefix=SPIFFE)
    before, star, after = value.partition("*")
    if not star:
        return core_pb2.StringMatcher(prefix=f"{SPIFFE}{value}/")
    return regex(f"{SPIFFE}{quoted(before)}[^/]*{quoted(after)}/.*")


def header(name: str, value: str, *, ignore_case: bool = False) -> route_pb2.HeaderMatcher:
    """``*`` asks for presence only."""
    if value == "*":
        return route_pb2.HeaderMatcher(name=name, present_match=True)
    return route_pb2.HeaderMatcher(name=name, string_match=string(value, ignore_case=ignore_case))


def path(value: str) -> rbac_pb2.Permission:
    """A path without query, or a template of one."""
    if "{*}" in value or "{**}" in value:
        template = value.replace("{*}", "*").replace("{**}", "**")
        config = rbac_pb2.UriTemplateMatchConfig(path_template=template)
        return rbac_pb2.Permission(uri_template=core_pb2.TypedExtensionConfig(name=_URI_TEMPLATE, typed_config=pack(config)))
    return rbac_pb2.Permission(url_path=core_pb2.PathMatcher(path=string(value)))


def cidr(value: str) -> core_pb2.CidrRange:
    """A single address is a network of one.  Bits of the host stay as they are written."""
    interface = ipaddress.ip_interface(value)
    block = core_pb2.CidrRange(address_prefix=str(interface.ip))
    block.prefix_len.value = interface.network.prefixlen
    return block


def claim(keys: Sequence[str], values: Sequence[str]) -> core_pb2.MetadataMatcher:
    """A claim of the token that has one of these values, or is a list with one of them."""
    wanted = any_of([core_pb2.ValueMatcher(string_match=string(value)) for value in values])
    in_list = core_pb2.ValueMatcher(list_match=core_pb2.ListMatcher(one_of=wanted))
    return metadata(JWT_FILTER, ("payload", *keys), any_of([in_list, wanted]))


def request_principal(value: str) -> tuple[core_pb2.MetadataMatcher, core_pb2.MetadataMatcher]:
    """Issuer and subject of the token: what is before and after the last slash; an issuer is often a URL.

    An asterisk at the start is about the issuer if there is a slash, one at the end about the subject.
    """
    issuer, slash, subject = value.rpartition("/")
    if value == "*":
        parts = _ANY, _ANY
    elif value.startswith("*"):
        parts = (string(issuer), _exact(subject)) if slash else (_ANY, string(value))
    elif value.endswith("*"):
        parts = (_exact(issuer), string(subject)) if slash else (string(value), _ANY)
    else:
        parts = (_exact(issuer), _exact(subject)) if slash else (_exact(value), _exact(""))
    return _one_claim("iss", parts[0]), _one_claim("sub", parts[1])


def filter_metadata(name: str, key: str, values: Sequence[str]) -> core_pb2.MetadataMatcher:
    """What another filter has written; ``[v]`` is an element of a list."""
    return metadata(name, (key,), any_of([_metadata_value(value) for value in values]))


def metadata(name: str, keys: Sequence[str], value: core_pb2.ValueMatcher) -> core_pb2.MetadataMatcher:
    """A value in the dynamic metadata of the filter `name`."""
    segments = [core_pb2.MetadataMatcher.PathSegment(key=key) for key in keys]
    return core_pb2.MetadataMatcher(filter=name, path=segments, value=value)


def any_of(matchers: Sequence[core_pb2.ValueMatcher]) -> core_pb2.ValueMatcher:
    """Of one: itself."""
    if len(matchers) == 1:
        return matchers[0]
    return core_pb2.ValueMatcher(or_match=core_pb2.OrMatcher(value_matchers=matchers))


def _exact(value: str) -> core_pb2.StringMatcher:
    return core_pb2.StringMatcher(exact=value)


def _one_claim(key: str, value: core_pb2.StringMatcher) -> core_pb2.MetadataMatcher:
    return metadata(JWT_FILTER, ("payload", key), core_pb2.ValueMatcher(string_match=value))


def _metadata_value(value: str) -> core_pb2.ValueMatcher:
    if value.startswith("[") and value.endswith("]"):
        element = core_pb2.ValueMatcher(string_match=string(value.strip("[]")))
        return core_pb2.ValueMatcher(list_match=core_pb2.ListMatcher(one_of=element))
    return core_pb2.ValueMatcher(string_match=string(value))
