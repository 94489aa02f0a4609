"""Where a request can be sent to (EDS)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


@dataclass(frozen=True, slots=True)
class Locality:
    """Envoy ``config.core.v3.Locality``; empty strings are unknown."""

    region: str = ""
    zone: str = ""
    sub_zone: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.region, self.zone, self.sub_zone) if part)

    @classmethod
    def parse(cls, text: str) -> Locality:
        """``region/zone/sub_zone``, the notation of Istio's ``locality`` fields; missing parts are empty."""
        region, zone, sub_zone, *_ = [*text.split("/", 2), "", "", ""]
        return cls(region, zone, sub_zone)


class Health(Enum):
    """Envoy ``config.core.v3.HealthStatus``, reduced to what a balancer does with it."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"  # used when there is nothing better
    UNHEALTHY = "unhealthy"  # unhealthy, timed out: not used
    DRAINING = "draining"  # not used for new requests


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address that serves a cluster."""

    address: str  # IP literal, or a host name in DNS clusters
    port: int
    weight: int = 1
    locality: Locality = Locality()
    priority: int = 0  # 0 first
    health: Health = Health.HEALTHY
    hostname: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    mtls: bool = False  # speaks the mesh's mTLS (Istio's label security.istio.io/tlsMode=istio)
    locality_weight: int = 0  # of all its locality's endpoints together, in their priority; 0: none was given
    hash_key: str = ""  # what consistent hashing places it by; empty: its address and port
    key: str = field(init=False, compare=False)  # "10.0.0.7:9080", "[::1]:9080"

    def __post_init__(self) -> None:
        host = f"[{self.address}]" if ":" in self.address else self.address
        object.__setattr__(self, "key", f"{host}:{self.port}")

    def __str__(self) -> str:
        return self.key


OVERPROVISIONING = 140
"""Envoy's default: hosts can take 140 % of their share."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """All endpoints of a cluster.  `overprovisioning_factor` in percent: how much more than their share they can take."""

    endpoints: tuple[Endpoint, ...] = ()
    overprovisioning_factor: int = OVERPROVISIONING
