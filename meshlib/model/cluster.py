"""How to reach a service (CDS)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from meshlib.model.endpoint import OVERPROVISIONING, Endpoint
from meshlib.model.resilience import Resilience

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
    RING_HASH = "ring_hash"
    MAGLEV = "maglev"


@dataclass(frozen=True, slots=True)
class SlowStart:
    """How an endpoint that has just joined, or come back, gets its share (Envoy ``Cluster.SlowStartConfig``).  Seconds."""

    window: float
    aggression: float = 1.0
    min_weight_percent: float = 10.0


@dataclass(frozen=True, slots=True)
class ZoneAware:
    """Keep calls in the caller's zone as far as capacities allow (Envoy ``CommonLbConfig.ZoneAwareLbConfig``)."""

    routing_enabled: float = 100.0  # percent of calls that it holds for
    min_cluster_size: int = 6
    fail_traffic_on_panic: bool = False


@dataclass(frozen=True, slots=True)
class Balancing:
    """The settings of a cluster's balancer beside its policy.  Envoy's defaults.

    `panic_threshold`: below this percentage of available hosts, health is ignored; 0: never (Istio's default, which its
    compiler writes).  At most one of `locality_weighted` and `zone_aware`.
    """

    choice_count: int = 2  # LEAST_REQUEST: how many endpoints are drawn
    active_request_bias: float = 1.0  # LEAST_REQUEST with differing weights
    minimum_ring_size: int = 1024
    maximum_ring_size: int = 8 * 1024 * 1024
    table_size: int = 65_537  # MAGLEV; a prime
    hash_balance_factor: int = 0  # percent; 0: loads are not bounded
    hash_by_hostname: bool = False  # endpoints are placed by their host names rather than their addresses
    slow_start: SlowStart | None = None
    panic_threshold: float = 50.0
    locality_weighted: bool = False
    zone_aware: ZoneAware | None = None


@dataclass(frozen=True, slots=True)
class OutlierDetection:
    """When an endpoint is left out for a while (Envoy ``OutlierDetection``); seconds and percent, Envoy's defaults.

    `enforcing_*`: the share of detections that lead to an ejection.
    """

    consecutive_5xx: int = 5
    interval: float = 10.0
    base_ejection_time: float = 30.0
    max_ejection_percent: int = 10
    enforcing_consecutive_5xx: int = 100
    enforcing_success_rate: int = 100
    success_rate_minimum_hosts: int = 5
    success_rate_request_volume: int = 100
    success_rate_stdev_factor: int = 1900  # thousandths
    consecutive_gateway_failure: int = 5
    enforcing_consecutive_gateway_failure: int = 0
    split_external_local_origin_errors: bool = False
    consecutive_local_origin_failure: int = 5
    enforcing_consecutive_local_origin_failure: int = 100
    enforcing_local_origin_success_rate: int = 100
    failure_percentage_threshold: int = 85
    enforcing_failure_percentage: int = 0
    enforcing_failure_percentage_local_origin: int = 0
    failure_percentage_minimum_hosts: int = 5
    failure_percentage_request_volume: int = 50
    max_ejection_time: float = 300.0
    max_ejection_time_jitter: float = 0.0
    successful_active_health_check_uneject_host: bool = True
    always_eject_one_host: bool = False
    error_statuses: frozenset[int] = frozenset()  # count as errors in the place of all from 500; empty: those do


@dataclass(frozen=True, slots=True)
class HttpHealthCheck:
    """`statuses`: ranges [start, end) that are healthy; `headers`: added to each probe."""

    path: str
    host: str = ""  # empty: the cluster's host
    statuses: tuple[tuple[int, int], ...] = ((200, 201),)
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class TcpHealthCheck:
    """`send` nothing: a connection is enough; each of `receive` must come, in this order."""

    send: bytes = b""
    receive: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class GrpcHealthCheck:
    """``grpc.health.v1.Health/Check``."""

    service: str = ""
    authority: str = ""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How this process finds out whether an endpoint is healthy (Envoy ``core.v3.HealthCheck``).  Seconds."""

    check: HttpHealthCheck | TcpHealthCheck | GrpcHealthCheck
    timeout: float
    interval: float
    unhealthy_threshold: int
    healthy_threshold: int
    initial_jitter: float = 0.0
    interval_jitter: float = 0.0
    interval_jitter_percent: int = 0
    port: int = 0  # 0: the endpoint's own
    no_traffic_interval: float = 60.0  # while the cluster is not used
    no_traffic_healthy_interval: float = 0.0  # 0: no_traffic_interval
    unhealthy_interval: float = 0.0  # 0: interval
    unhealthy_edge_interval: float = 0.0  # 0: unhealthy_interval
    healthy_edge_interval: float = 0.0  # 0: interval


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
    balancing: Balancing = Balancing()
    outlier_detection: OutlierDetection | None = None
    health_checks: tuple[HealthCheck, ...] = ()
    connect_timeout: float = 10.0
    idle_timeout: float = 3600.0  # of a connection without a request; 0: off
    max_connection_duration: float = 0.0
    max_requests_per_connection: int = 0  # 0: unlimited; 1: no keep-alive
    circuit_breakers: CircuitBreakers = CircuitBreakers()
    tcp_keepalive: TcpKeepalive | None = None
    dns_refresh: float = 60.0
    endpoints: tuple[Endpoint, ...] = ()  # STATIC and DNS
    overprovisioning_factor: int = OVERPROVISIONING  # of these endpoints, percent
    host: str = ""  # the service's fully qualified name, from Istio's cluster metadata
    subset: str = ""
    port: int = 0
    tls: UpstreamTls | None = None
    # True: `tls` holds only for endpoints with `mtls` (Istio's auto mTLS, Envoy's transport_socket_matches); the others are
    # called in plaintext.  False: for all.
    auto_mtls: bool = False
    resilience: Resilience | None = None
