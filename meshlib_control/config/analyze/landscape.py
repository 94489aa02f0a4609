"""What the analysis knows: the resources, the hosts they name, the services of the catalog, and who sees what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from meshlib_control.config.hosts import DEFAULT_DOMAIN, fqdn, is_visible, most_specific
from meshlib_control.config.kinds import DestinationRule, MeshConfig, ServiceEntry, VirtualService
from meshlib_control.config.model import ConfigResource, ConfigSet, Key
from meshlib_control.config.problems import Problem
from meshlib_control.config.validate.names import host_is_within

MESH_CONFIG = Key("MeshConfig", "default", "mesh")


@dataclass(frozen=True, slots=True)
class KnownService:
    """A service of the catalog, as far as the analysis looks at it.

    `ports`: number to protocol; empty: unknown.  `instances`: the labels of each; None: unknown.
    """

    host: str
    namespace: str
    ports: Mapping[int, str] = field(default_factory=dict)
    export_to: tuple[str, ...] = ("*",)
    instances: tuple[Mapping[str, str], ...] | None = None


@dataclass(frozen=True, slots=True)
class Issue:
    """A problem of one of the resources."""

    resource: ConfigResource
    problem: Problem


class Landscape:
    """Built once for an analysis, then only read.  `live`: the catalog was looked at, so what is unknown does not exist."""

    def __init__(self, resources: ConfigSet, services: Iterable[KnownService] | None, domain: str = DEFAULT_DOMAIN) -> None:
        mesh = resources.get(MESH_CONFIG)
        self.mesh: MeshConfig = mesh.spec if mesh is not None else MeshConfig()
        self.domain = domain
        self.live = services is not None
        self.virtual_services = resources.of("VirtualService")
        self.destination_rules = resources.of("DestinationRule")
        entries = [service for resource in resources.of("ServiceEntry") for service in self._entry_services(resource)]
        self._services = [(service.host, service) for service in (*(services or ()), *entries)]
        self._rules = [(self.rule_host(rule), rule) for rule in self.destination_rules]
        self._named = {self.rule_host(rule) for rule in self.destination_rules} | {
            self.fqdn(host, resource) for resource in self.virtual_services for host in resource.spec.hosts
        }

    def fqdn(self, host: str, resource: ConfigResource) -> str:
        """The full name of a host that `resource` names."""
        return fqdn(host, resource.key.namespace, self.domain)

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

    def _namespaces(self, resource: ConfigResource) -> set[str]:
        return {resource.key.namespace if entry == "." else entry for entry in self.export_to(resource)}

    def services(self, host: str) -> list[KnownService]:
        """Services that answer to a full name."""
        return most_specific(host, self._services)

    def rules(self, host: str) -> list[ConfigResource]:
        """DestinationRules about a full name, whoever sees them."""
        return [rule for pattern, rule in self._rules if host_is_within(host, pattern)]

    def rules_for(self, host: str, namespace: str) -> list[ConfigResource]:
        """DestinationRules that hold for callers in `namespace`: the most specific of those that they see."""
        return most_specific(host, ((pattern, rule) for pattern, rule in self._rules if self.sees(rule, namespace)))

    def is_named(self, host: str) -> bool:
        """Whether some VirtualService or DestinationRule is about the host: without a catalog, as good as known."""
        return any(host_is_within(host, named) for named in self._named)

    def known_hosts(self) -> list[str]:
        """For suggestions."""
        hosts = {host for host, _ in self._services}
        return sorted(hosts if self.live else hosts | self._named)

    def _entry_services(self, resource: ConfigResource) -> Iterator[KnownService]:
        spec: ServiceEntry = resource.spec
        instances = tuple(endpoint.labels for endpoint in spec.endpoints) if spec.endpoints else None
        for host in spec.hosts:
            yield KnownService(
                host=host.lower(),
                namespace=resource.key.namespace,
                ports={port.number: (port.protocol or "tcp").lower() for port in spec.ports},
                export_to=self.export_to(resource),
                instances=instances,
            )
