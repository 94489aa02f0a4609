"""Consistent hashing: which part of a request is hashed.  It belongs to clusters in Istio, and to routes in Envoy."""

from __future__ import annotations

from collections.abc import Iterable

from meshlib.xds.proto import route_pb2
from meshlib_control.compile.destination_rules import policy_of
from meshlib_control.compile.names import parse_cluster_name
from meshlib_control.compile.node import Scope
from meshlib_control.compile.retry_policy import duration
from meshlib_control.compile.world import World
from meshlib_control.config.kinds import ConsistentHash

_HashPolicy = route_pb2.RouteAction.HashPolicy


def set_hash_policies(world: World, scope: Scope, action: route_pb2.RouteAction) -> bool:
    """Write those of the action's clusters, in their order, and say whether there are any.

    As in Istio the hash of a request is made of all of them: one route has one hash, whichever of its clusters is drawn.
    """
    for name in _clusters(action):
        hashed = _consistent_hash(world, scope, name)
        policy = _hash_policy(hashed) if hashed is not None else None
        if policy is not None and (scope.flavour != "grpc" or policy.HasField("header")):
            action.hash_policy.append(policy)
    return bool(action.hash_policy)


def hashes_in_grpc(hashed: ConsistentHash) -> bool:
    """Grpcio hashes headers alone; of anything else each of its calls would have a random hash."""
    return hashed.http_header_name is not None


def _clusters(action: route_pb2.RouteAction) -> Iterable[str]:
    if action.WhichOneof("cluster_specifier") == "cluster":
        return (action.cluster,)
    return (share.name for share in action.weighted_clusters.clusters)


def _consistent_hash(world: World, scope: Scope, cluster: str) -> ConsistentHash | None:
    name = parse_cluster_name(cluster)
    service = world.services.find(name.host, scope.namespace) if name else None
    if name is None or service is None:
        return None
    rule = world.destination_rules.holding_for(service, scope.namespace, dict(scope.labels))
    balancer = policy_of(rule, rule.subset(name.subset) if rule else None, name.port).load_balancer
    return balancer.consistent_hash if balancer is not None else None


def _hash_policy(hashed: ConsistentHash) -> route_pb2.RouteAction.HashPolicy | None:
    """None: nothing is named, and every request has a random hash."""
    policy = _HashPolicy()
    if hashed.http_header_name is not None:
        policy.header.header_name = hashed.http_header_name
    elif (cookie := hashed.http_cookie) is not None:
        policy.cookie.name, policy.cookie.path = cookie.name, cookie.path or ""
        if cookie.ttl is not None:
            policy.cookie.ttl.CopyFrom(duration(cookie.ttl))
        for attribute in cookie.attributes:
            policy.cookie.attributes.add(name=attribute.name, value=attribute.value or "")
    elif hashed.http_query_parameter_name is not None:
        policy.query_parameter.name = hashed.http_query_parameter_name
    elif hashed.use_source_ip:
        policy.connection_properties.source_ip = True
    else:
        return None
    return policy
