"""MeshConfig: what holds for the whole mesh.  Istio's field names, as a resource of our own."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from meshlib_control.config.kinds.common import Duration, Element
from meshlib_control.config.kinds.destination_rule import LocalityLbSetting, TcpKeepalive, ZoneAwareLbSetting
from meshlib_control.config.kinds.extension_provider import ExtensionProvider, RegistrationGrant
from meshlib_control.config.kinds.virtual_service import HTTPRetry


class OutboundTrafficPolicy(Element, frozen=True):
    """Calls to hosts that are not part of the mesh."""

    mode: Literal["ALLOW_ANY", "REGISTRY_ONLY"] = "ALLOW_ANY"
    """`ALLOW_ANY`: the application's own client makes the call; `REGISTRY_ONLY`: it is refused."""


class ProxyPathNormalization(Element, frozen=True):
    """The one form of a path that routes, policies and the application see."""

    normalization: Literal["DEFAULT", "NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"] = "DEFAULT"
    """`BASE`, the default: dot segments are resolved, `\\` is `/`; `MERGE_SLASHES`: `//` is `/` too;
    `DECODE_AND_MERGE_SLASHES`: `%2F` and `%5C` are decoded before; `NONE`: paths stay as they come."""


class Topology(Element, frozen=True):
    """What stands in front of the mesh."""

    num_trusted_proxies: Annotated[int, Meta(ge=0, le=16)] = 0
    """Proxies between clients and workloads that append to `x-forwarded-for`: `remoteIpBlocks` look at the address that the
    first of them wrote. With none, the other end of the connection is the client, whatever headers say."""


class ProxyConfig(Element, frozen=True):
    """Of all data planes; Istio has much more here, for Envoy."""

    gateway_topology: Topology = Topology()
    """What stands in front of the mesh."""


class MeshTLS(Element, frozen=True):
    """Connections within the mesh."""

    min_protocol_version: Literal["TLS_AUTO", "TLSV1_2", "TLSV1_3"] = field(name="minProtocolVersion", default="TLS_AUTO")
    """Lowest version that servers accept: `TLSV1_2` unless given."""


class CertificateAuthority(Element, frozen=True):
    """Roots of another trust domain, so that its workloads are believed (federation), or further ones of the own."""

    pem: Annotated[str, Meta(max_length=1_048_576)]
    """Certificates in PEM. Never a private key."""
    trust_domains: Annotated[tuple[str, ...], Meta(max_length=64)]
    """The trust domains that they sign for. A workload is verified with the roots of its own trust domain only."""


class TokenSettings(Element, frozen=True):
    """How workloads verify tokens (RequestAuthentication)."""

    jwks_fetch: Literal["CONTROL", "WORKLOAD"] = "CONTROL"
    """Who fetches the keys of a `jwksUri`. `CONTROL`: the control service, which hands them out: workloads need no way to the
    issuer. `WORKLOAD`: each workload by itself, where it can: the control service needs no way to the issuer."""
    require_expiration: bool = False
    """Refuse tokens without `exp`. Without this they never expire, as in Istio."""


class MeshConfig(Element, frozen=True):
    """What holds for the whole mesh. There is one, named `mesh`."""

    outbound_traffic_policy: OutboundTrafficPolicy = OutboundTrafficPolicy()
    """Calls to hosts that are not part of the mesh."""
    root_namespace: str = "istio-system"
    """Resources in this namespace hold for all others."""
    default_http_retry_policy: HTTPRetry | None = None
    """For routes without `retries`. Unless given: 2 attempts on
    `connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes`."""
    default_virtual_service_export_to: tuple[str, ...] = ("*",)
    """`exportTo` of VirtualServices that have none."""
    default_destination_rule_export_to: tuple[str, ...] = ("*",)
    """`exportTo` of DestinationRules that have none."""
    default_service_export_to: tuple[str, ...] = ("*",)
    """`exportTo` of services and ServiceEntries that have none."""
    connect_timeout: Duration = 10.0
    """Time to open a connection where no DestinationRule says otherwise."""
    tcp_keepalive: TcpKeepalive | None = None
    """Keepalive of idle connections where no DestinationRule says otherwise: off unless given."""
    dns_refresh_rate: Duration = 60.0
    """How often names are resolved anew that have no time to live, or could not be resolved."""
    trust_domain: str | None = None
    """First part of every identity, `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`: `cluster.local` unless given. A running
    control service has it from its certificate authority."""
    trust_domain_aliases: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
    """Other names of the same trust domain: what policies say of one of them holds for all."""
    enable_auto_mtls: bool = True
    """Where no DestinationRule says otherwise, calls are encrypted with mTLS to every instance that speaks it."""
    path_normalization: ProxyPathNormalization = ProxyPathNormalization()
    """The one form of a path that routes, policies and the application see."""
    default_config: ProxyConfig = ProxyConfig()
    """Of all data planes."""
    mesh_mtls: MeshTLS = field(name="meshMTLS", default=MeshTLS())
    """Connections within the mesh."""
    ca_certificates: Annotated[tuple[CertificateAuthority, ...], Meta(max_length=64)] = ()
    """Roots of other trust domains that are believed."""
    extension_providers: Annotated[tuple[ExtensionProvider, ...], Meta(max_length=1000)] = ()
    """Who can be asked by policies of action CUSTOM."""
    registration_grants: Annotated[tuple[RegistrationGrant, ...], Meta(max_length=1000)] = ()
    """Who may announce instances of services. Without any: only the service account that bears the service's name."""
    tokens: TokenSettings = TokenSettings()
    """How workloads verify tokens."""
    locality_lb_setting: LocalityLbSetting | None = None
    """Preference by locality where no DestinationRule says otherwise. Unless given it is on: hosts with `outlierDetection` are
    called in the caller's own sub-zone, zone and region before others."""
    zone_aware_lb_setting: ZoneAwareLbSetting | None = None
    """Preference for the caller's zone where no DestinationRule says otherwise; instead of `localityLbSetting`."""
