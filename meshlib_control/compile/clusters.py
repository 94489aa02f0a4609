"""Services and DestinationRules → clusters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from google.protobuf.wrappers_pb2 import UInt32Value

from meshlib.xds.proto import cluster_pb2, core_pb2
from meshlib.xds.types import ENVOY_NAMES, pack
from meshlib_control.catalog.model import Instance, Port, Service
from meshlib_control.compile.destination_rules import Policy, policy_of
from meshlib_control.compile.endpoints import (
    TLS_MODE,
    Form,
    assignment,
    chosen_instances,
    form_for,
    is_dns,
    is_eds,
)
from meshlib_control.compile.health_checks import set_health_checks
from meshlib_control.compile.inbound import inbound_cluster, inbound_cluster_names
from meshlib_control.compile.load_balancing import is_passthrough, set_grpc_load_balancing, set_load_balancing
from meshlib_control.compile.mesh_settings import MeshSettings
from meshlib_control.compile.names import BLACK_HOLE, PASSTHROUGH, ClusterName, parse_cluster_name
from meshlib_control.compile.node import Scope
from meshlib_control.compile.outlier_detection import set_outlier_detection
from meshlib_control.compile.resilience import set_resilience
from meshlib_control.compile.retry_policy import duration
from meshlib_control.compile.scope import is_served
from meshlib_control.compile.services import is_http2, is_tls, port_of
from meshlib_control.compile.tls import Destination, Security, as_called, raw_socket, security, tls_socket
from meshlib_control.compile.view import reached, reached_services
from meshlib_control.compile.world import World
from meshlib_control.config.kinds import ConnectionPool, HTTPSettings, RetryBudget, TCPSettings
from meshlib_control.config.mtls import MTLS_MODE

UNLIMITED: Final = 2**32 - 1
"""Istio's threshold where nothing is configured; Envoy's own would be 1024 (retries: 3)."""

RETRY_BUDGET_PERCENT: Final = 20.0
MIN_RETRY_CONCURRENCY: Final = 3
_LONGEST_IDLE: Final = 32767  # of Linux, in seconds; a socket option beyond it fails the connection
_MOST_PROBES: Final = 127

_HTTP_OPTIONS = ENVOY_NAMES["HttpProtocolOptions"]
_Cluster = cluster_pb2.Cluster


def cluster_names(world: World, scope: Scope) -> Iterator[str]:
    """Names of all clusters: of each service's ports, with and without subsets, then those for outside hosts."""
    for service in reached_services(world, scope):
        rule = world.destination_rules.holding_for(service, scope.namespace, dict(scope.labels))
        subsets = sorted(rule.subsets or ()) if rule else []
        for port in service.ports:
            settings = policy_of(rule, None, port.number).tls
            if is_served(scope, service, as_called(world, port, settings)):
                for subset in ("", *subsets):
                    yield str(ClusterName(port.number, subset, service.host))
    if scope.flavour != "grpc":
        yield PASSTHROUGH
        yield BLACK_HOLE
        yield from inbound_cluster_names(scope)


@dataclass(frozen=True, slots=True)
class _Upstream:
    """What the cluster of a service's port is made from."""

    name: ClusterName
    service: Service
    port: Port
    policy: Policy
    instances: tuple[Instance, ...]  # those of the subset
    form: Form  # of the host names that are resolved
    security: Security


def cluster(world: World, scope: Scope, name: str) -> cluster_pb2.Cluster | None:
    """The cluster of this name; None: there is none."""
    if scope.flavour != "grpc" and name in (PASSTHROUGH, BLACK_HOLE):
        return _outside(world, name)
    if name.startswith("inbound|"):
        return inbound_cluster(world, scope, name)
    upstream = _upstream(world, scope, name)
    if upstream is None:
        return None
    result = cluster_pb2.Cluster(name=name)
    result.connect_timeout.CopyFrom(duration(world.settings.connect_timeout))
    resilience = world.resilience_policies.holding_for(upstream.service, scope.namespace)
    if scope.flavour == "grpc":
        _set_grpc(result, upstream)
        set_outlier_detection(result, None, resilience)
    else:
        _set_discovery(result, upstream, world.settings)
        _set_connections(result, upstream.policy.connection_pool or ConnectionPool(), upstream.port, world.settings)
        _set_breakers(result, upstream.policy)
        set_outlier_detection(result, upstream.policy.outlier_detection, resilience)
        set_health_checks(result, resilience, upstream.service.host, http2=is_http2(upstream.port))
        _set_metadata(result, upstream)
        set_resilience(result, world, scope, upstream.service)
    _set_security(result, upstream.security)
    return result


def _upstream(world: World, scope: Scope, name: str) -> _Upstream | None:
    parsed = parse_cluster_name(name)
    service = reached(world, scope, parsed.host, parsed.port) if parsed else None
    port = port_of(service, parsed.port) if parsed and service else None
    if parsed is None or service is None or port is None:
        return None
    rule = world.destination_rules.holding_for(service, scope.namespace, dict(scope.labels))
    subset = rule.subset(parsed.subset) if rule else None
    policy = policy_of(rule, subset, port.number)
    port = as_called(world, port, policy.tls)
    if (parsed.subset and subset is None) or not is_served(scope, service, port):
        return None
    instances = world.instances_of(service)
    chosen = tuple(chosen_instances(instances, subset.labels)) if subset else instances
    dialled = _is_dialled_by_caller(service, policy)
    destination = Destination(parsed, service, port, policy.tls, instances, chosen, dialled_by_caller=dialled)
    protection = security(world, scope, destination)
    if protection is None:
        return None
    form = form_for(world, scope, service, policy, host_names=True)
    return _Upstream(parsed, service, port, policy, chosen, form, protection)


def _is_dialled_by_caller(service: Service, policy: Policy) -> bool:
    """The cluster has no endpoints of its own: connections go wherever the caller wanted to go."""
    return service.resolution == "NONE" or is_passthrough(policy.load_balancer)


def _outside(world: World, name: str) -> cluster_pb2.Cluster:
    result = cluster_pb2.Cluster(name=name)
    result.connect_timeout.CopyFrom(duration(world.settings.connect_timeout))
    if name == PASSTHROUGH:
        _set_original_destination(result)
        _set_breakers(result, Policy())
    else:
        result.type = _Cluster.STATIC
    return result


def _set_discovery(result: cluster_pb2.Cluster, upstream: _Upstream, settings: MeshSettings) -> None:
    service, port = upstream.service, upstream.port
    if _is_dialled_by_caller(service, upstream.policy) or is_tls(port):
        _set_original_destination(result)
        return
    set_load_balancing(result, upstream.policy.load_balancer, upstream.form.preference)
    # Endpoints that a catalog calls unhealthy are in EDS with that status. Below Envoy's 50 % they would be used (panic).
    result.common_lb_config.healthy_panic_threshold.value = 0.0
    if is_eds(service, port):
        _set_eds(result)
        return
    result.type = _Cluster.LOGICAL_DNS if service.resolution == "DNS_ROUND_ROBIN" else _Cluster.STRICT_DNS
    result.respect_dns_ttl = True
    result.dns_refresh_rate.CopyFrom(duration(settings.dns_refresh_rate))
    result.dns_lookup_family = _Cluster.ALL if result.type == _Cluster.STRICT_DNS else _Cluster.V4_PREFERRED
    _set_names(result, upstream)


def _set_names(result: cluster_pb2.Cluster, upstream: _Upstream) -> None:
    """The host names to resolve.  LOGICAL_DNS has exactly one."""
    chosen = upstream.instances[:1] if result.type == _Cluster.LOGICAL_DNS else upstream.instances
    names = assignment(result.name, chosen, upstream.port, upstream.form)
    result.load_assignment.CopyFrom(names)


def _set_eds(result: cluster_pb2.Cluster) -> None:
    result.type = _Cluster.EDS
    result.eds_cluster_config.eds_config.CopyFrom(ads())


def ads() -> core_pb2.ConfigSource:
    source = core_pb2.ConfigSource(resource_api_version=core_pb2.V3)
    source.ads.SetInParent()
    return source


def _set_original_destination(result: cluster_pb2.Cluster) -> None:
    result.type = _Cluster.ORIGINAL_DST
    result.lb_policy = _Cluster.CLUSTER_PROVIDED


def _set_grpc(result: cluster_pb2.Cluster, upstream: _Upstream) -> None:
    """What grpcio accepts: two balancers, EDS or a single name, and of all limits the number of requests.

    That one is always written: grpcio's own default is 1024.
    """
    set_grpc_load_balancing(result, upstream.policy.load_balancer)
    pool = upstream.policy.connection_pool.http if upstream.policy.connection_pool else None
    limit = pool.http2_max_requests if pool else None
    result.circuit_breakers.thresholds.add(max_requests=UInt32Value(value=limit or UNLIMITED))
    if is_dns(upstream.service):
        result.type = _Cluster.LOGICAL_DNS
        _set_names(result, upstream)
    else:
        _set_eds(result)


def _set_security(result: cluster_pb2.Cluster, protection: Security) -> None:
    if protection.context is None:
        return
    if not protection.auto:
        result.transport_socket.CopyFrom(tls_socket(protection.context))
        return
    mutual = result.transport_socket_matches.add(name=f"{TLS_MODE}-{MTLS_MODE}")
    mutual.match[TLS_MODE] = MTLS_MODE
    mutual.transport_socket.CopyFrom(tls_socket(protection.context))
    plain = result.transport_socket_matches.add(name=f"{TLS_MODE}-disabled")
    plain.match.SetInParent()
    plain.transport_socket.CopyFrom(raw_socket())


def _set_connections(result: cluster_pb2.Cluster, pool: ConnectionPool, port: Port, settings: MeshSettings) -> None:
    tcp, http = pool.tcp or TCPSettings(), pool.http or HTTPSettings()
    if tcp.connect_timeout is not None:
        result.connect_timeout.CopyFrom(duration(tcp.connect_timeout))
    wanted = tcp.tcp_keepalive or settings.tcp_keepalive
    if wanted is not None:
        keepalive = result.upstream_connection_options.tcp_keepalive
        keepalive.SetInParent()
        if wanted.probes is not None:
            keepalive.keepalive_probes.value = min(max(wanted.probes, 1), _MOST_PROBES)
        if wanted.time is not None:
            keepalive.keepalive_time.value = _idle_seconds(wanted.time)
        if wanted.interval is not None:
            keepalive.keepalive_interval.value = _idle_seconds(wanted.interval)
    _set_http_options(result, tcp, http, port)


def _idle_seconds(seconds: float) -> int:
    return min(max(round(seconds), 1), _LONGEST_IDLE)


def _set_http_options(result: cluster_pb2.Cluster, tcp: TCPSettings, http: HTTPSettings, port: Port) -> None:
    """Left out when everything is as by default: HTTP/1.1, connections idle for an hour at most."""
    options = cluster_pb2.HttpProtocolOptions()
    common = options.common_http_protocol_options
    # A connection without a request has no bytes either; of one with a request the time limits are the request's.
    idle_timeout = tcp.idle_timeout if http.idle_timeout is None else http.idle_timeout
    if idle_timeout is not None:
        common.idle_timeout.CopyFrom(duration(idle_timeout))
    if tcp.max_connection_duration is not None:
        common.max_connection_duration.CopyFrom(duration(tcp.max_connection_duration))
    if http.max_requests_per_connection:
        common.max_requests_per_connection.value = http.max_requests_per_connection
    if http.use_client_protocol:
        _use_client_protocol(options.use_downstream_protocol_config, http)
    elif is_http2(port):
        options.explicit_http_config.http2_protocol_options.SetInParent()
        if http.max_concurrent_streams:
            streams = options.explicit_http_config.http2_protocol_options.max_concurrent_streams
            streams.value = http.max_concurrent_streams
    elif options.HasField("common_http_protocol_options"):
        options.explicit_http_config.http_protocol_options.SetInParent()
    if options.ByteSize():
        result.typed_extension_protocol_options[_HTTP_OPTIONS].CopyFrom(pack(options))


def _use_client_protocol(protocols: cluster_pb2.HttpProtocolOptions.UseDownstreamHttpConfig, http: HTTPSettings) -> None:
    """What meshlib does anyway."""
    protocols.http_protocol_options.SetInParent()
    protocols.http2_protocol_options.SetInParent()
    if http.max_concurrent_streams:
        protocols.http2_protocol_options.max_concurrent_streams.value = http.max_concurrent_streams


def _set_breakers(result: cluster_pb2.Cluster, policy: Policy) -> None:
    """The retry budget is always on; where Envoy has one, it does not look at `max_retries`."""
    pool = policy.connection_pool or ConnectionPool()
    tcp, http = pool.tcp or TCPSettings(), pool.http or HTTPSettings()
    budget = policy.retry_budget or RetryBudget()
    thresholds = result.circuit_breakers.thresholds.add(track_remaining=True)
    thresholds.max_connections.value = tcp.max_connections or UNLIMITED
    thresholds.max_pending_requests.value = http.http1_max_pending_requests or UNLIMITED
    thresholds.max_requests.value = http.http2_max_requests or UNLIMITED
    thresholds.max_retries.value = http.max_retries or UNLIMITED
    thresholds.retry_budget.budget_percent.value = RETRY_BUDGET_PERCENT if budget.percent is None else budget.percent
    thresholds.retry_budget.min_retry_concurrency.value = (
        MIN_RETRY_CONCURRENCY if budget.min_retry_concurrency is None else budget.min_retry_concurrency
    )


def _set_metadata(result: cluster_pb2.Cluster, upstream: _Upstream) -> None:
    """Istio's cluster metadata: what telemetry calls the destination."""
    service, name = upstream.service, upstream.name
    fields = result.metadata.filter_metadata["istio"]
    short = service.host.partition(".")[0] if service.source != "config" else service.host
    fields["services"] = [{"host": service.host, "name": short, "namespace": service.namespace}]
    fields["default_original_port"] = name.port
    if name.subset:
        fields["subset"] = name.subset
