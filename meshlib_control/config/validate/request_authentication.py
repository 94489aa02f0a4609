"""RequestAuthentication: Istio's rules (pkg/config/validation, pkg/config/security)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from meshlib_control.config.jwks import BadKeySet, for_data_planes, read_keys
from meshlib_control.config.kinds import RequestAuthentication
from meshlib_control.config.kinds.request_authentication import JWTRule
from meshlib_control.config.problems import Problem, under
from meshlib_control.config.validate.names import header_name_fault
from meshlib_control.config.validate.strings import check_duration
from meshlib_control.config.validate.workloads import check_target_references, check_workload_selector

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_NOT_IN_ADDRESSES = re.compile(r"[\x00-\x20\x7f]")
_HOST = re.compile(r"[^\s<>\"%\\^`{|}\[\]]+\Z")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_FRAMING = frozenset({"host", "content-length", "transfer-encoding", "connection"})


def check_request_authentication(spec: RequestAuthentication, _namespace: str = "") -> Iterator[Problem]:
    """Istio's rules."""
    yield from under(("selector",), check_workload_selector(spec.selector))
    yield from check_target_references(spec.target_ref, spec.target_refs)
    for index, rule in enumerate(spec.jwt_rules):
        yield from under(("jwtRules", index), _check_rule(rule))


def _check_rule(rule: JWTRule) -> Iterator[Problem]:
    yield from _check_issuer(rule)
    for name, uri in (("jwksUri", rule.jwks_uri), ("jwks_uri", rule.jwks_uri_snake)):
        fault = address_fault(uri) if uri else None
        if fault:
            yield Problem((name,), "MSH0163", fault)
    if rule.jwks_uri_snake:
        yield Problem(("jwks_uri",), "MSH0150", "jwks_uri is the old form; write jwksUri")
    yield from under(("jwks",), _check_keys(rule.jwks))
    yield from _check_locations(rule)
    yield from _check_outputs(rule)
    for name, values in (("audiences", rule.audiences), ("spaceDelimitedClaims", rule.space_delimited_claims)):
        yield from under((name,), _check_not_empty(values))
    yield from under(("timeout",), check_duration(rule.timeout))


def _check_issuer(rule: JWTRule) -> Iterator[Problem]:
    if rule.jwks or rule.jwks_uri or rule.jwks_uri_snake:
        return
    if not rule.issuer:
        yield Problem(("issuer",), "MSH0143", "there is no issuer and no key; give the issuer, and jwksUri or jwks")
    elif address_fault(rule.issuer):
        message = f"{rule.issuer} is no address where keys could be discovered, so every token is refused; give jwksUri or jwks"
        yield Problem(("issuer",), "MSH0316", message)


def address_fault(uri: str) -> str | None:
    """What keeps `uri` from being the address of a document: http or https, a host, a port that is a number."""
    if _NOT_IN_ADDRESSES.search(uri) or _BAD_ESCAPE.search(uri):
        return f"{uri!r} is not an address"
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return f"{uri!r} is not an address"
    if parts.scheme not in ("http", "https"):
        return f"{uri!r} has neither https:// nor http:// in front"
    if not parts.hostname or not _HOST.match(parts.hostname):
        return f"{uri!r} names no host"
    return None


def _check_keys(jwks: str | None) -> Iterator[Problem]:
    if not jwks:
        return
    try:
        keys = read_keys(jwks)
    except BadKeySet as error:
        yield Problem((), "MSH0163", f"this is no JSON Web Key Set: {error}")
        return
    if not for_data_planes(jwks):
        yield Problem((), "MSH0316", "no key of the set can verify a token, so every token is refused")
    if any("d" in key for key in keys):
        yield Problem(
            (),
            "MSH0317",
            "a key has its private part: whoever reads this can sign tokens; replace the key and give its public part",
        )


def _check_locations(rule: JWTRule) -> Iterator[Problem]:
    seen: set[tuple[str, str]] = set()
    for index, header in enumerate(rule.from_headers):
        path = ("fromHeaders", index, "name")
        if not _TOKEN.match(header.name):
            yield Problem(path, "MSH0126", f"{header.name!r} is not a header name" if header.name else "the name is empty")
        place = (header.name.lower(), header.prefix or "")
        if place in seen:
            yield Problem(path, "MSH0151", f"{header.name} is looked at already")
        seen.add(place)
    for name, values in (("fromParams", rule.from_params), ("fromCookies", rule.from_cookies)):
        yield from under((name,), _check_not_empty(values))


def _check_not_empty(values: tuple[str, ...]) -> Iterator[Problem]:
    for index, value in enumerate(values):
        if not value:
            yield Problem((index,), "MSH0143", "the value is empty")
        elif value in values[:index]:
            yield Problem((index,), "MSH0151", f"{value} is already in the list")


def _check_outputs(rule: JWTRule) -> Iterator[Problem]:
    for index, output in enumerate(rule.output_claim_to_headers):
        path = ("outputClaimToHeaders", index)
        fault = header_name_fault(output.header)
        if fault:
            yield Problem((*path, "header"), "MSH0126", fault)
        elif output.header.lower() in _FRAMING:
            yield Problem(
                (*path, "header"), "MSH0126", f"{output.header} says where a request goes or ends; use another header"
            )
        if not output.claim:
            yield Problem((*path, "claim"), "MSH0143", "the claim is empty")
    header = rule.output_payload_to_header
    if header and (not _TOKEN.match(header) or header.lower() in _FRAMING):
        yield Problem(("outputPayloadToHeader",), "MSH0126", f"{header!r} is not a header that can hold the payload")
