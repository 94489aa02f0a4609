"""Extension providers of MeshConfig: the external authorizers that AuthorizationPolicies of action CUSTOM ask."""
# ruff: noqa: RUF012 - msgspec copies an empty default for every instance

from __future__ import annotations

from typing import ClassVar

from meshlib_control.config.kinds.common import Duration, Element, UInt32

Strings = tuple[str, ...]


class RequestBody(Element, frozen=True):
    """How much of a request's body the authorizer gets."""

    max_request_bytes: UInt32 = 0
    """Bytes; has to be given."""
    allow_partial_message: bool = False
    """Whether a longer body is cut; else the request is answered with 413."""
    pack_as_bytes: bool = False
    """gRPC: as bytes instead of as text."""


class EnvoyExtAuthzHttp(Element, frozen=True):
    """An authorizer that is asked with the request itself, over HTTP: 200 allows."""

    service: str
    """Its host, `opa.default.svc.cluster.local`, or `NAMESPACE/HOST`."""
    port: UInt32
    """Its port."""
    timeout: Duration | None = None
    """For the answer: 10 minutes unless given."""
    path_prefix: str = ""
    """Put before the path of the request."""
    fail_open: bool = False
    """Whether requests pass when it does not answer."""
    clear_route_cache: bool = False
    """Whether the route is chosen again after its answer."""
    status_on_error: str = ""
    """Status for requests when it does not answer: 403 unless given."""
    include_headers_in_check: Strings = ()
    """Superseded by `includeRequestHeadersInCheck`."""
    include_request_headers_in_check: Strings = ()
    """Headers of the request that it gets besides Host, Method, Path, Content-Length and Authorization."""
    include_additional_headers_in_check: dict[str, str] = {}
    """Further headers that it gets."""
    include_request_body_in_check: RequestBody | None = None
    """Whether it gets the body."""
    headers_to_upstream_on_allow: Strings = ()
    """Headers of its answer that the application gets when it allows."""
    headers_to_downstream_on_deny: Strings = ()
    """Headers of its answer that the client gets when it denies: all unless given."""
    headers_to_downstream_on_allow: Strings = ()
    """Headers of its answer that the client gets when it allows."""


class EnvoyExtAuthzGrpc(Element, frozen=True):
    """An authorizer that is asked over gRPC: `envoy.service.auth.v3.Authorization`."""

    service: str
    """Its host, `opa.default.svc.cluster.local`, or `NAMESPACE/HOST`."""
    port: UInt32
    """Its port."""
    timeout: Duration | None = None
    """For the answer: 10 minutes unless given."""
    fail_open: bool = False
    """Whether requests pass when it does not answer."""
    clear_route_cache: bool = False
    """Whether the route is chosen again after its answer."""
    status_on_error: str = ""
    """Status for requests when it does not answer: 403 unless given."""
    include_request_body_in_check: RequestBody | None = None
    """Whether it gets the body."""


class ExtensionProvider(Element, frozen=True):
    """Something outside that is asked: exactly one of the kinds."""

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("envoyExtAuthzHttp", "envoyExtAuthzGrpc"),)

    name: str
    """What policies call it; unique."""
    envoy_ext_authz_http: EnvoyExtAuthzHttp | None = None
    """An authorizer that is asked over HTTP."""
    envoy_ext_authz_grpc: EnvoyExtAuthzGrpc | None = None
    """An authorizer that is asked over gRPC."""


class RegistrationGrant(Element, frozen=True):
    """Who may announce instances of services, besides the service account that bears the service's name."""

    namespace: str
    """Namespace of the service accounts and of the services: nobody registers services of another namespace."""
    service_accounts: Strings
    """Service accounts, by name; `*` is any of the namespace."""
    services: Strings
    """Services, by their short names; `*` is any of the namespace."""
