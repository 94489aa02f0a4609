"""Cluster → model.  Where a field is unset, Envoy's default holds, not one of our own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from google.protobuf.wrappers_pb2 import UInt32Value

from meshlib.model.cluster import CircuitBreakers, Cluster, Discovery, TcpKeepalive, UpstreamTls
from meshlib.model.endpoint import Assignment
from meshlib.model.resilience import Resilience
from meshlib.xds.balancing import FIELDS as LB_FIELDS
from meshlib.xds.balancing import decode_balancing, decode_lb_policy
from meshlib.xds.endpoints import MTLS_MODE, TLS_MODE, decode_endpoints
from meshlib.xds.fields import allow_only, seconds, unpack
from meshlib.xds.health_checks import decode_health_checks
from meshlib.xds.invalid import Problems
from meshlib.xds.outlier_detection import decode_error_statuses, decode_outlier_detection
from meshlib.xds.proto import cluster_pb2, core_pb2
from meshlib.xds.resilience import CLUSTER_OPTIONS, decode_cluster_resilience
from meshlib.xds.tls import decode_upstream, is_raw
from meshlib.xds.types import ENVOY_NAMES

HTTP_OPTIONS: Final = ENVOY_NAMES["HttpProtocolOptions"]
"""Key of `typed_extension_protocol_options`."""

_CONNECT_TIMEOUT = 5.0  # Envoy's defaults, in seconds and counts
_IDLE_TIMEOUT = 3600.0
_DNS_REFRESH = 5.0
_LIMIT = 1024
_RETRIES = 3
_BUDGET_PERCENT = 20.0
_MIN_RETRIES = 3

_FIELDS = LB_FIELDS | frozenset(
    {
        "name",
        "type",
        "eds_cluster_config",
        "connect_timeout",
        "load_assignment",
        "circuit_breakers",
        "dns_refresh_rate",
        "typed_extension_protocol_options",
        "metadata",
        "upstream_connection_options",
        "max_requests_per_connection",
        "transport_socket",
        "transport_socket_matches",
        "outlier_detection",
        "health_checks",
        # Not acted on: a name in statistics, and how names are resolved, which the system's resolver decides here.
        "alt_stat_name",
        "respect_dns_ttl",
        "dns_lookup_family",
    }
)
_THRESHOLD_FIELDS = frozenset(
    {"priority", "max_connections", "max_pending_requests", "max_requests", "max_retries", "retry_budget", "track_remaining"}
)
_HTTP_FIELDS = frozenset(
    {"common_http_protocol_options", "explicit_http_config", "use_downstream_protocol_config", "outlier_detection"}
)
_COMMON_HTTP_FIELDS = frozenset({"idle_timeout", "max_connection_duration", "max_requests_per_connection"})
_SOCKET_MATCH_FIELDS = frozenset({"name", "match", "transport_socket"})
_EDS_FIELDS = frozenset({"eds_config", "service_name"})

_DISCOVERY = {
    cluster_pb2.Cluster.STATIC: Discovery.STATIC,
    cluster_pb2.Cluster.STRICT_DNS: Discovery.DNS,
    cluster_pb2.Cluster.LOGICAL_DNS: Discovery.DNS,
    cluster_pb2.Cluster.EDS: Discovery.EDS,
    cluster_pb2.Cluster.ORIGINAL_DST: Discovery.PASSTHROUGH,
}


def decode_cluster(cluster: cluster_pb2.Cluster, problems: Problems) -> Cluster:
    allow_only(cluster, _FIELDS, field="", problems=problems)
    discovery = _discovery(cluster, problems)
    inline = _inline_endpoints(cluster, discovery, problems)
    http = _http_options(cluster, problems)
    tls, auto_mtls = _security(cluster, discovery, problems)
    host, subset, port = _identity(cluster.metadata)
    return Cluster(
        name=cluster.name,
        discovery=discovery,
        eds_name=_eds_name(cluster, problems) if discovery is Discovery.EDS else "",
        lb_policy=decode_lb_policy(cluster, discovery, problems),
        balancing=decode_balancing(cluster, problems),
        outlier_detection=decode_outlier_detection(cluster, http.error_statuses, problems),
        health_checks=decode_health_checks(cluster, problems),
        connect_timeout=_connect_timeout(cluster, problems),
        idle_timeout=http.idle_timeout,
        max_connection_duration=http.max_connection_duration,
        max_requests_per_connection=http.max_requests_per_connection or cluster.max_requests_per_connection.value,
        circuit_breakers=_circuit_breakers(cluster, problems),
        tcp_keepalive=_keepalive(cluster, problems),
        dns_refresh=seconds(cluster.dns_refresh_rate, field="dns_refresh_rate", problems=problems) or _DNS_REFRESH,
        endpoints=inline.endpoints,
        overprovisioning_factor=inline.overprovisioning_factor,
        host=host,
        subset=subset,
        port=port,
        tls=tls,
        auto_mtls=auto_mtls,
        resilience=_resilience(cluster, problems),
    )


def _security(cluster: cluster_pb2.Cluster, discovery: Discovery, problems: Problems) -> tuple[UpstreamTls | None, bool]:
    """TLS for all endpoints, or (True) for those that speak the mesh's mTLS.  Present but unusable is never plaintext."""
    matches = cluster.transport_socket_matches
    if discovery is Discovery.PASSTHROUGH and (matches or cluster.HasField("transport_socket")):
        problems.describe("transport_socket", "set", "unset: the caller's own transport makes these connections")
        return None, False
    if matches:
        if cluster.HasField("transport_socket"):
            problems.describe("transport_socket", "set", "either it or transport_socket_matches")
        return _auto_mtls(cluster, problems), True
    if not cluster.HasField("transport_socket") or is_raw(cluster.transport_socket, problems, field="transport_socket"):
        return None, False
    return decode_upstream(cluster.transport_socket, problems, field="transport_socket"), False


def _auto_mtls(cluster: cluster_pb2.Cluster, problems: Problems) -> UpstreamTls | None:
    """Istio's two: mTLS for endpoints that say so, plaintext for the others.  No others are understood."""
    matches, field = cluster.transport_socket_matches, "transport_socket_matches"
    for index, item in enumerate(matches):
        allow_only(item, _SOCKET_MATCH_FIELDS, field=f"{field}[{index}]", problems=problems)
    asked = [dict(item.match.items()) for item in matches]
    if asked != [{TLS_MODE: MTLS_MODE}, {}]:
        problems.describe(field, f"{asked}", f"[{{{TLS_MODE!r}: {MTLS_MODE!r}}}, {{}}]")
        return None
    if not is_raw(matches[1].transport_socket, problems, field=f"{field}[1].transport_socket"):
        problems.describe(f"{field}[1].transport_socket", matches[1].transport_socket.name, "raw_buffer")
    tls = decode_upstream(matches[0].transport_socket, problems, field=f"{field}[0].transport_socket")
    if not tls.mesh:
        problems.describe(f"{field}[0].transport_socket", "TLS of another kind", "the mesh's mTLS")
    return tls


def _discovery(cluster: cluster_pb2.Cluster, problems: Problems) -> Discovery:
    discovery = _DISCOVERY.get(cluster.type)
    if discovery is None:
        problems.add("type", cluster.type, "EDS, STATIC, STRICT_DNS, LOGICAL_DNS or ORIGINAL_DST")
        return Discovery.STATIC
    return discovery


def _eds_name(cluster: cluster_pb2.Cluster, problems: Problems) -> str:
    check_source(cluster.eds_cluster_config.eds_config, problems, field="eds_cluster_config.eds_config")
    allow_only(cluster.eds_cluster_config, _EDS_FIELDS, field="eds_cluster_config", problems=problems)
    return cluster.eds_cluster_config.service_name


def check_source(source: core_pb2.ConfigSource, problems: Problems, *, field: str) -> None:
    """Everything comes over the one ADS stream."""
    if source.WhichOneof("config_source_specifier") not in ("ads", "self"):
        problems.describe(field, "no ads", "ads or self")


def _connect_timeout(cluster: cluster_pb2.Cluster, problems: Problems) -> float:
    if not cluster.HasField("connect_timeout"):
        return _CONNECT_TIMEOUT
    value = seconds(cluster.connect_timeout, field="connect_timeout", problems=problems)
    if value <= 0:
        problems.describe("connect_timeout", f"{value:g}s", "more than zero")
    return value


@dataclass(frozen=True, slots=True)
class _HttpOptions:
    idle_timeout: float = _IDLE_TIMEOUT
    max_connection_duration: float = 0.0
    max_requests_per_connection: int = 0
    error_statuses: frozenset[int] = frozenset()  # of outlier detection


def _http_options(cluster: cluster_pb2.Cluster, problems: Problems) -> _HttpOptions:
    """Which protocol is asked for is not looked at: HTTP/1.1 by our own engine, HTTP/2 through gRPC's channels."""
    for key in cluster.typed_extension_protocol_options:
        if key not in (HTTP_OPTIONS, CLUSTER_OPTIONS):
            expected = f"{HTTP_OPTIONS} or {CLUSTER_OPTIONS} only"
            problems.describe(f"typed_extension_protocol_options[{key!r}]", "set", expected)
    if HTTP_OPTIONS not in cluster.typed_extension_protocol_options:
        return _HttpOptions()
    field = f"typed_extension_protocol_options[{HTTP_OPTIONS!r}]"
    packed = cluster.typed_extension_protocol_options[HTTP_OPTIONS]
    options = unpack(packed, cluster_pb2.HttpProtocolOptions, field=field, problems=problems)
    if options is None:
        return _HttpOptions()
    allow_only(options, _HTTP_FIELDS, field=field, problems=problems)
    common, where = options.common_http_protocol_options, f"{field}.common_http_protocol_options"
    allow_only(common, _COMMON_HTTP_FIELDS, field=where, problems=problems)
    return _HttpOptions(
        idle_timeout=seconds(common.idle_timeout, field=f"{where}.idle_timeout", problems=problems)
        if common.HasField("idle_timeout")
        else _IDLE_TIMEOUT,
        max_connection_duration=seconds(
            common.max_connection_duration, field=f"{where}.max_connection_duration", problems=problems
        ),
        max_requests_per_connection=common.max_requests_per_connection.value,
        error_statuses=decode_error_statuses(options, problems, field=field),
    )


def _resilience(cluster: cluster_pb2.Cluster, problems: Problems) -> Resilience | None:
    if CLUSTER_OPTIONS not in cluster.typed_extension_protocol_options:
        return None
    packed = cluster.typed_extension_protocol_options[CLUSTER_OPTIONS]
    field = f"typed_extension_protocol_options[{CLUSTER_OPTIONS!r}]"
    return decode_cluster_resilience(packed, problems, field=field)


def _circuit_breakers(cluster: cluster_pb2.Cluster, problems: Problems) -> CircuitBreakers:
    """The thresholds of priority DEFAULT: no route can ask for another (RouteAction.priority is refused as unknown)."""
    chosen: cluster_pb2.CircuitBreakers.Thresholds | None = None
    for index, thresholds in enumerate(cluster.circuit_breakers.thresholds):
        field = f"circuit_breakers.thresholds[{index}]"
        allow_only(thresholds, _THRESHOLD_FIELDS, field=field, problems=problems)
        if thresholds.HasField("retry_budget") and not 0 <= thresholds.retry_budget.budget_percent.value <= 100:
            problems.add(f"{field}.retry_budget.budget_percent", thresholds.retry_budget.budget_percent.value, "0 to 100")
        if thresholds.priority == cluster_pb2.DEFAULT and chosen is None:
            chosen = thresholds
    found = chosen or cluster_pb2.CircuitBreakers.Thresholds()
    budget = found.retry_budget
    return CircuitBreakers(
        max_connections=_or(found.HasField("max_connections"), found.max_connections, _LIMIT),
        max_pending_requests=_or(found.HasField("max_pending_requests"), found.max_pending_requests, _LIMIT),
        max_requests=_or(found.HasField("max_requests"), found.max_requests, _LIMIT),
        max_retries=_or(found.HasField("max_retries"), found.max_retries, _RETRIES),
        retry_budget_percent=budget.budget_percent.value if budget.HasField("budget_percent") else _BUDGET_PERCENT,
        min_retry_concurrency=_or(budget.HasField("min_retry_concurrency"), budget.min_retry_concurrency, _MIN_RETRIES),
    )


def _or(given: bool, wrapper: UInt32Value, default: int) -> int:
    return wrapper.value if given else default


def _keepalive(cluster: cluster_pb2.Cluster, problems: Problems) -> TcpKeepalive | None:
    options = cluster.upstream_connection_options
    if not options.HasField("tcp_keepalive"):
        return None
    return TcpKeepalive(
        probes=options.tcp_keepalive.keepalive_probes.value,
        time=float(options.tcp_keepalive.keepalive_time.value),
        interval=float(options.tcp_keepalive.keepalive_interval.value),
    )


def _inline_endpoints(cluster: cluster_pb2.Cluster, discovery: Discovery, problems: Problems) -> Assignment:
    if discovery not in (Discovery.STATIC, Discovery.DNS):
        if cluster.HasField("load_assignment"):
            problems.describe("load_assignment", "set", "unset: only STATIC and DNS clusters list their endpoints")
        return Assignment()
    return decode_endpoints(cluster.load_assignment, problems, field="load_assignment", host_names=discovery is Discovery.DNS)


def _identity(metadata: core_pb2.Metadata) -> tuple[str, str, int]:
    """Host, subset and port as Istio writes them into a cluster's metadata; empty when another control plane does not."""
    if "istio" not in metadata.filter_metadata:
        return "", "", 0
    fields = metadata.filter_metadata["istio"].fields
    host = ""
    if "services" in fields and fields["services"].list_value.values:
        service = fields["services"].list_value.values[0].struct_value.fields
        host = service["host"].string_value if "host" in service else ""
    subset = fields["subset"].string_value if "subset" in fields else ""
    port = int(fields["default_original_port"].number_value) if "default_original_port" in fields else 0
    return host, subset, port
