"""What has to be made anew when one world follows another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from meshlib_control.catalog.model import Service
from meshlib_control.compile.names import ClusterName
from meshlib_control.compile.world import World


@dataclass(frozen=True, slots=True)
class Affected:
    """`endpoint_clusters`: names of EDS resources, for any scope; `clusters`: those of them whose cluster may differ too.
    `everything`: any resource may differ.
    """

    everything: bool = False
    endpoint_clusters: frozenset[str] = frozenset()
    clusters: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return self.everything or bool(self.endpoint_clusters)


def affected(old: World, new: World) -> Affected:
    """Made for worlds where `new` was built with `previous=old`: hosts whose instances are the same tuple cost one
    comparison of identities.
    """
    if old.routing is not new.routing or old.trust != new.trust or old.jwks != new.jwks:
        return Affected(everything=True)
    changed = [host for host in old.instances.keys() | new.instances.keys() if _differ(old, new, host)]
    endpoint_clusters: set[str] = set()
    clusters: set[str] = set()
    for host in changed:
        for service in _concerned(old, new, host):
            if service.resolution != "STATIC":
                return Affected(everything=True)  # names to resolve are part of the cluster itself
            subsets = ("", *new.destination_rules.subset_names(service.host))
            names = {str(ClusterName(port.number, subset, service.host)) for subset in subsets for port in service.ports}
            endpoint_clusters |= names
            if new.trust.secure and _secured(old, service) != _secured(new, service):
                clusters |= names
    return Affected(endpoint_clusters=frozenset(endpoint_clusters), clusters=frozenset(clusters))


def _concerned(old: World, new: World, host: str) -> Iterator[Service]:
    """Services that have instances of a host of the catalog: its own, and those of ServiceEntries that select some."""
    yield from (service for service in new.services.hosts.get(host, ()) if service.source != "config")
    for namespace, name in new.routing.selection.changed(host, old.instances, new.instances):
        yield from (
            service
            for service in new.services.hosts.get(name, ())
            if service.source == "config" and service.namespace == namespace
        )


def _secured(world: World, service: Service) -> tuple[frozenset[str], frozenset[tuple[bool, frozenset[tuple[str, str]]]]]:
    """What a cluster says of the instances: who they may be, and for grpcio whether all of them speak mTLS."""
    instances = world.instances_of(service)
    return (
        frozenset(instance.service_account for instance in instances),
        frozenset((instance.mtls, frozenset(instance.labels.items())) for instance in instances),
    )


def _differ(old: World, new: World, host: str) -> bool:
    before, after = old.instances.get(host, ()), new.instances.get(host, ())
    return before is not after and before != after
