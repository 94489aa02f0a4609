"""DestinationRule `loadBalancer` → how a cluster chooses an endpoint, with Istio's defaults (cluster_traffic_policy.go)."""

from __future__ import annotations

from typing import Final

from meshlib.xds.proto import cluster_pb2
from meshlib_control.compile.hash_policies import hashes_in_grpc
from meshlib_control.compile.locality import Preference
from meshlib_control.compile.retry_policy import duration
from meshlib_control.config.kinds import ConsistentHash, LoadBalancer, Warmup

MINIMUM_RING_SIZE: Final = 1024
WARMUP_PERCENT: Final = 10.0
WARMUP_AGGRESSION: Final = 1.0
"""Istio's values where `ringHash` and `warmup` give none."""

_AGGRESSION_KEY = "upstream.slow_start.aggression"
"""Envoy asks for a name under which its own runtime settings could override the value."""

_Cluster = cluster_pb2.Cluster
_SIMPLE = {
    "RANDOM": _Cluster.RANDOM,
    "ROUND_ROBIN": _Cluster.ROUND_ROBIN,
    # UNSPECIFIED and LEAST_CONN too: LEAST_REQUEST is Istio's default.
}


def set_load_balancing(result: cluster_pb2.Cluster, balancer: LoadBalancer | None, preference: Preference | None) -> None:
    """For meshlib and Envoy.  A consistent hash has only half of its meaning here, the other is in routes (`hash_policies`)."""
    chosen = balancer or LoadBalancer()
    result.lb_policy = _SIMPLE.get(chosen.simple or "", _Cluster.LEAST_REQUEST)
    if preference is not None:
        _set_localities(result.common_lb_config, preference)
    if chosen.consistent_hash is not None:
        _set_consistent_hash(result, chosen.consistent_hash)
    else:
        _set_warmup(result, chosen)


def set_grpc_load_balancing(result: cluster_pb2.Cluster, balancer: LoadBalancer | None) -> None:
    """For grpcio, which refuses clusters of other policies than these two.  Weights of localities it always follows."""
    hashed = balancer.consistent_hash if balancer else None
    if hashed is not None and hashes_in_grpc(hashed):
        _set_ring(result, hashed)
    else:
        result.lb_policy = _Cluster.ROUND_ROBIN


def is_passthrough(balancer: LoadBalancer | None) -> bool:
    """Connections go wherever the caller wanted to go."""
    return balancer is not None and balancer.simple == "PASSTHROUGH"


def _set_localities(common: cluster_pb2.Cluster.CommonLbConfig, preference: Preference) -> None:
    """Locality weights count where `distribute` gives them: elsewhere the whole level is balanced as one."""
    if preference.distribution is not None:
        common.locality_weighted_lb_config.SetInParent()
    elif preference.setting.min_cluster_size:
        common.zone_aware_lb_config.min_cluster_size.value = preference.setting.min_cluster_size


def _set_consistent_hash(result: cluster_pb2.Cluster, hashed: ConsistentHash) -> None:
    if hashed.maglev is None:
        _set_ring(result, hashed)
        return
    result.lb_policy = _Cluster.MAGLEV
    if hashed.maglev.table_size:
        result.maglev_lb_config.table_size.value = hashed.maglev.table_size


def _set_ring(result: cluster_pb2.Cluster, hashed: ConsistentHash) -> None:
    result.lb_policy = _Cluster.RING_HASH
    size = hashed.ring_hash.minimum_ring_size if hashed.ring_hash is not None else hashed.minimum_ring_size
    result.ring_hash_lb_config.minimum_ring_size.value = size or MINIMUM_RING_SIZE


def _set_warmup(result: cluster_pb2.Cluster, balancer: LoadBalancer) -> None:
    warmup = balancer.warmup
    if warmup is None and balancer.warmup_duration_secs is not None:
        warmup = Warmup(duration=balancer.warmup_duration_secs)
    if warmup is None:
        return
    match result.lb_policy:
        case _Cluster.ROUND_ROBIN:
            _set_slow_start(result.round_robin_lb_config.slow_start_config, warmup)
        case _Cluster.LEAST_REQUEST:
            _set_slow_start(result.least_request_lb_config.slow_start_config, warmup)
        case _:
            pass  # as in Istio: no slow start of random choices


def _set_slow_start(slow_start: cluster_pb2.Cluster.SlowStartConfig, warmup: Warmup) -> None:
    slow_start.slow_start_window.CopyFrom(duration(warmup.duration))
    slow_start.aggression.default_value = WARMUP_AGGRESSION if warmup.aggression is None else warmup.aggression
    slow_start.aggression.runtime_key = _AGGRESSION_KEY
    slow_start.min_weight_percent.value = WARMUP_PERCENT if warmup.minimum_percent is None else warmup.minimum_percent
