"""Extension providers of MeshConfig → Envoy's ext_authz filters (pilot/pkg/security/authz/builder/extauthz.go)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from meshlib.xds.proto import core_pb2, ext_authz_pb2
from meshlib_control.catalog.model import Service
from meshlib_control.compile.authz_matchers import metadata, string
from meshlib_control.compile.names import ClusterName
from meshlib_control.compile.retry_policy import duration
from meshlib_control.compile.world import World
from meshlib_control.config.kinds.extension_provider import (
    EnvoyExtAuthzGrpc,
    EnvoyExtAuthzHttp,
    ExtensionProvider,
    RequestBody,
)
from meshlib_control.config.validate.extension_providers import check_extension_provider

_TIMEOUT = 600.0  # as long as Istio's, which leaves it to the caller to set a shorter one


class BadProvider(Exception):
    """The provider cannot be asked; the message says why."""


@dataclass(frozen=True, slots=True)
class Condition:
    """When the authorizer is asked: the RBAC filter before it has matched a policy whose name starts with `prefix`."""

    filter: str  # whose metadata that is: "envoy.filters.http.rbac"
    key: str
    prefix: str

    def matcher(self) -> core_pb2.MetadataMatcher:
        matched = core_pb2.ValueMatcher(string_match=core_pb2.StringMatcher(prefix=self.prefix))
        return metadata(self.filter, (self.key,), matched)


def usable_provider(world: World, name: str) -> ExtensionProvider:
    """The provider of this name.  Raises `BadProvider` when there is none, or it cannot be asked."""
    found = [provider for provider in world.settings.extension_providers if provider.name == name]
    if not found:
        raise BadProvider(f"MeshConfig has no extension provider {name!r}")
    if len(found) > 1:
        raise BadProvider(f"MeshConfig has several extension providers {name!r}")
    faults = [problem.message for problem in check_extension_provider(found[0])]
    if faults:
        raise BadProvider(faults[0])
    authorizer_service(world, _authorizer(found[0]))
    return found[0]


def authorizer_service(world: World, authorizer: EnvoyExtAuthzHttp | EnvoyExtAuthzGrpc) -> Service:
    """The service that is asked.  Raises `BadProvider`."""
    namespace, _, host = authorizer.service.rpartition("/")
    found = [
        service for service in world.services.hosts.get(host.lower(), ()) if not namespace or service.namespace == namespace
    ]
    if not found:
        raise BadProvider(f"the catalog has no service {authorizer.service}")
    if len(found) > 1:
        owners = ", ".join(sorted(service.namespace for service in found))
        raise BadProvider(f"{host} is in the namespaces {owners}; write NAMESPACE/{host}")
    return found[0]


def http_filter(world: World, provider: ExtensionProvider, condition: Condition) -> ext_authz_pb2.ExtAuthz:
    """For requests.  `provider` is usable."""
    authorizer = _authorizer(provider)
    service = authorizer_service(world, authorizer)
    message = ext_authz_pb2.ExtAuthz(
        failure_mode_allow=authorizer.fail_open,
        transport_api_version=core_pb2.V3,
        filter_enabled_metadata=condition.matcher(),
        clear_route_cache=authorizer.clear_route_cache,
    )
    if authorizer.status_on_error:
        message.status_on_error.code = int(authorizer.status_on_error)  # type: ignore[assignment]  # an enum of all statuses
    if authorizer.include_request_body_in_check is not None:
        message.with_request_body.CopyFrom(_body(authorizer.include_request_body_in_check))
    if isinstance(authorizer, EnvoyExtAuthzGrpc):
        message.grpc_service.CopyFrom(_grpc_service(service, authorizer))
        return message
    message.http_service.CopyFrom(_http_service(service, authorizer))
    included = authorizer.include_request_headers_in_check or authorizer.include_headers_in_check
    if included:
        message.allowed_headers.CopyFrom(_headers(included))
    return message


def network_filter(world: World, provider: ExtensionProvider, condition: Condition) -> ext_authz_pb2.NetworkExtAuthz | None:
    """For connections.  None: the provider is asked over HTTP, which has only requests to ask about."""
    authorizer = provider.envoy_ext_authz_grpc
    if authorizer is None:
        return None
    return ext_authz_pb2.NetworkExtAuthz(
        stat_prefix="tcp.",
        grpc_service=_grpc_service(authorizer_service(world, authorizer), authorizer),
        failure_mode_allow=authorizer.fail_open,
        transport_api_version=core_pb2.V3,
        filter_enabled_metadata=condition.matcher(),
    )


def _authorizer(provider: ExtensionProvider) -> EnvoyExtAuthzHttp | EnvoyExtAuthzGrpc:
    authorizer = provider.envoy_ext_authz_http or provider.envoy_ext_authz_grpc
    if authorizer is None:
        raise BadProvider(f"the extension provider {provider.name} does not say how it is asked")
    return authorizer


def _cluster(service: Service, authorizer: EnvoyExtAuthzHttp | EnvoyExtAuthzGrpc) -> str:
    return str(ClusterName(authorizer.port, "", service.host))


def _grpc_service(service: Service, authorizer: EnvoyExtAuthzGrpc) -> core_pb2.GrpcService:
    # Without an authority Envoy would use the cluster's name, whose | no server accepts.
    target = core_pb2.GrpcService.EnvoyGrpc(cluster_name=_cluster(service, authorizer), authority=service.host)
    return core_pb2.GrpcService(envoy_grpc=target, timeout=duration(authorizer.timeout or _TIMEOUT))


def _http_service(service: Service, authorizer: EnvoyExtAuthzHttp) -> ext_authz_pb2.HttpService:
    message = ext_authz_pb2.HttpService(
        server_uri=core_pb2.HttpUri(
            uri=f"http://{service.host}",
            cluster=_cluster(service, authorizer),
            timeout=duration(authorizer.timeout or _TIMEOUT),
        ),
        path_prefix=authorizer.path_prefix,
    )
    if authorizer.include_additional_headers_in_check:
        added = sorted(authorizer.include_additional_headers_in_check.items())
        message.authorization_request.headers_to_add.extend(
            core_pb2.HeaderValue(key=name, value=value) for name, value in added
        )
    for patterns, field in (
        (authorizer.headers_to_upstream_on_allow, "allowed_upstream_headers"),
        (authorizer.headers_to_downstream_on_deny, "allowed_client_headers"),
        (authorizer.headers_to_downstream_on_allow, "allowed_client_headers_on_success"),
    ):
        if patterns:
            getattr(message.authorization_response, field).CopyFrom(_headers(patterns))
    return message


def _body(body: RequestBody) -> ext_authz_pb2.BufferSettings:
    return ext_authz_pb2.BufferSettings(
        max_request_bytes=body.max_request_bytes,
        allow_partial_message=body.allow_partial_message,
        pack_as_bytes=body.pack_as_bytes,
    )


def _headers(names: Iterable[str]) -> core_pb2.ListStringMatcher:
    return core_pb2.ListStringMatcher(patterns=[string(name, ignore_case=True) for name in names])
