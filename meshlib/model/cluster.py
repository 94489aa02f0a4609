"""How to reach a service (CDS)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from meshlib.model.endpoint import Endpoint

UNLIMITED = 2**32 - 1
"""Istio writes this where Envoy's own default of 1024 (or 3 retries) would be."""


class Discovery(Enum):
    """Where a cluster's endpoints come from."""

    EDS = "eds"
    STATIC = "static"  # listed in the cluster itself
    DNS = "dns"  # STRICT_DNS and LOGICAL_DNS: the host names of the listed endpoints are resolved here
    PASSTHROUGH = "passthrough"  # ORIGINAL_DST: wherever the caller wanted to go, by the caller's own transport


class LbPolicy(Enum):
    """How an endpoint is chosen."""

    LEAST_REQUEST = "least_request"
    ROUND_ROBIN = "round_robin"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class CircuitBreakers:
    """Limits of one process towards one cluster (Envoy ``CircuitBreakers.Thresholds``, priority DEFAULT).

    The retry budget is always on: without one in the configuration its defaults hold.
    """

    max_connections: int = UNLIMITED
    max_pending_requests: int = UNLIMITED
    max_requests: int = UNLIMITED
    max_retries: int = UNLIMITED
    retry_budget_percent: float = 20.0
    min_retry_concurrency: int = 3


@dataclass(frozen=True, slots=True)
class TcpKeepalive:
    """Seconds and counts; 0 leaves the system's default."""

    probes: int = 0
    time: float = 0.0
    interval: float = 0.0


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """How connections to a cluster are encrypted, and who may be at the other end (Envoy ``UpstreamTlsContext``).

    `mesh`: with this process's own SVID, and the peer's is verified by all SPIFFE rules; it must be one of `identities`
    (SPIFFE IDs; empty: any identity of a trusted domain).  Otherwise plain TLS to a host outside (modes SIMPLE and MUTUAL):
    `dns_names` or the `sni` must be in the certificate, which `ca_file` (empty: the system's roots) vouches for.
    """

    mesh: bool = True
    identities: frozenset[str] = frozenset()
    sni: str = ""
    dns_names: tuple[str, ...] = ()
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    verify: bool = True  # False: DestinationRule insecureSkipVerify
    minimum_version: str = ""  # "TLSv1_2", "TLSv1_3"; empty: the runtime's default


@dataclass(frozen=True, slots=True)
class Cluster:
    """One named upstream.  Times are seconds; 0 means none unless said otherwise."""

    name: str  # "outbound|80|v1|reviews.default.svc.cluster.local"
    discovery: Discovery = Discovery.EDS
    eds_name: str = ""  # resource to ask EDS for; empty: the cluster's own name
    lb_policy: LbPolicy = LbPolicy.LEAST_REQUEST
    choice_count: int = 2  # LEAST_REQUEST: how many endpoints are drawn
    connect_timeout: float = 10.0
    idle_timeout: float = 3600.0  # of a connection without a request; 0: off
    max_connection_duration: float = 0.0
    max_requests_per_connection: int = 0  # 0: unlimited; 1: no keep-alive
    circuit_breakers: CircuitBreakers = CircuitBreakers()
    tcp_keepalive: TcpKeepalive | None = None
    dns_refresh: float = 60.0
    endpoints: tuple[Endpoint, ...] = ()  # STATIC and DNS
    host: str = ""  # the service's fully qualified name, from Istio's cluster metadata
    subset: str = ""
    port: int = 0
    tls: UpstreamTls | None = None
    # True: `tls` holds only for endpoints with `mtls` (Istio's auto mTLS, Envoy's transport_socket_matches); the others are
    # called in plaintext.  False: for all.
    auto_mtls: bool = False
