"""RequestAuthentications of a workload → the ``jwt_authn`` filter, as Istio builds it (pilot/pkg/security/authn)."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from meshlib.xds.proto import jwt_pb2, listener_pb2
from meshlib.xds.types import pack
from meshlib_control.compile.names import ClusterName
from meshlib_control.compile.node import Scope
from meshlib_control.compile.retry_policy import duration
from meshlib_control.compile.world import World
from meshlib_control.config.authentication import keys_uri
from meshlib_control.config.jwks import VERIFIES_NOTHING, for_data_planes
from meshlib_control.config.kinds import JWTRule

JWT_AUTHN: Final = "envoy.filters.http.jwt_authn"

_PAYLOAD = "payload"
_WORDS = ("permission", "scope")  # claims that are lists of words whatever a rule says
_CACHE_DURATION = 300.0
_PORTS = {"http": 80, "https": 443}


def jwt_filters(world: World, scope: Scope) -> list[listener_pb2.HttpFilter]:
    """One filter, or none where nothing is said about tokens.  gRPC's own servers know no such filter."""
    rules = world.request_authentications.rules_of(scope.namespace, dict(scope.labels))
    if not rules or scope.flavour == "grpc":
        return []
    message = jwt_pb2.JwtAuthentication(bypass_cors_preflight=True)
    for index, rule in enumerate(rules):
        message.providers[_name(index)].CopyFrom(_provider(world, scope, rule))
    everything = message.rules.add()
    everything.match.prefix = "/"
    everything.requires.CopyFrom(_requirement(rules))
    result = listener_pb2.HttpFilter(name=JWT_AUTHN)
    result.typed_config.CopyFrom(pack(message))
    return [result]


def _name(index: int) -> str:
    return f"origins-{index}"


def _requirement(rules: tuple[JWTRule, ...]) -> jwt_pb2.JwtRequirement:
    """A token of any rule, or none at all; a bad one is refused even where none would do.

    With rules whose token is required, nothing else will do.
    """
    required = [index for index, rule in enumerate(rules) if rule.presence == "REQUIRED"]
    if required:
        return _any([_of(index) for index in required])
    optional = [_any([_of(index), _allow_missing()]) for index in range(len(rules))]
    if len(optional) == 1:
        return optional[0]
    nothing_wrong = jwt_pb2.JwtRequirement()
    nothing_wrong.requires_all.requirements.extend(optional)
    return _any([*(_of(index) for index in range(len(rules))), nothing_wrong])


def _of(index: int) -> jwt_pb2.JwtRequirement:
    return jwt_pb2.JwtRequirement(provider_name=_name(index))


def _allow_missing() -> jwt_pb2.JwtRequirement:
    result = jwt_pb2.JwtRequirement()
    result.allow_missing.SetInParent()
    return result


def _any(requirements: list[jwt_pb2.JwtRequirement]) -> jwt_pb2.JwtRequirement:
    if len(requirements) == 1:  # Envoy takes no group of one
        return requirements[0]
    result = jwt_pb2.JwtRequirement()
    result.requires_any.requirements.extend(requirements)
    return result


def _provider(world: World, scope: Scope, rule: JWTRule) -> jwt_pb2.JwtProvider:
    provider = jwt_pb2.JwtProvider(
        issuer=rule.issuer,
        audiences=rule.audiences,
        forward=rule.forward_original_token,
        forward_payload_header=rule.output_payload_to_header or "",
        payload_in_metadata=_PAYLOAD,
        from_params=rule.from_params,
        from_cookies=rule.from_cookies,
        require_expiration=world.settings.tokens_expire,
    )
    words = provider.normalize_payload_in_metadata.space_delimited_claims
    words.extend(dict.fromkeys((*_WORDS, *rule.space_delimited_claims)))
    for header in rule.from_headers:
        provider.from_headers.add(name=header.name, value_prefix=header.prefix or "")
    for output in rule.output_claim_to_headers:
        provider.claim_to_headers.add(header_name=output.header, claim_name=output.claim)
    _set_keys(world, scope, rule, provider)
    return provider


def _set_keys(world: World, scope: Scope, rule: JWTRule, provider: jwt_pb2.JwtProvider) -> None:
    """Keys that cannot be had verify nothing: no key that anybody could know stands in for them (CVE-2026-31837)."""
    if rule.jwks:
        provider.local_jwks.inline_string = for_data_planes(rule.jwks)
        return
    address = rule.jwks_uri or rule.jwks_uri_snake or ""
    if world.settings.workloads_fetch_keys and address and _is_reachable(world, scope, address):
        remote = provider.remote_jwks
        remote.http_uri.uri = address
        remote.http_uri.cluster = _cluster(address)
        remote.http_uri.timeout.CopyFrom(duration(rule.timeout))
        remote.cache_duration.CopyFrom(duration(_CACHE_DURATION))
        return
    provider.local_jwks.inline_string = for_data_planes(world.jwks.get(keys_uri(rule), VERIFIES_NOTHING))


def _is_reachable(world: World, scope: Scope, address: str) -> bool:
    """Workloads of meshlib call any address; Envoy needs a cluster, hence a service that the mesh knows."""
    if scope.flavour == "meshlib":
        return True
    host, port = _target(address)
    service = world.services.find(host, scope.namespace)
    return service is not None and any(item.number == port for item in service.ports)


def _cluster(address: str) -> str:
    host, port = _target(address)
    return str(ClusterName(port, "", host))


def _target(address: str) -> tuple[str, int]:
    parts = urlsplit(address)
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 443)
