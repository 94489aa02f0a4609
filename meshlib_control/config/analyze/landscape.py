"""What the analysis knows: the resources, the hosts they name, the services of the catalog, and who sees what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from meshlib_control.config.authorization import is_for_workloads
from meshlib_control.config.hosts import DEFAULT_DOMAIN, fqdn, is_visible, most_specific
from meshlib_control.config.kinds import DestinationRule, MeshConfig, ServiceEntry, VirtualService
from meshlib_control.config.model import ConfigResource, ConfigSet, Key
from meshlib_control.config.problems import Problem
from meshlib_control.config.validate.names import host_is_within

T = TypeVar("T")

MESH_CONFIG = Key("MeshConfig", "default", "mesh")


class KnownPort(Protocol):
    """A port as the analysis looks at it."""

    @property
    def number(self) -> int: ...
    @property
    def protocol(self) -> str:
        """In lower case."""
        ...


class KnownService(Protocol):
    """A service as the analysis looks at it; the catalog's are of this form."""

    @property
    def host(self) -> str:
        """The full name, in lower case."""
        ...

    @property
    def namespace(self) -> str: ...
    @property
    def ports(self) -> Sequence[KnownPort]:
        """Empty: unknown."""
        ...

    @property
    def export_to(self) -> Sequence[str]: ...
    @property
    def location(self) -> str:
        """``MESH_EXTERNAL`` or ``MESH_INTERNAL``."""
        ...

    @property
    def resolution(self) -> str:
        """How its addresses are found; ``NONE``: they are not, callers name them."""
        ...


Instances = Mapping[str, Iterable[Mapping[str, str]]]
"""The labels of each instance, by host."""

Services = Iterable[KnownService] | Mapping[str, KnownService] | Mapping[str, tuple[KnownService, ...]]
"""Services, or services by host."""


@dataclass(frozen=True, slots=True)
class _Port:
    number: int
    protocol: str


@dataclass(frozen=True, slots=True)
class _Declared:
    """A service of a ServiceEntry."""

    host: str
    namespace: str
    ports: tuple[_Port, ...]
    export_to: tuple[str, ...]
    location: str
    resolution: str


@dataclass(frozen=True, slots=True)
class Issue:
    """A problem of one of the resources."""

    resource: ConfigResource
    problem: Problem


class ByPattern(Generic[T]):
    """Values by host pattern: finds what may match a host without looking at all the others."""

    def __init__(self, pairs: Iterable[tuple[str, T]]) -> None:
        self._exact: dict[str, list[tuple[int, str, T]]] = {}
        self._wild: list[tuple[int, str, T]] = []
        for position, (pattern, value) in enumerate(pairs):
            entries = self._wild if pattern.startswith("*") else self._exact.setdefault(pattern, [])
            entries.append((position, pattern, value))

    def candidates(self, host: str) -> list[tuple[str, T]]:
        """Those of exactly this host and all wildcards, in the order in which they came."""
        found = sorted((*self._exact.get(host, ()), *self._wild), key=lambda entry: entry[0])
        return [(pattern, value) for _, pattern, value in found]


class Landscape:
    """Built once for an analysis, then only read.

    `live`: the catalog was looked at, so what is unknown does not exist.  `whole`: nor are there other settings of the mesh.
    """

    def __init__(
        self,
        resources: ConfigSet,
        services: Services | None,
        instances: Instances | None = None,
        domain: str = DEFAULT_DOMAIN,
    ) -> None:
        mesh = resources.get(MESH_CONFIG)
        self.mesh: MeshConfig = mesh.spec if mesh is not None else MeshConfig()
        self.domain = domain
        self.live = services is not None
        self.whole = self.live or mesh is not None
        self.virtual_services = resources.of("VirtualService")
        self.destination_rules = resources.of("DestinationRule")
        self.resilience_policies = resources.of("ResiliencePolicy")
        self.sidecars = resources.of("Sidecar")
        self.resilience_policies = resources.of("ResiliencePolicy")
        self.rate_limit_policies = resources.of("RateLimitPolicy")
        self.peer_authentications = resources.of("PeerAuthentication")
        self.request_authentications = tuple(filter(is_for_workloads, resources.of("RequestAuthentication")))
        self.authorization_policies = tuple(filter(is_for_workloads, resources.of("AuthorizationPolicy")))
        declared = [service for resource in resources.of("ServiceEntry") for service in self._declared(resource)]
        known: list[tuple[str, KnownService]] = [(service.host, service) for service in (*_flat(services), *declared)]
        self.known = tuple(service for _, service in known)
        self._services = ByPattern(known)
        self._hosts = {host for host, _ in known}  # without a catalog, also those that other resources are about
        self._instances = instances or {}
        rules = [(self.rule_host(rule), rule) for rule in self.destination_rules]
        self._rules = ByPattern(rules)
        self._named = {host for host, _ in rules} | {
            self.fqdn(host, resource) for resource in self.virtual_services for host in resource.spec.hosts
        }
        self._named_patterns = ByPattern((host, host) for host in self._named)
        if not self.live:
            self._hosts |= self._named

    def fqdn(self, host: str, resource: ConfigResource) -> str:
        """The full name of a host that `resource` names."""
        return fqdn(host, resource.key.namespace, self.domain, known=self._hosts)

    def rule_host(self, rule: ConfigResource) -> str:
        """Full name of the host of a DestinationRule."""
        spec: DestinationRule = rule.spec
        return self.fqdn(spec.host, rule)

    def export_to(self, resource: ConfigResource) -> tuple[str, ...]:
        """With the mesh's default filled in."""
        spec: VirtualService | DestinationRule | ServiceEntry = resource.spec
        if spec.export_to:
            return spec.export_to
        match spec:
            case VirtualService():
                return self.mesh.default_virtual_service_export_to
            case DestinationRule():
                return self.mesh.default_destination_rule_export_to
            case _:
                return self.mesh.default_service_export_to

    def sees(self, resource: ConfigResource, namespace: str) -> bool:
        """Whether callers in `namespace` see `resource`."""
        return is_visible(self.export_to(resource), resource.key.namespace, namespace)

    def share_callers(self, one: ConfigResource, other: ConfigResource) -> bool:
        """Whether some namespace sees both."""
        sets = [self._namespaces(resource) for resource in (one, other)]
        return any("*" in namespaces for namespaces in sets) or bool(sets[0] & sets[1])

    def compete(self, one: ConfigResource, other: ConfigResource) -> bool:
        """Whether only age decides between two VirtualServices of one host for some caller.

        One that is private to a namespace goes before one that is exported to it, and that before a public one.
        """
        sets = [self._namespaces(resource) for resource in (one, other)]
        if all("*" in namespaces for namespaces in sets):
            return True
        private = ["." in self.export_to(resource) for resource in (one, other)]
        if all(private):
            return one.key.namespace == other.key.namespace
        return not any(private) and "*" not in sets[0] | sets[1] and bool(sets[0] & sets[1])

    def _namespaces(self, resource: ConfigResource) -> set[str]:
        return {resource.key.namespace if entry == "." else entry for entry in self.export_to(resource)}

    def services(self, host: str) -> list[KnownService]:
        """Services that answer to a full name."""
        return most_specific(host, self._services.candidates(host))

    def rules(self, host: str) -> list[ConfigResource]:
        """DestinationRules about a full name, whoever sees them."""
        return [rule for pattern, rule in self._rules.candidates(host) if host_is_within(host, pattern)]

    def rules_for(self, host: str, namespace: str) -> list[ConfigResource]:
        """DestinationRules that hold for callers in `namespace`.

        Those of the caller's namespace, else of the service's, else of the root's; in each the most specific ones.
        """
        rules = self._rules.candidates(host)
        for owner in dict.fromkeys((namespace, self.owner(host), self.mesh.root_namespace)):
            seen = [(p, rule) for p, rule in rules if rule.key.namespace == owner and self.sees(rule, namespace)]
            found = most_specific(host, seen)
            if found:
                return found
        return []

    def owner(self, host: str) -> str:
        """Namespace of a service: what the catalog says, else what its full name says."""
        services = self.services(host)
        if services:
            return services[0].namespace
        labels = host.split(".")
        return labels[1] if len(labels) > 2 and labels[2] == "svc" else ""

    def is_named(self, host: str) -> bool:
        """Whether some VirtualService or DestinationRule is about the host: without a catalog, as good as known."""
        return any(host_is_within(host, named) for named, _ in self._named_patterns.candidates(host))

    def known_hosts(self) -> list[str]:
        """For suggestions."""
        return sorted(self._hosts)

    def instances(self, host: str) -> list[Mapping[str, str]]:
        """The labels of each instance that is known."""
        return list(self._instances.get(host, ()))

    def _declared(self, resource: ConfigResource) -> Iterator[_Declared]:
        spec: ServiceEntry = resource.spec
        ports = tuple(_Port(port.number, (port.protocol or "http").lower()) for port in spec.ports)
        for host in spec.hosts:
            yield _Declared(
                host.lower().rstrip("."),
                resource.key.namespace,
                ports,
                self.export_to(resource),
                spec.location,
                spec.resolution,
            )


def _flat(services: Services | None) -> Iterator[KnownService]:
    for service in services.values() if isinstance(services, Mapping) else services or ():
        if isinstance(service, tuple):
            yield from service
        else:
            yield service
