"""Envoy's ``jwt_authn`` filter → model.  What is not understood is refused: leaving it out would let requests in."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from meshlib.model.authentication import (
    AllowMissing,
    AllowMissingOrFailed,
    AllRequirements,
    AnyRequirement,
    JwtAuthentication,
    JwtProvider,
    Provider,
    Requirement,
)
from meshlib.xds.fields import allow_only, seconds
from meshlib.xds.invalid import Problems
from meshlib.xds.proto import core_pb2, jwt_pb2, route_pb2

MAX_PROVIDERS: Final = 256
MAX_REQUIREMENTS: Final = 2048
"""Of one filter, at all depths.  Istio makes four of each provider."""

_MAX_DEPTH = 8
_CLOCK_SKEW = 60  # Envoy's defaults, in seconds
_CACHE_DURATION = 600.0
_FETCH_TIMEOUT = 5.0

_FIELDS = frozenset({"providers", "rules", "bypass_cors_preflight"})
_PROVIDER_FIELDS = frozenset(
    {
        "issuer",
        "audiences",
        "require_expiration",
        "remote_jwks",
        "local_jwks",
        "forward",
        "from_headers",
        "from_params",
        "from_cookies",
        "forward_payload_header",
        "pad_forward_payload_header",
        "payload_in_metadata",
        "normalize_payload_in_metadata",
        "clock_skew_seconds",
        "claim_to_headers",
    }
)
_REMOTE_FIELDS = frozenset(
    {
        "http_uri",
        "cache_duration",
        "async_fetch",  # keys are always fetched in the background here
    }
)
_URI_FIELDS = frozenset(
    {
        "uri",
        "timeout",
        "cluster",  # not acted on: the address is called as it is written
    }
)
_WHOLE_PATHS = frozenset({"", "/"})


def decode_jwt(message: jwt_pb2.JwtAuthentication, name: str, problems: Problems, *, field: str) -> JwtAuthentication:
    """`name`: of the filter; `field`: where in the resource the message is."""
    allow_only(message, _FIELDS, field=field, problems=problems)
    if len(message.providers) > MAX_PROVIDERS:
        problems.describe(f"{field}.providers", f"{len(message.providers)} of them", f"at most {MAX_PROVIDERS}")
    providers = {
        key: _provider(key, message.providers[key], problems, field=f"{field}.providers[{key!r}]")
        for key in sorted(message.providers)
    }
    return JwtAuthentication(
        name=name,
        providers=providers,
        requirement=_Requirements(frozenset(providers), problems).of_rules(message, field=f"{field}.rules"),
        bypass_cors_preflight=message.bypass_cors_preflight,
    )


def _provider(name: str, provider: jwt_pb2.JwtProvider, problems: Problems, *, field: str) -> JwtProvider:
    allow_only(provider, _PROVIDER_FIELDS, field=field, problems=problems)
    jwks, uri, timeout, refresh = _keys(provider, problems, field=field)
    for index, header in enumerate(provider.from_headers):
        _check_header(header.name, problems, field=f"{field}.from_headers[{index}].name")
    for index, claim in enumerate(provider.claim_to_headers):
        where = f"{field}.claim_to_headers[{index}]"
        _check_header(claim.header_name, problems, field=f"{where}.header_name")
        if not claim.claim_name:
            problems.add(f"{where}.claim_name", "", "a claim")
    if provider.forward_payload_header:
        _check_header(provider.forward_payload_header, problems, field=f"{field}.forward_payload_header")
    for kind, names in (("from_params", provider.from_params), ("from_cookies", provider.from_cookies)):
        if not all(names):
            problems.add(f"{field}.{kind}", "", "names")
    return JwtProvider(
        name=name,
        issuer=provider.issuer,
        audiences=tuple(provider.audiences),
        jwks=jwks,
        jwks_uri=uri,
        jwks_timeout=timeout,
        jwks_refresh=refresh,
        from_headers=tuple((header.name.lower(), header.value_prefix) for header in provider.from_headers),
        from_params=tuple(provider.from_params),
        from_cookies=tuple(provider.from_cookies),
        forward=provider.forward,
        payload_header=provider.forward_payload_header.lower(),
        pad_payload_header=provider.pad_forward_payload_header,
        claim_headers=tuple((claim.header_name.lower(), claim.claim_name) for claim in provider.claim_to_headers),
        clock_skew=float(provider.clock_skew_seconds or _CLOCK_SKEW),
        space_delimited_claims=tuple(provider.normalize_payload_in_metadata.space_delimited_claims),
        payload_in_metadata=provider.payload_in_metadata,
        require_expiration=provider.require_expiration,
    )


def _check_header(name: str, problems: Problems, *, field: str) -> None:
    if not name or not name.isascii() or not all(char.isalnum() or char in "!#$%&'*+-.^_`|~" for char in name):
        problems.add(field, name, "the name of a header")


def _keys(provider: jwt_pb2.JwtProvider, problems: Problems, *, field: str) -> tuple[str, str, float, float]:
    """Document, address, timeout and refresh interval.  An empty document is one that verifies nothing."""
    match provider.WhichOneof("jwks_source_specifier"):
        case "local_jwks":
            document = _document(provider.local_jwks, problems, field=f"{field}.local_jwks")
            return document, "", _FETCH_TIMEOUT, _CACHE_DURATION
        case "remote_jwks":
            return "", *_remote(provider.remote_jwks, problems, field=f"{field}.remote_jwks")
        case _:
            problems.describe(field, "no jwks_source_specifier", "remote_jwks or local_jwks")
            return "", "", _FETCH_TIMEOUT, _CACHE_DURATION


def _document(source: core_pb2.DataSource, problems: Problems, *, field: str) -> str:
    match source.WhichOneof("specifier"):
        case "inline_string":
            return source.inline_string
        case "inline_bytes":
            return source.inline_bytes.decode("utf-8", "replace")
        case other:
            problems.describe(field, other or "no specifier", "inline_string or inline_bytes")
            return ""


def _remote(remote: jwt_pb2.RemoteJwks, problems: Problems, *, field: str) -> tuple[str, float, float]:
    allow_only(remote, _REMOTE_FIELDS, field=field, problems=problems)
    where = f"{field}.http_uri"
    allow_only(remote.http_uri, _URI_FIELDS, field=where, problems=problems)
    uri = remote.http_uri.uri
    if not _is_http(uri):
        problems.add(f"{where}.uri", uri, "an address that starts with https:// or http:// and names a host")
    timeout, refresh = _FETCH_TIMEOUT, _CACHE_DURATION
    if remote.http_uri.HasField("timeout"):
        timeout = seconds(remote.http_uri.timeout, field=f"{where}.timeout", problems=problems) or _FETCH_TIMEOUT
    if remote.HasField("cache_duration"):
        refresh = seconds(remote.cache_duration, field=f"{field}.cache_duration", problems=problems) or _CACHE_DURATION
    return uri, timeout, refresh


def _is_http(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


class _Requirements:
    """Reads the tree of requirements of one filter."""

    def __init__(self, providers: frozenset[str], problems: Problems) -> None:
        self._providers = providers
        self._problems = problems
        self._count = 0

    def of_rules(self, message: jwt_pb2.JwtAuthentication, *, field: str) -> Requirement | None:
        """One rule for all requests; none: nothing is asked for."""
        if not message.rules:
            return None
        if len(message.rules) > 1:
            self._problems.describe(field, f"{len(message.rules)} rules", "one rule for all requests")
        rule, where = message.rules[0], f"{field}[0]"
        self._check_match(rule.match, field=f"{where}.match")
        if not rule.HasField("requires"):
            self._problems.describe(where, "no requires", "requires")
            return None
        return self._one(rule.requires, field=f"{where}.requires", depth=0)

    def _check_match(self, match: route_pb2.RouteMatch, *, field: str) -> None:
        allow_only(match, frozenset({"prefix"}), field=field, problems=self._problems)
        if match.WhichOneof("path_specifier") != "prefix" or match.prefix not in _WHOLE_PATHS:
            self._problems.describe(field, "some requests", 'prefix "/": a rule for all requests')

    def _one(self, wanted: jwt_pb2.JwtRequirement, *, field: str, depth: int) -> Requirement:
        self._count += 1
        if self._count > MAX_REQUIREMENTS or depth > _MAX_DEPTH:
            self._problems.describe(field, "too many", f"at most {MAX_REQUIREMENTS} requirements, {_MAX_DEPTH} deep")
            return AllRequirements(())
        match wanted.WhichOneof("requires_type"):
            case "provider_name":
                return self._provider(wanted.provider_name, None, field=f"{field}.provider_name")
            case "provider_and_audiences":
                both, where = wanted.provider_and_audiences, f"{field}.provider_and_audiences"
                return self._provider(both.provider_name, tuple(both.audiences), field=f"{where}.provider_name")
            case "requires_any":
                where = f"{field}.requires_any.requirements"
                return AnyRequirement(self._several(wanted.requires_any.requirements, field=where, depth=depth))
            case "requires_all":
                where = f"{field}.requires_all.requirements"
                return AllRequirements(self._several(wanted.requires_all.requirements, field=where, depth=depth))
            case "allow_missing":
                return AllowMissing()
            case "allow_missing_or_failed":
                return AllowMissingOrFailed()
            case _:
                self._problems.describe(field, "no requires_type", "a requirement")
                return AllRequirements(())

    def _several(self, wanted: Collection[jwt_pb2.JwtRequirement], *, field: str, depth: int) -> tuple[Requirement, ...]:
        if len(wanted) < 2:  # Envoy's rule; of nothing, everything would hold
            self._problems.describe(field, f"{len(wanted)} of them", "at least two")
        return tuple(self._one(item, field=f"{field}[{index}]", depth=depth + 1) for index, item in enumerate(wanted))

    def _provider(self, name: str, audiences: tuple[str, ...] | None, *, field: str) -> Provider:
        if name not in self._providers:
            self._problems.add(field, name, "the name of one of the providers")
        return Provider(name, audiences)
