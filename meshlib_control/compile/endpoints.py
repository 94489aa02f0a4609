"""Instances → ClusterLoadAssignment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from meshlib.xds.proto import core_pb2, endpoint_pb2
from meshlib_control.catalog.model import Instance, InstanceHealth, Port, Service
from meshlib_control.compile.destination_rules import Policy, policy_of
from meshlib_control.compile.hosts import is_address
from meshlib_control.compile.locality import Group, Locality, Preference, arranged, effective_setting, weight_of
from meshlib_control.compile.names import parse_cluster_name
from meshlib_control.compile.node import Flavour, Scope
from meshlib_control.compile.resilience_policies import notices_failures
from meshlib_control.compile.scope import is_served
from meshlib_control.compile.services import instance_port, is_tls, port_of
from meshlib_control.compile.tls import as_called, speaks_mtls
from meshlib_control.compile.view import reached
from meshlib_control.compile.world import World
from meshlib_control.config.mtls import MTLS_MODE

LABELS: Final = "envoy.lb"
"""Namespace of an endpoint's labels in its metadata: the one that Envoy's own subset balancer reads."""

SOCKET_MATCH: Final = "envoy.transport_socket_match"
TLS_MODE: Final = "tlsMode"
"""Where in its metadata an endpoint says that it speaks mTLS: what a cluster's `transport_socket_matches` look at."""

_HEALTH = {
    InstanceHealth.HEALTHY: endpoint_pb2.HEALTHY,
    InstanceHealth.UNHEALTHY: endpoint_pb2.UNHEALTHY,
    InstanceHealth.DRAINING: endpoint_pb2.DRAINING,
}
_DNS = ("DNS", "DNS_ROUND_ROBIN")
_SOCKET = "unix://"


@dataclass(frozen=True, slots=True)
class Form:
    """How an assignment is written: for whom, which endpoints come first there, whether addresses may be host names, and who
    speaks mTLS on which port.
    """

    flavour: Flavour
    preference: Preference | None = None
    host_names: bool = False
    speaks_mtls: Callable[[Instance, int], bool] = lambda instance, port: False


def form_for(world: World, scope: Scope, service: Service, policy: Policy, *, host_names: bool = False) -> Form:
    preference = preference_for(world, scope, service, policy)
    return Form(scope.flavour, preference, host_names, partial(speaks_mtls, world, service))


def preference_for(world: World, scope: Scope, service: Service, policy: Policy) -> Preference | None:
    """What the scope's callers prefer among the service's endpoints under this policy; None: nothing."""
    setting = effective_setting(world.settings.locality, policy.load_balancer)
    if setting is None:
        return None
    failing_over = policy.outlier_detection is not None or notices_failures(
        world.resilience_policies.holding_for(service, scope.namespace)
    )
    return Preference(setting, Locality.parse(scope.locality), dict(scope.labels), failing_over)


def is_eds(service: Service, port: Port) -> bool:
    """Whether the endpoints are a resource of their own: not DNS names, nor wherever the caller wanted to go."""
    return service.resolution == "STATIC" and not is_tls(port)


def load_assignment(world: World, scope: Scope, name: str) -> endpoint_pb2.ClusterLoadAssignment | None:
    """The EDS resource of a cluster; None: it has none.  A cluster without instances has an empty one."""
    parsed = parse_cluster_name(name)
    service = reached(world, scope, parsed.host, parsed.port) if parsed else None
    port = port_of(service, parsed.port) if parsed and service else None
    if parsed is None or service is None or port is None:
        return None
    rule = world.destination_rules.holding_for(service, scope.namespace, dict(scope.labels))
    subset = rule.subset(parsed.subset) if rule else None
    if parsed.subset and subset is None:
        return None  # no DestinationRule defines it
    policy = policy_of(rule, subset, port.number)
    port = as_called(world, port, policy.tls)
    if not is_served(scope, service, port) or not is_eds(service, port):
        return None
    chosen = chosen_instances(world.instances_of(service), subset.labels if subset else {})
    return assignment(name, chosen, port, form_for(world, scope, service, policy))


def chosen_instances(instances: Iterable[Instance], labels: Mapping[str, str]) -> Iterator[Instance]:
    wanted = labels.items()
    return (instance for instance in instances if wanted <= instance.labels.items())


def assignment(name: str, instances: Iterable[Instance], port: Port, form: Form) -> endpoint_pb2.ClusterLoadAssignment:
    """Localities and endpoints in a fixed order, each address once, so that equal instances give equal bytes."""
    result = endpoint_pb2.ClusterLoadAssignment(cluster_name=name)
    metadata: dict[_MetadataKey, core_pb2.Metadata | None] = {}
    groups: Sequence[Group] = _groups(instances, port, form)
    if form.preference is not None:
        groups = arranged(groups, form.preference)
    for group in groups:
        part = result.endpoints.add(priority=group.priority)
        part.locality.region, part.locality.zone, part.locality.sub_zone = group.locality
        part.load_balancing_weight.value = group.weight  # always: grpcio ignores localities without one
        for (host, number), instance in group.members:
            endpoint = part.lb_endpoints.add()
            _set_address(endpoint.endpoint.address, host, number)
            endpoint.health_status = _HEALTH[instance.health]
            endpoint.load_balancing_weight.value = weight_of(instance)
            if form.flavour != "grpc" and (found := _metadata(instance, number, form, metadata)) is not None:
                endpoint.metadata.CopyFrom(found)
    return result


def _groups(instances: Iterable[Instance], port: Port, form: Form) -> list[Group]:
    """By locality; the weight of one is the sum of its endpoints', as in Istio."""
    localities: dict[str, dict[tuple[str, int], Instance]] = {}
    seen: set[tuple[str, int]] = set()
    for instance in sorted(instances, key=lambda item: (item.locality, item.address, item.port, item.id)):
        address = (instance.address, instance_port(instance, port))
        # An address that this kind of cluster cannot have would make clients refuse all of its endpoints.
        usable = _is_usable(instance.address, form)
        if usable and address not in seen:
            seen.add(address)
            localities.setdefault(instance.locality, {})[address] = instance
    return [
        Group(Locality.parse(text), tuple(members.items()), sum(map(weight_of, members.values())))
        for text, members in sorted(localities.items())
    ]


def is_dns(service: Service) -> bool:
    return service.resolution in _DNS


def _is_usable(address: str, form: Form) -> bool:
    if address.startswith(_SOCKET):
        return form.flavour == "envoy"
    return form.host_names or is_address(address)


def _set_address(address: core_pb2.Address, host: str, port: int) -> None:
    if host.startswith(_SOCKET):
        address.pipe.path = host.removeprefix(_SOCKET)
    else:
        address.socket_address.address = host.strip("[]")
        address.socket_address.port_value = port


_MetadataKey = tuple[tuple[tuple[str, str], ...], bool, int]


def _metadata(
    instance: Instance, port: int, form: Form, known: dict[_MetadataKey, core_pb2.Metadata | None]
) -> core_pb2.Metadata | None:
    """Instances share a few label sets, and making a Struct is slow."""
    key = tuple(sorted(instance.labels.items())), instance.mtls, port
    if key not in known:
        metadata = core_pb2.Metadata()
        for name, value in key[0]:
            metadata.filter_metadata[LABELS][name] = value
        if form.speaks_mtls(instance, port):
            metadata.filter_metadata[SOCKET_MATCH][TLS_MODE] = MTLS_MODE
        known[key] = metadata if metadata.filter_metadata else None
    return known[key]
