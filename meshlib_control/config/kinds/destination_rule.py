"""DestinationRule: how to call a host, and which subsets it has."""
# ruff: noqa: RUF012 - msgspec copies an empty default for every instance

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, field

from meshlib_control.config.kinds.common import Duration, DurationOrZero, Element, Int32, PortSelector, UInt32, UInt64

PercentDouble = Annotated[float, Meta(ge=0, le=100)]
PositiveUInt32 = Annotated[int, Meta(ge=1, le=4_294_967_295)]
NonNegativeDouble = Annotated[float, Meta(ge=0)]
LabelValue = Annotated[str, Meta(max_length=63)]
HTTPErrorCode = Annotated[int, Meta(ge=100, le=599)]


class CookieAttribute(Element, frozen=True):
    """A further attribute of a generated cookie."""

    name: str
    """Its name, such as `SameSite` or `Secure`."""
    value: str | None = None
    """Its value; none for a name alone."""


class HTTPCookie(Element, frozen=True):
    """A cookie that is hashed."""

    name: str
    """Its name."""
    path: str | None = None
    """Path of a generated cookie."""
    ttl: DurationOrZero | None = None
    """Life of a generated cookie; `0s`: as long as the session. Unless given, none is generated."""
    attributes: tuple[CookieAttribute, ...] = ()
    """Further attributes of a generated cookie, which is `HttpOnly` in any case."""


class RingHash(Element, frozen=True):
    """The ketama ring."""

    minimum_ring_size: UInt64 | None = None
    """Smallest number of points: 1024 unless given."""


class MagLev(Element, frozen=True):
    """The Maglev table."""

    table_size: UInt64 | None = None
    """Number of entries, a prime such as 65537."""


class ConsistentHash(Element, frozen=True):
    """Requests with the same key go to the same endpoint, the one that Envoy would choose. Those without are spread."""

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"),
        ("ringHash", "maglev"),
    )

    http_header_name: str | None = None
    """Hash a header, all of its values."""
    http_cookie: HTTPCookie | None = None
    """Hash a cookie."""
    use_source_ip: bool | None = None
    """Hash the caller's address, which a process has one of."""
    http_query_parameter_name: str | None = None
    """Hash a query parameter."""
    ring_hash: RingHash | None = None
    """By a ketama ring, the default."""
    maglev: MagLev | None = None
    """By a Maglev table."""
    minimum_ring_size: UInt64 | None = None
    """Superseded by `ringHash`."""


class LocalityDistribute(Element, frozen=True):
    """How traffic of one locality is spread."""

    from_: str | None = field(name="from", default=None)
    """Locality of the caller, `region/zone/subzone`; the end may be left out or be `*`."""
    to: dict[str, UInt32] = {}
    """Locality to weight, 100 together; endpoints elsewhere get nothing."""


class LocalityFailover(Element, frozen=True):
    """Where traffic of one region goes when it fails."""

    from_: str | None = field(name="from", default=None)
    """Region that fails."""
    to: str | None = None
    """Region that takes over."""


class LocalityLbSetting(Element, frozen=True):
    """Preference by locality."""

    distribute: tuple[LocalityDistribute, ...] = ()
    """Explicit weights, instead of an order; the first that covers the caller holds."""
    failover: tuple[LocalityFailover, ...] = ()
    """Where calls go after the caller's own region: any other unless given. Needs `outlierDetection`."""
    failover_priority: tuple[str, ...] = ()
    """Labels that decide the order, the first one most: endpoints with the caller's value come first, or with that of
    `key=value`. `topology.kubernetes.io/region`, `topology.kubernetes.io/zone` and `topology.istio.io/subzone` are parts of the
    locality. Needs `outlierDetection`."""
    enabled: bool | None = None
    """Off when false. With `outlierDetection` the caller's sub-zone, zone and region come first unless something else is
    given."""


class ZoneAwareLbSetting(Element, frozen=True):
    """Preference for the caller's zone, as far as its endpoints have room."""

    enabled: bool | None = None
    """Off when false."""
    failover: tuple[LocalityFailover, ...] = ()
    """Where calls go after the caller's own region: any other unless given."""
    failover_priority: tuple[str, ...] = ()
    """Labels that decide the order, as in `localityLbSetting`."""
    min_cluster_size: PositiveUInt32 | None = None
    """Fewer healthy endpoints in the caller's region than this switch it off: 6 unless given."""


class BackendUtilization(Element, frozen=True):
    """Weights from the load that endpoints report."""

    metric_names_for_computing_utilization: tuple[str, ...] = ()
    """Which reported metrics count."""
    error_utilization_penalty_percent: UInt32 | None = None
    """How much errors count."""
    weight_update_period: DurationOrZero | None = None
    """How often weights are computed."""
    weight_expiration_period: DurationOrZero | None = None
    """How long a report counts."""
    weight_stabilization_period: DurationOrZero | None = None
    """How long reports are needed before they count."""


class Warmup(Element, frozen=True):
    """Slow start of new endpoints."""

    duration: Duration
    """How long it lasts."""
    minimum_percent: PercentDouble | None = None
    """Share at the start, in percent of the full one: 10 unless given."""
    aggression: NonNegativeDouble | None = None
    """Shape of the rise: 1, the default, is even; more rises faster at first."""


LbSimple = Literal["UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"]


class LoadBalancer(Element, frozen=True):
    """How an endpoint is chosen."""

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("simple", "consistentHash", "backendUtilization"),)

    simple: LbSimple | None = None
    """`LEAST_REQUEST` (the default, also for `UNSPECIFIED` and the old name `LEAST_CONN`), `ROUND_ROBIN` or `RANDOM`;
    `PASSTHROUGH`: the caller's own client makes the connection, wherever it wants to."""
    consistent_hash: ConsistentHash | None = None
    """By a key of the request."""
    backend_utilization: BackendUtilization | None = None
    """By the load that endpoints report."""
    locality_lb_setting: LocalityLbSetting | None = None
    """Preference by locality."""
    zone_aware_lb_setting: ZoneAwareLbSetting | None = None
    """Preference for the caller's zone."""
    warmup_duration_secs: Duration | None = None
    """Superseded by `warmup`."""
    warmup: Warmup | None = None
    """Slow start of new endpoints, with `ROUND_ROBIN` and `LEAST_REQUEST`."""


class TcpKeepalive(Element, frozen=True):
    """Probes of idle connections (SO_KEEPALIVE)."""

    probes: UInt32 | None = None
    """Unanswered probes before the connection is dead; the system's default unless given."""
    time: Duration | None = None
    """Idle time before the first probe; the system's default unless given."""
    interval: Duration | None = None
    """Time between probes; the system's default unless given."""


class TCPSettings(Element, frozen=True):
    """Limits of connections, of one process to one host."""

    max_connections: Int32 | None = None
    """Connections at the same time: 2^32-1 unless given."""
    connect_timeout: Duration | None = None
    """Time to open a connection: the mesh's `connectTimeout`, 10s, unless given."""
    tcp_keepalive: TcpKeepalive | None = None
    """Probes of idle connections."""
    max_connection_duration: Duration | None = None
    """Life of a connection; unlimited unless given."""
    idle_timeout: DurationOrZero | None = None
    """Life of a connection without requests where `http.idleTimeout` is not given; 0s: for ever."""


class HTTP2Keepalive(Element, frozen=True):
    """PING frames on idle HTTP/2 connections."""

    interval: Duration | None = None
    """Time between PINGs."""
    timeout: Duration | None = None
    """Time to wait for the answer."""


class HTTPSettings(Element, frozen=True):
    """Limits of requests, of one process to one host."""

    http1_max_pending_requests: Int32 | None = field(name="http1MaxPendingRequests", default=None)
    """Requests that wait for a connection: 2^32-1 unless given."""
    http2_max_requests: Int32 | None = field(name="http2MaxRequests", default=None)
    """Requests at the same time, HTTP/1.1 and HTTP/2 alike: 2^32-1 unless given."""
    max_requests_per_connection: Int32 | None = None
    """Requests on one connection before it is closed; 0 is unlimited, 1 switches keep-alive off."""
    max_retries: Int32 | None = None
    """Retries at the same time: 2^32-1 unless given."""
    idle_timeout: Duration | None = None
    """Life of a connection without requests: 1h unless given."""
    h2_upgrade_policy: Literal["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"] = field(name="h2UpgradePolicy", default="DEFAULT")
    """Whether HTTP/1.1 is turned into HTTP/2."""
    use_client_protocol: bool = False
    """Whether Envoy keeps the protocol of its caller, whatever the port's is. Meshlib always does."""
    max_concurrent_streams: Int32 | None = None
    """Streams on one HTTP/2 connection."""
    http2_keep_alive: HTTP2Keepalive | None = field(name="http2KeepAlive", default=None)
    """PING frames on idle HTTP/2 connections."""


class ConnectionPool(Element, frozen=True):
    """Limits of one process towards one host. A service with several processes has them several times."""

    tcp: TCPSettings | None = None
    """Limits of connections."""
    http: HTTPSettings | None = None
    """Limits of requests."""


class OutlierDetection(Element, frozen=True):
    """Endpoints that fail are left out for a while, by each process for itself. Without it none is."""

    split_external_local_origin_errors: bool = False
    """Count failures to connect apart from bad responses, as which they count otherwise."""
    consecutive_local_origin_failures: UInt32 | None = None
    """Connection failures in a row, if they are counted apart: 5 unless given."""
    consecutive_gateway_errors: UInt32 | None = None
    """502, 503, 504, timeouts and failures to connect in a row; 0, and unless given, is never."""
    consecutive_5xx_errors: UInt32 | None = field(name="consecutive5xxErrors", default=None)
    """Statuses from 500 in a row, and what counts as one: 5 unless given, 0 is never."""
    consecutive_errors: Int32 | None = None
    """Superseded by `consecutiveGatewayErrors`; if it is alone, other statuses from 500 do not count."""
    interval: Duration | None = None
    """Time between looks at who may come back: 10s unless given."""
    base_ejection_time: Duration | None = None
    """How long an endpoint is left out, times how often it was: 30s unless given; 5m, or this if it is longer, at most."""
    max_ejection_percent: Int32 | None = None
    """Largest share that may be left out at the same time: 10 unless given or 0, which of fewer than ten endpoints is none."""
    min_health_percent: Int32 | None = None
    """Below this share of healthy endpoints all are used, whatever is known of them: 0, never, unless given."""
    outlier_detection_http_error_codes: tuple[HTTPErrorCode, ...] = ()
    """Statuses that count as errors, in the place of all from 500; for gRPC its own statuses count as ever."""


class ClientTLSSettings(Element, frozen=True):
    """TLS towards a host."""

    mode: Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"] = "DISABLE"
    """`DISABLE`: plaintext; `SIMPLE`: TLS as with a web server; `MUTUAL`: with a certificate from files; `ISTIO_MUTUAL`: with
    the mesh's own identities, of both ends. Without `tls` at all: `ISTIO_MUTUAL` to every instance that speaks it."""
    client_certificate: str | None = None
    """File of the certificate, where the caller runs."""
    private_key: str | None = None
    """File of the key, where the caller runs."""
    ca_certificates: str | None = None
    """File of the authorities that may vouch for the host: those of the system unless given."""
    ca_crl: str | None = None
    """File of the revocation list."""
    credential_name: str | None = None
    """Secret that holds them."""
    subject_alt_names: tuple[str, ...] = ()
    """Names of which the peer must have one: host names, or SPIFFE IDs with `ISTIO_MUTUAL`. Unless given: the `sni` or the
    host, or the identities that the host's instances have."""
    sni: str | None = None
    """Server name to send: the host unless given."""
    insecure_skip_verify: bool | None = None
    """Do not verify the peer: whoever is on the way can read and change everything."""


class PortTrafficPolicy(Element, frozen=True):
    """The policy of one port, instead of the host's."""

    port: PortSelector | None = None
    """Which port."""
    load_balancer: LoadBalancer | None = None
    """How an endpoint is chosen."""
    connection_pool: ConnectionPool | None = None
    """Limits."""
    outlier_detection: OutlierDetection | None = None
    """Endpoints that fail are left out."""
    tls: ClientTLSSettings | None = None
    """TLS towards the host."""


class Tunnel(Element, frozen=True):
    """CONNECT through another host."""

    target_host: str
    """Where the tunnel ends."""
    target_port: UInt32
    """Where the tunnel ends."""
    protocol: str | None = None
    """`CONNECT` or `POST`."""


class ProxyProtocol(Element, frozen=True):
    """The PROXY protocol header."""

    version: Literal["V1", "V2"] = "V1"
    """Its version."""


class RetryBudget(Element, frozen=True):
    """Retries as a share of the requests under way, of one process to one host. There always is one."""

    percent: PercentDouble | None = None
    """The share: 20 unless given."""
    min_retry_concurrency: UInt32 | None = None
    """So many retries at a time are always allowed: 3 unless given."""
    budget_interval: DurationOrZero | None = None
    """Time that is looked at."""


class TrafficPolicy(Element, frozen=True):
    """How to call a host or a subset."""

    load_balancer: LoadBalancer | None = None
    """How an endpoint is chosen."""
    connection_pool: ConnectionPool | None = None
    """Limits of connections and requests."""
    outlier_detection: OutlierDetection | None = None
    """Endpoints that fail are left out."""
    tls: ClientTLSSettings | None = None
    """TLS towards the host."""
    port_level_settings: Annotated[tuple[PortTrafficPolicy, ...], Meta(max_length=4096)] = ()
    """Policies of single ports."""
    tunnel: Tunnel | None = None
    """CONNECT through another host."""
    proxy_protocol: ProxyProtocol | None = None
    """The PROXY protocol header."""
    retry_budget: RetryBudget | None = None
    """Retries as a share of the requests under way."""


class Subset(Element, frozen=True):
    """A named part of a host's instances."""

    name: str
    """What routes call it."""
    labels: dict[str, str] = {}
    """Labels that its instances have."""
    traffic_policy: TrafficPolicy | None = None
    """Overrides the host's policy, element by element."""


class WorkloadSelector(Element, frozen=True):
    """Workloads by their labels."""

    match_labels: Annotated[dict[str, LabelValue], Meta(max_length=4096)] = {}
    """All of these labels."""


class DestinationRule(Element, frozen=True):
    """How to call a host, and which subsets it has."""

    host: str
    """The host, as in a route's destination; `*.suffix` is allowed. A short name is completed with the namespace."""
    traffic_policy: TrafficPolicy | None = None
    """For the host and, where they say nothing else, its subsets."""
    subsets: tuple[Subset, ...] = ()
    """Named parts of its instances."""
    export_to: tuple[str, ...] = ()
    """Namespaces that see the resource: `.` its own, `*` all; the mesh's default unless given."""
    workload_selector: WorkloadSelector | None = None
    """Calling workloads of its own namespace that it is for: for them it goes before rules without a selector."""
