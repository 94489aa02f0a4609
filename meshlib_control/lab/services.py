"""What a test declares: services and their instances, as the catalog has them and as the network in memory does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from meshlib.lowlevel import Peer, SpiffeId
from meshlib.testing import Instance, SimulatedMesh
from meshlib_control.catalog.model import CatalogSnapshot, InstanceHealth, Port, Service, registered_host
from meshlib_control.catalog.model import Instance as Registered

_FIRST_ADDRESS = int(IPv4Address("10.0.0.1"))


@dataclass(frozen=True, slots=True)
class Workload:
    """Who a process is: what is the same for all instances that are declared together."""

    service: str
    namespace: str
    service_account: str
    labels: Mapping[str, str] = field(default_factory=dict)
    locality: str = ""

    def peer(self, trust_domain: str) -> Peer:
        """The identity that it proves, which does not expire."""
        return Peer(SpiffeId.of_workload(trust_domain, self.namespace, self.service_account), float("inf"))


@dataclass(slots=True)
class Running:
    """One instance: registered, reachable, with a mesh of its own."""

    workload: Workload
    registered: Registered
    instance: Instance
    mesh: SimulatedMesh

    @property
    def name(self) -> str:
        return self.instance.name


@dataclass(slots=True)
class DeclaredService:
    """A service by its short name and namespace, and its instances in the order of their declaration."""

    name: str
    namespace: str
    host: str  # fully qualified
    port: Port
    members: list[Running] = field(default_factory=list)

    @property
    def instances(self) -> list[str]:
        """The names of its instances: "ratings-0", "ratings-1" ..."""
        return [member.name for member in self.members]

    def chosen(self, instance: int | str | None) -> list[Running]:
        """One instance by its number or name; None: all.  Raises LookupError naming those that there are."""
        if instance is None:
            return list(self.members)
        for number, member in enumerate(self.members):
            if instance in (number, member.name):
                return [member]
        raise LookupError(f"{self.name} has no instance {instance!r}; there are {', '.join(self.instances)}")


class Catalog:
    """All services that were declared."""

    def __init__(self, domain: str) -> None:
        self.services: dict[str, DeclaredService] = {}
        self._domain = domain
        self._addresses = 0

    def declare(self, name: str, namespace: str, port: Port) -> DeclaredService:
        """The service of this name, made if need be.  Raises ValueError when it has another port already."""
        host = registered_host(name, namespace, self._domain)
        service = self.services.get(host)
        if service is None:
            service = self.services[host] = DeclaredService(name, namespace, host, port)
        elif service.port != port:
            raise ValueError(
                f"{name} was declared with {service.port}, now with {port}: all its instances are called the same way"
            )
        return service

    def find(self, name: str, namespace: str) -> DeclaredService | None:
        return self.services.get(registered_host(name, namespace, self._domain))

    def next_address(self) -> str:
        """One that nobody else has."""
        self._addresses += 1
        return str(IPv4Address(_FIRST_ADDRESS + self._addresses - 1))

    def snapshot(self) -> CatalogSnapshot:
        services = {host: Service(host, service.namespace, (service.port,)) for host, service in self.services.items()}
        instances = {host: tuple(member.registered for member in service.members) for host, service in self.services.items()}
        return CatalogSnapshot(services, instances)


HEALTH = {"healthy": InstanceHealth.HEALTHY, "unhealthy": InstanceHealth.UNHEALTHY, "draining": InstanceHealth.DRAINING}
