"""What holds for the whole mesh, from the MeshConfig resource."""

from __future__ import annotations

from dataclasses import dataclass

from meshlib_control.compile.locality import LocalitySetting, locality_setting
from meshlib_control.config.kinds import HTTPRetry, MeshConfig, TcpKeepalive
from meshlib_control.config.kinds.extension_provider import ExtensionProvider, RegistrationGrant
from meshlib_control.config.model import ConfigSet

_BASE = {"DEFAULT": "BASE"}
_TLS_VERSIONS = {"TLSV1_2": "TLSv1_2", "TLSV1_3": "TLSv1_3"}


@dataclass(frozen=True, slots=True)
class MeshSettings:
    """Times in seconds."""

    domain: str = "cluster.local"
    root_namespace: str = "istio-system"
    allow_any: bool = True
    connect_timeout: float = 10.0
    tcp_keepalive: TcpKeepalive | None = None
    dns_refresh_rate: float = 60.0
    default_retry: HTTPRetry | None = None
    service_export_to: tuple[str, ...] = ("*",)
    virtual_service_export_to: tuple[str, ...] = ("*",)
    destination_rule_export_to: tuple[str, ...] = ("*",)
    trust_domain: str = ""  # empty: not said
    trust_domain_aliases: tuple[str, ...] = ()
    federated_roots: tuple[tuple[str, str], ...] = ()  # trust domain, PEM
    auto_mtls: bool = True
    path_normalization: str = "BASE"  # NONE, BASE, MERGE_SLASHES, DECODE_AND_MERGE_SLASHES
    trusted_proxies: int = 0  # in front of every workload
    minimum_tls_version: str = ""  # "TLSv1_2", "TLSv1_3"; empty: the data plane's default
    extension_providers: tuple[ExtensionProvider, ...] = ()
    registration_grants: tuple[RegistrationGrant, ...] = ()
    workloads_fetch_keys: bool = False
    tokens_expire: bool = False  # those without ``exp`` are refused
    locality: LocalitySetting = LocalitySetting()

    def may_register(self, namespace: str, service_account: str, service: str) -> bool:
        """Whether a service account may announce instances of a service (its short name) of its own namespace."""
        return service_account == service or any(
            grant.namespace == namespace
            and ("*" in grant.service_accounts or service_account in grant.service_accounts)
            and ("*" in grant.services or service in grant.services)
            for grant in self.registration_grants
        )


def mesh_settings(config: ConfigSet, domain: str) -> MeshSettings:
    """From the oldest MeshConfig; Istio's defaults when there is none."""
    for resource in config.of("MeshConfig"):
        mesh = resource.spec
        if isinstance(mesh, MeshConfig):
            return MeshSettings(
                domain=domain,
                root_namespace=mesh.root_namespace,
                allow_any=mesh.outbound_traffic_policy.mode == "ALLOW_ANY",
                connect_timeout=mesh.connect_timeout,
                tcp_keepalive=mesh.tcp_keepalive,
                dns_refresh_rate=mesh.dns_refresh_rate,
                default_retry=mesh.default_http_retry_policy,
                service_export_to=mesh.default_service_export_to,
                virtual_service_export_to=mesh.default_virtual_service_export_to,
                destination_rule_export_to=mesh.default_destination_rule_export_to,
                trust_domain=mesh.trust_domain or "",
                trust_domain_aliases=mesh.trust_domain_aliases,
                federated_roots=tuple((domain, root.pem) for root in mesh.ca_certificates for domain in root.trust_domains),
                auto_mtls=mesh.enable_auto_mtls,
                path_normalization=_BASE.get(mesh.path_normalization.normalization, mesh.path_normalization.normalization),
                trusted_proxies=mesh.default_config.gateway_topology.num_trusted_proxies,
                minimum_tls_version=_TLS_VERSIONS.get(mesh.mesh_mtls.min_protocol_version, ""),
                extension_providers=mesh.extension_providers,
                registration_grants=mesh.registration_grants,
                workloads_fetch_keys=mesh.tokens.jwks_fetch == "WORKLOAD",
                tokens_expire=mesh.tokens.require_expiration,
                locality=locality_setting(mesh.locality_lb_setting, mesh.zone_aware_lb_setting) or LocalitySetting(),
            )
    return MeshSettings(domain=domain)


def is_exported(export_to: tuple[str, ...], owner: str, namespace: str) -> bool:
    """Whether a resource of namespace `owner` is visible in `namespace`: ``.`` its own, ``*`` all, ``~`` none."""
    return "*" in export_to or namespace in export_to or ("." in export_to and owner == namespace)
