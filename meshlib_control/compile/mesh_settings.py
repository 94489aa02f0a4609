"""What holds for the whole mesh, from the MeshConfig resource."""

from __future__ import annotations

from dataclasses import dataclass

from meshlib_control.config.kinds import HTTPRetry, MeshConfig
from meshlib_control.config.model import ConfigSet


@dataclass(frozen=True, slots=True)
class MeshSettings:
    """Times in seconds."""

    domain: str = "cluster.local"
    root_namespace: str = "istio-system"
    allow_any: bool = True
    connect_timeout: float = 10.0
    default_retry: HTTPRetry | None = None
    service_export_to: tuple[str, ...] = ("*",)
    virtual_service_export_to: tuple[str, ...] = ("*",)
    destination_rule_export_to: tuple[str, ...] = ("*",)


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
                default_retry=mesh.default_http_retry_policy,
                service_export_to=mesh.default_service_export_to,
                virtual_service_export_to=mesh.default_virtual_service_export_to,
                destination_rule_export_to=mesh.default_destination_rule_export_to,
            )
    return MeshSettings(domain=domain)


def is_exported(export_to: tuple[str, ...], owner: str, namespace: str) -> bool:
    """Whether a resource of namespace `owner` is visible in `namespace`: ``.`` its own, ``*`` all, ``~`` none."""
    return "*" in export_to or namespace in export_to or ("." in export_to and owner == namespace)
