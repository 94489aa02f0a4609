"""How a cluster chooses among its endpoints (`lb_policy`, `*_lb_config`, `common_lb_config`) → model, with Envoy's defaults."""

from __future__ import annotations

from typing import Final

from google.protobuf.wrappers_pb2 import UInt32Value, UInt64Value

from meshlib.model.cluster import Balancing, Discovery, LbPolicy, SlowStart, ZoneAware
from meshlib.xds.fields import seconds
from meshlib.xds.invalid import Problems
from meshlib.xds.proto import cluster_pb2, core_pb2

FIELDS: Final = frozenset(
    {
        "lb_policy",
        "common_lb_config",
        "least_request_lb_config",
        "round_robin_lb_config",
        "ring_hash_lb_config",
        "maglev_lb_config",
    }
)
"""Of Cluster, that are read here."""

_Cluster = cluster_pb2.Cluster
_DEFAULTS: Final = Balancing()
_POLICIES: Final = {
    _Cluster.ROUND_ROBIN: LbPolicy.ROUND_ROBIN,
    _Cluster.LEAST_REQUEST: LbPolicy.LEAST_REQUEST,
    _Cluster.RANDOM: LbPolicy.RANDOM,
    _Cluster.RING_HASH: LbPolicy.RING_HASH,
    _Cluster.MAGLEV: LbPolicy.MAGLEV,
}
_MAX_RING: Final = 8 * 1024 * 1024
_MAX_TABLE: Final = 5_000_011
_DEFAULT_ZONE_CLUSTER: Final = 6


def decode_lb_policy(cluster: cluster_pb2.Cluster, discovery: Discovery, problems: Problems) -> LbPolicy:
    if discovery is Discovery.PASSTHROUGH and cluster.lb_policy == _Cluster.CLUSTER_PROVIDED:
        return LbPolicy.LEAST_REQUEST  # there is nothing to choose from
    policy = _POLICIES.get(cluster.lb_policy)
    if policy is None:
        problems.add("lb_policy", cluster.lb_policy, "ROUND_ROBIN, LEAST_REQUEST, RANDOM, RING_HASH or MAGLEV")
        return LbPolicy.LEAST_REQUEST
    return policy


def decode_balancing(cluster: cluster_pb2.Cluster, problems: Problems) -> Balancing:
    """The configuration of a policy that is not the cluster's own is checked, and has no effect, as in Envoy."""
    common, hashing = cluster.common_lb_config, cluster.common_lb_config.consistent_hashing_lb_config
    minimum, maximum = _ring(cluster.ring_hash_lb_config, problems)
    return Balancing(
        choice_count=_choice_count(cluster.least_request_lb_config, problems),
        active_request_bias=_bias(cluster.least_request_lb_config, problems),
        minimum_ring_size=minimum,
        maximum_ring_size=maximum,
        table_size=_table_size(cluster.maglev_lb_config, problems),
        hash_balance_factor=_balance_factor(hashing, problems),
        hash_by_hostname=hashing.use_hostname_for_hashing,
        slow_start=_slow_start(cluster, problems),
        panic_threshold=_percent(
            common,
            "healthy_panic_threshold",
            _DEFAULTS.panic_threshold,
            problems,
            field="common_lb_config.healthy_panic_threshold",
        ),
        locality_weighted=common.HasField("locality_weighted_lb_config"),
        zone_aware=_zone_aware(common, problems),
    )


def _choice_count(config: cluster_pb2.Cluster.LeastRequestLbConfig, problems: Problems) -> int:
    if not config.HasField("choice_count"):
        return _DEFAULTS.choice_count
    count = config.choice_count.value
    if count < 2:
        problems.add("least_request_lb_config.choice_count", count, "2 or more")
    return int(count)


def _bias(config: cluster_pb2.Cluster.LeastRequestLbConfig, problems: Problems) -> float:
    if not config.HasField("active_request_bias"):
        return _DEFAULTS.active_request_bias
    bias = config.active_request_bias.default_value
    if not bias >= 0:
        problems.describe("least_request_lb_config.active_request_bias", f"{bias:g}", "zero or more")
    return float(bias)


def _ring(config: cluster_pb2.Cluster.RingHashLbConfig, problems: Problems) -> tuple[int, int]:
    field = "ring_hash_lb_config"
    if config.hash_function != cluster_pb2.Cluster.RingHashLbConfig.XX_HASH:
        problems.add(f"{field}.hash_function", config.hash_function, "XX_HASH")
    minimum = _or(config, "minimum_ring_size", config.minimum_ring_size, _DEFAULTS.minimum_ring_size)
    maximum = _or(config, "maximum_ring_size", config.maximum_ring_size, _DEFAULTS.maximum_ring_size)
    for name, size in (("minimum_ring_size", minimum), ("maximum_ring_size", maximum)):
        if not 1 <= size <= _MAX_RING:
            problems.add(f"{field}.{name}", size, f"1 to {_MAX_RING}")
    if minimum > maximum:
        problems.add(f"{field}.minimum_ring_size", minimum, f"at most maximum_ring_size, {maximum}")
    return minimum, maximum


def _table_size(config: cluster_pb2.Cluster.MaglevLbConfig, problems: Problems) -> int:
    size = _or(config, "table_size", config.table_size, _DEFAULTS.table_size)
    if not 2 <= size <= _MAX_TABLE or any(size % divisor == 0 for divisor in range(2, int(size**0.5) + 1)):
        problems.add("maglev_lb_config.table_size", size, f"a prime, at most {_MAX_TABLE}")
        return _DEFAULTS.table_size
    return size


def _balance_factor(config: cluster_pb2.Cluster.CommonLbConfig.ConsistentHashingLbConfig, problems: Problems) -> int:
    if not config.HasField("hash_balance_factor"):
        return 0
    factor = config.hash_balance_factor.value
    if factor < 100:
        problems.add("common_lb_config.consistent_hashing_lb_config.hash_balance_factor", factor, "100 or more")
        return 0
    return int(factor)


def _slow_start(cluster: cluster_pb2.Cluster, problems: Problems) -> SlowStart | None:
    kind = {_Cluster.ROUND_ROBIN: "round_robin_lb_config", _Cluster.LEAST_REQUEST: "least_request_lb_config"}
    name = kind.get(cluster.lb_policy)
    if name is None:
        return None
    field = f"{name}.slow_start_config"
    settings = getattr(cluster, name).slow_start_config
    window = seconds(settings.slow_start_window, field=f"{field}.slow_start_window", problems=problems)
    least = _percent(settings, "min_weight_percent", 10.0, problems, field=f"{field}.min_weight_percent")
    if not window:
        return None
    aggression = settings.aggression.default_value if settings.HasField("aggression") else 1.0
    return SlowStart(window, aggression if aggression > 0 else 1.0, least)


def _zone_aware(common: cluster_pb2.Cluster.CommonLbConfig, problems: Problems) -> ZoneAware | None:
    if not common.HasField("zone_aware_lb_config"):
        return None
    settings, field = common.zone_aware_lb_config, "common_lb_config.zone_aware_lb_config"
    return ZoneAware(
        routing_enabled=_percent(settings, "routing_enabled", 100.0, problems, field=f"{field}.routing_enabled"),
        min_cluster_size=_or(settings, "min_cluster_size", settings.min_cluster_size, _DEFAULT_ZONE_CLUSTER),
        fail_traffic_on_panic=settings.fail_traffic_on_panic,
    )


_WithPercent = cluster_pb2.Cluster.CommonLbConfig | cluster_pb2.Cluster.CommonLbConfig.ZoneAwareLbConfig
_WithNumber = _WithPercent | cluster_pb2.Cluster.RingHashLbConfig | cluster_pb2.Cluster.MaglevLbConfig


def _percent(
    message: _WithPercent | cluster_pb2.Cluster.SlowStartConfig, name: str, default: float, problems: Problems, *, field: str
) -> float:
    if not message.HasField(name):
        return default
    percent: core_pb2.Percent = getattr(message, name)
    if not 0 <= percent.value <= 100:
        problems.describe(field, f"{percent.value:g}", "0 to 100")
        return default
    return percent.value


def _or(message: _WithNumber, name: str, wrapper: UInt32Value | UInt64Value, default: int) -> int:
    return int(wrapper.value) if message.HasField(name) else default
