"""Sidecar's `inboundConnectionPool`: how much a workload lets in at once.

* meshlib: a filter of the inbound listener; the process counts requests itself.
* Envoy: circuit breakers of the cluster that leads to the application beside it.
* grpcio: nothing; its server has a setting of its own, `maximum_concurrent_rpcs`.
"""

from __future__ import annotations

from meshlib.xds.inbound_limits import FILTER
from meshlib.xds.proto import cluster_pb2, listener_pb2
from meshlib.xds.proto.inbound_limits_pb2 import InboundLimits
from meshlib.xds.types import pack
from meshlib_control.compile.node import Scope
from meshlib_control.compile.world import World
from meshlib_control.config.kinds import ConnectionPool, HTTPSettings, TCPSettings


def pool_filters(world: World, scope: Scope, port: int) -> list[listener_pb2.HttpFilter]:
    """The filter of a port of a meshlib process; none where nothing is limited."""
    pool = _pool(world, scope, port) if scope.flavour == "meshlib" else None
    if pool is None:
        return []
    limits, tcp, http = InboundLimits(), pool.tcp or TCPSettings(), pool.http or HTTPSettings()
    # 0 is "as by default" in Istio, which is no limit.
    if http.http2_max_requests:
        limits.max_requests.value = http.http2_max_requests
    if tcp.max_connections:
        limits.max_active.value = tcp.max_connections
    if http.http1_max_pending_requests:
        limits.max_pending.value = http.http1_max_pending_requests
    if not limits.ByteSize():
        return []
    return [listener_pb2.HttpFilter(name=FILTER, typed_config=pack(limits))]


def set_pool_breakers(cluster: cluster_pb2.Cluster, world: World, scope: Scope, port: int) -> None:
    """The same in an Envoy's cluster, where Envoy's own thresholds would hold otherwise."""
    pool = _pool(world, scope, port)
    if pool is None:
        return
    tcp, http = pool.tcp or TCPSettings(), pool.http or HTTPSettings()
    thresholds = cluster.circuit_breakers.thresholds.add(track_remaining=True)
    thresholds.max_connections.value = tcp.max_connections or _UNLIMITED
    thresholds.max_pending_requests.value = http.http1_max_pending_requests or _UNLIMITED
    thresholds.max_requests.value = http.http2_max_requests or _UNLIMITED
    thresholds.max_retries.value = _UNLIMITED


_UNLIMITED = 2**32 - 1


def _pool(world: World, scope: Scope, port: int) -> ConnectionPool | None:
    return world.sidecars.inbound_pool(scope.namespace, dict(scope.labels), port)
