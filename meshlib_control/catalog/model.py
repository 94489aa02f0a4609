"""Services and their instances, from whatever source.  Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal


@dataclass(frozen=True, slots=True)
class Port:
    """A port that callers name.  `target`: the port instances listen on, when it is one and the same; 0: each its own."""

    number: int
    protocol: str = "http"  # lower case: http, http2, grpc, https, tls, tcp ...
    name: str = ""
    target: int = 0


class InstanceHealth(Enum):
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Instance:
    """One process that serves a service."""

    id: str  # unique in its source
    address: str  # IP literal (a host name only for DNS services)
    port: int
    labels: Mapping[str, str] = field(default_factory=dict)
    locality: str = ""  # "region/zone/sub_zone"
    weight: int = 1
    health: InstanceHealth = InstanceHealth.HEALTHY
    service_account: str = ""
    mtls: bool = False  # its port speaks the mesh's mTLS
    ports: Mapping[str, int] = field(default_factory=dict)  # WorkloadEntry: port name -> number; overrides `port`


Resolution = Literal["STATIC", "DNS", "DNS_ROUND_ROBIN", "NONE"]


@dataclass(frozen=True, slots=True)
class Service:
    """A host name that is part of the mesh.

    `host` is fully qualified ("reviews.default.svc.cluster.local"); callers in `namespace` may use the short forms too.
    """

    host: str
    namespace: str
    ports: tuple[Port, ...]
    resolution: Resolution = "STATIC"
    location: Literal["MESH_INTERNAL", "MESH_EXTERNAL"] = "MESH_INTERNAL"
    export_to: tuple[str, ...] = ("*",)
    addresses: tuple[str, ...] = ()  # virtual IPs
    source: Literal["registry", "consul", "file", "config"] = "registry"
    created: int = 0  # for Istio's "oldest wins"


@dataclass(frozen=True, slots=True)
class CatalogSnapshot:
    """What one moment knows.  `instances` is keyed by host; a host without instances maps to an empty tuple."""

    services: Mapping[str, Service] = field(default_factory=dict)
    instances: Mapping[str, tuple[Instance, ...]] = field(default_factory=dict)
    # Hosts whose instances are being kept from before, since the source suddenly had none: why (shown by `meshctl status`).
    suspicious: Mapping[str, str] = field(default_factory=dict)
    revision: int = 0


def registered_host(service: str, namespace: str, domain: str = "cluster.local") -> str:
    """The fully qualified name of a service that was registered by its short name, as in Kubernetes."""
    return f"{service}.{namespace}.svc.{domain}".lower()
