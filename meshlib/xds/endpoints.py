"""ClusterLoadAssignment → endpoints.

The one resource that is large and changes all the time, so its loop is written for speed: about two microseconds an
endpoint.  Paths are put together only when there is something to report.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from meshlib.model.endpoint import OVERPROVISIONING, Assignment, Endpoint, Health, Locality
from meshlib.xds.fields import allow_only, join_path
from meshlib.xds.invalid import Problems
from meshlib.xds.proto import core_pb2, endpoint_pb2

LABELS: Final = "envoy.lb"
"""Where an endpoint's labels are in its metadata: the namespace that Envoy's own subset balancer reads."""

HASH_KEY: Final = "hash_key"
"""The label by which an endpoint is placed in hash tables, whatever its address (Envoy's ring hash and maglev)."""

SOCKET_MATCH: Final = "envoy.transport_socket_match"
TLS_MODE: Final = "tlsMode"
MTLS_MODE: Final = "istio"
"""Where in its metadata an endpoint says that it speaks the mesh's mTLS (Envoy's `transport_socket_matches`), and how."""

_HEALTH: Final = {
    endpoint_pb2.UNKNOWN: Health.HEALTHY,
    endpoint_pb2.HEALTHY: Health.HEALTHY,
    endpoint_pb2.UNHEALTHY: Health.UNHEALTHY,
    endpoint_pb2.DRAINING: Health.DRAINING,
    endpoint_pb2.TIMEOUT: Health.UNHEALTHY,
    endpoint_pb2.DEGRADED: Health.DEGRADED,
}
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")
_HOSTNAME = re.compile(r"(?=.{1,253}\.?\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_ASSIGNMENT_FIELDS = frozenset({"cluster_name", "endpoints", "policy"})
_POLICY_FIELDS = frozenset({"overprovisioning_factor"})
_ADDRESS_FIELDS = frozenset({"protocol", "address", "port_value"})
_MAX_PRIORITY = 128
_MAX_WEIGHT = 2**32 - 1


def decode_endpoints(
    assignment: endpoint_pb2.ClusterLoadAssignment, problems: Problems, *, field: str = "", host_names: bool = False
) -> Assignment:
    """All endpoints in the order given.  `host_names`: addresses may be names (DNS clusters), not just IP literals."""
    allow_only(assignment, _ASSIGNMENT_FIELDS, field=field, problems=problems)
    factor = _overprovisioning(assignment, problems, field=field)
    prefix = join_path(field, "endpoints")
    found: list[Endpoint] = []
    for index, group in enumerate(assignment.endpoints):
        if group.priority > _MAX_PRIORITY:
            problems.add(f"{prefix}[{index}].priority", group.priority, f"0 to {_MAX_PRIORITY}")
            continue
        found += _group(group, problems, field=f"{prefix}[{index}]", host_names=host_names)
    keys = [endpoint.key for endpoint in found]
    if len(set(keys)) != len(keys):
        for key, times in Counter(keys).items():
            if times > 1:
                problems.describe(prefix, f"{key} {times} times", "each address once")
    if max(sum([endpoint.weight for endpoint in found]), _locality_weights(assignment)) > _MAX_WEIGHT:
        problems.describe(prefix, "sum of load_balancing_weight", f"at most {_MAX_WEIGHT}")
    return Assignment(tuple(found), factor)


def _locality_weights(assignment: endpoint_pb2.ClusterLoadAssignment) -> int:
    """The largest sum that one priority has."""
    sums: Counter[int] = Counter()
    for group in assignment.endpoints:
        sums[group.priority] += group.load_balancing_weight.value
    return max(sums.values(), default=0)


def _overprovisioning(assignment: endpoint_pb2.ClusterLoadAssignment, problems: Problems, *, field: str) -> int:
    if not assignment.HasField("policy"):
        return OVERPROVISIONING
    path = join_path(field, "policy")
    policy = assignment.policy
    allow_only(policy, _POLICY_FIELDS, field=path, problems=problems)
    if not policy.HasField("overprovisioning_factor"):
        return OVERPROVISIONING
    factor = policy.overprovisioning_factor.value
    if factor < 1:
        problems.add(f"{path}.overprovisioning_factor", factor, "1 or more")
    return int(factor)


def _group(group: endpoint_pb2.LocalityLbEndpoints, problems: Problems, *, field: str, host_names: bool) -> list[Endpoint]:
    """The endpoints of one locality."""
    locality = Locality(group.locality.region, group.locality.zone, group.locality.sub_zone)
    priority, is_ipv4, health_of = group.priority, _IPV4.fullmatch, _HEALTH.get
    share = group.load_balancing_weight.value
    if not share and group.HasField("load_balancing_weight"):
        problems.add(f"{field}.load_balancing_weight", 0, "1 or more")
    metadata_of: dict[bytes, _Metadata] = {}  # a deployment's endpoints share a few label sets
    found: list[Endpoint] = []
    for index, item in enumerate(group.lb_endpoints):
        endpoint = item.endpoint
        address = endpoint.address.socket_address
        literal, port = address.address, address.port_value
        health, weight = health_of(item.health_status), item.load_balancing_weight.value
        if (
            health is None
            or not 0 < port < 65536
            or (not weight and item.HasField("load_balancing_weight"))
            or address.protocol
            or address.resolver_name
            or not (is_ipv4(literal) or _is_other_address(literal, host_names=host_names))
        ):
            _report(item, problems, field=f"{field}.lb_endpoints[{index}]", host_names=host_names)
            continue
        labels, mtls, hash_key = _NO_METADATA
        if item.HasField("metadata"):
            raw = item.metadata.SerializePartialToString()
            if raw not in metadata_of:
                labels, mtls = _labels(item.metadata), _mtls(item.metadata, problems, f"{field}.lb_endpoints[{index}]")
                metadata_of[raw] = labels, mtls, dict(labels).get(HASH_KEY, "")
            labels, mtls, hash_key = metadata_of[raw]
        identity = (endpoint.hostname, labels, mtls, share, hash_key)
        found.append(_interned(literal, port, weight or 1, locality, priority, health, *identity))
    return found


# An endpoint is in the cluster of its service and in that of its subset, and most of a version's endpoints are those of the
# version before: equal ones are one object, which is also what makes comparing the two versions fast.
_interned = lru_cache(maxsize=32_768)(Endpoint)


def _is_other_address(literal: str, *, host_names: bool) -> bool:
    try:
        return bool(ip_address(literal))
    except ValueError:
        return host_names and _HOSTNAME.fullmatch(literal) is not None


_Metadata = tuple[tuple[tuple[str, str], ...], bool, str]
_NO_METADATA: _Metadata = ((), False, "")


def _mtls(metadata: core_pb2.Metadata, problems: Problems, field: str) -> bool:
    if SOCKET_MATCH not in metadata.filter_metadata:
        return False
    asked = dict(metadata.filter_metadata[SOCKET_MATCH].items())
    if asked != {TLS_MODE: MTLS_MODE}:
        # Whatever is meant, it is not to be taken for plaintext.
        where = f"{field}.metadata.filter_metadata[{SOCKET_MATCH!r}]"
        problems.describe(where, str(asked), str({TLS_MODE: MTLS_MODE}))
    return True


def _labels(metadata: core_pb2.Metadata) -> tuple[tuple[str, str], ...]:
    if LABELS not in metadata.filter_metadata:
        return ()
    fields = metadata.filter_metadata[LABELS].fields
    return tuple(sorted((key, fields[key].string_value) for key in fields if fields[key].HasField("string_value")))


def _report(item: endpoint_pb2.LbEndpoint, problems: Problems, *, field: str, host_names: bool) -> None:
    """Say everything that is wrong with an endpoint of which it is known that something is."""
    if item.WhichOneof("host_identifier") is None:
        problems.describe(field, "no endpoint", "an endpoint with a socket_address")
        return
    where = f"{field}.endpoint.address"
    if not item.endpoint.address.HasField("socket_address"):
        problems.describe(where, item.endpoint.address.WhichOneof("address") or "unset", "a socket_address")
        return
    address = item.endpoint.address.socket_address
    allow_only(address, _ADDRESS_FIELDS, field=f"{where}.socket_address", problems=problems)
    if address.protocol:
        problems.add(f"{where}.socket_address.protocol", address.protocol, "TCP")
    if not _IPV4.fullmatch(address.address) and not _is_other_address(address.address, host_names=host_names):
        expected = "an IP address or host name" if host_names else "an IP address"
        problems.add(f"{where}.socket_address.address", address.address, expected)
    if not 0 < address.port_value < 65536:
        problems.add(f"{where}.socket_address.port_value", address.port_value, "1 to 65535")
    if item.health_status not in _HEALTH:
        problems.add(f"{field}.health_status", item.health_status, "a known HealthStatus")
    if item.HasField("load_balancing_weight") and item.load_balancing_weight.value < 1:
        problems.add(f"{field}.load_balancing_weight", item.load_balancing_weight.value, "1 or more")
