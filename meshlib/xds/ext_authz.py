"""Envoy's ext_authz filter → model (Istio's action CUSTOM)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from meshlib.model.authorization import ExternalAuthorization
from meshlib.model.route import StringMatch
from meshlib.xds.fields import allow_only, seconds
from meshlib.xds.invalid import Problems
from meshlib.xds.matchers import decode_string_match
from meshlib.xds.proto import core_pb2, ext_authz_pb2
from meshlib.xds.rbac import MAX_PATTERN, decode_metadata_match

_FIELDS = frozenset(
    {
        "grpc_service",
        "http_service",
        "transport_api_version",
        "failure_mode_allow",
        "with_request_body",
        "clear_route_cache",  # not acted on: a request is routed before it comes here
        "status_on_error",
        "filter_enabled_metadata",
        "stat_prefix",  # of statistics that we do not keep
        "allowed_headers",
    }
)
_HTTP_FIELDS = frozenset({"server_uri", "path_prefix", "authorization_request", "authorization_response"})
_RESPONSE_FIELDS = frozenset({"allowed_upstream_headers", "allowed_client_headers", "allowed_client_headers_on_success"})
_GRPC_TIMEOUT: Final = 0.2
"""Seconds; Envoy's default."""
_HEADER_NAME: Final = re.compile(r"[0-9a-z!#$%&'*+.^_`|~-]+")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def decode_ext_authz(message: ext_authz_pb2.ExtAuthz, name: str, problems: Problems, *, field: str) -> ExternalAuthorization:
    """`name`: of the filter, for people."""
    allow_only(message, _FIELDS, field=field, problems=problems)
    if message.transport_api_version == core_pb2.V2:
        problems.add(f"{field}.transport_api_version", "V2", "V3")
    condition = None
    if message.HasField("filter_enabled_metadata"):
        where = f"{field}.filter_enabled_metadata"
        condition = decode_metadata_match(message.filter_enabled_metadata, problems, field=where)
    status = message.status_on_error.code or 403
    if not 400 <= status <= 599:
        problems.add(f"{field}.status_on_error.code", status, "a status of an error, 400 to 599")
    common: dict[str, Any] = {
        "name": name,
        "fail_open": message.failure_mode_allow,
        "status_on_error": status,
        "condition": condition,
        **_body_settings(message, problems, field=f"{field}.with_request_body"),
    }
    match message.WhichOneof("services"):
        case "grpc_service":
            service = _grpc(message.grpc_service, problems, field=f"{field}.grpc_service")
            allowed = _strings(message.allowed_headers, problems, field=f"{field}.allowed_headers")
            return ExternalAuthorization(**common, **service, allowed_headers=allowed)
        case "http_service":
            allowed = _strings(message.allowed_headers, problems, field=f"{field}.allowed_headers")
            return _http(message.http_service, common, allowed, problems, field=f"{field}.http_service")
        case _:
            problems.describe(field, "no service", "grpc_service or http_service")
            return ExternalAuthorization(**common, cluster="", authority="")


def _body_settings(message: ext_authz_pb2.ExtAuthz, problems: Problems, *, field: str) -> dict[str, Any]:
    if not message.HasField("with_request_body"):
        return {}
    body = message.with_request_body
    if not body.max_request_bytes:
        problems.add(f"{field}.max_request_bytes", 0, "at least 1")
    return {
        "max_request_bytes": body.max_request_bytes,
        "allow_partial_message": body.allow_partial_message,
        "pack_as_bytes": body.pack_as_bytes,
    }


def _grpc(service: core_pb2.GrpcService, problems: Problems, *, field: str) -> dict[str, Any]:
    cluster = service.envoy_grpc.cluster_name
    timeout = _GRPC_TIMEOUT
    if service.HasField("timeout"):
        timeout = seconds(service.timeout, field=f"{field}.timeout", problems=problems)
    return {
        "grpc": True,
        "cluster": cluster,
        "authority": _authority(cluster, problems, field=f"{field}.envoy_grpc.cluster_name"),
        "timeout": timeout,
        "headers_to_add": tuple((pair.key.lower(), pair.value) for pair in service.initial_metadata),
    }


def _http(
    service: ext_authz_pb2.HttpService,
    common: Mapping[str, Any],
    allowed: tuple[StringMatch, ...],
    problems: Problems,
    *,
    field: str,
) -> ExternalAuthorization:
    allow_only(service, _HTTP_FIELDS, field=field, problems=problems)
    response = service.authorization_response
    allow_only(response, _RESPONSE_FIELDS, field=f"{field}.authorization_response", problems=problems)
    uri = service.server_uri
    if urlsplit(uri.uri).scheme != "http":
        problems.add(f"{field}.server_uri.uri", uri.uri, "http://host: the mesh encrypts by itself")
    if not uri.HasField("timeout"):
        problems.describe(f"{field}.server_uri.timeout", "unset", "a duration")
    if service.path_prefix and not service.path_prefix.startswith("/"):
        problems.add(f"{field}.path_prefix", service.path_prefix, "a path")
    request = service.authorization_request
    sent = _strings(request.allowed_headers, problems, field=f"{field}.authorization_request.allowed_headers")

    def strings(name: str) -> tuple[StringMatch, ...]:
        return _strings(getattr(response, name), problems, field=f"{field}.authorization_response.{name}")

    return ExternalAuthorization(
        **common,
        cluster=uri.cluster,
        authority=_authority(uri.cluster, problems, field=f"{field}.server_uri.cluster"),
        path_prefix=service.path_prefix.rstrip("/"),
        timeout=seconds(uri.timeout, field=f"{field}.server_uri.timeout", problems=problems),
        allowed_headers=allowed + sent,
        headers_to_add=_pairs(request.headers_to_add, problems, field=f"{field}.authorization_request.headers_to_add"),
        upstream_headers=strings("allowed_upstream_headers"),
        client_headers=strings("allowed_client_headers"),
        client_headers_on_success=strings("allowed_client_headers_on_success"),
    )


def _authority(cluster: str, problems: Problems, *, field: str) -> str:
    """``outbound|9000||ext-authz.foo.svc.cluster.local`` is the target ``ext-authz.foo.svc.cluster.local:9000``."""
    direction, port, subset, host = [*cluster.split("|"), "", "", ""][:4]
    if direction != "outbound" or not port.isdigit() or not host or subset or cluster.count("|") != 3:
        problems.add(field, cluster, "a cluster of the mesh: outbound|PORT||HOST")
        return ""
    return f"{host.lower()}:{port}"


def _strings(matcher: core_pb2.ListStringMatcher, problems: Problems, *, field: str) -> tuple[StringMatch, ...]:
    """Of header names, which have no case."""
    found = (
        decode_string_match(item, problems, field=f"{field}.patterns[{index}]", longest=MAX_PATTERN)
        for index, item in enumerate(matcher.patterns)
    )
    return tuple(item if item.kind == "regex" else StringMatch(item.kind, item.value.lower()) for item in found)


def _pairs(pairs: Iterable[core_pb2.HeaderValue], problems: Problems, *, field: str) -> tuple[tuple[str, str], ...]:
    found = []
    for index, pair in enumerate(pairs):
        name = pair.key.lower()
        if _HEADER_NAME.fullmatch(name) is None or _HEADER_VALUE.fullmatch(pair.value) is None:
            problems.add(f"{field}[{index}]", pair.key, "a header name, and a value without control characters")
        found.append((name, pair.value))
    return tuple(found)
