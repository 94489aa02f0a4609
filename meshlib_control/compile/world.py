"""Everything that resources are made of, at one moment: configuration and catalog, indexed.  Immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from meshlib_control.catalog.model import CatalogSnapshot, Instance, Service
from meshlib_control.compile.destination_rules import DestinationRules
from meshlib_control.compile.hosts import resolve
from meshlib_control.compile.mesh_settings import MeshSettings, mesh_settings
from meshlib_control.compile.rate_limits import RateLimitPolicies
from meshlib_control.compile.resilience_policies import ResiliencePolicies
from meshlib_control.compile.selection import Selection
from meshlib_control.compile.service_entries import ServiceKey, declared_services
from meshlib_control.compile.services import Services
from meshlib_control.compile.sidecars import Sidecars
from meshlib_control.compile.trust import Trust, completed
from meshlib_control.compile.virtual_services import VirtualServices
from meshlib_control.compile.workload_groups import WorkloadGroups
from meshlib_control.config.authentication import RequestAuthentications
from meshlib_control.config.authorization import AuthorizationPolicies
from meshlib_control.config.model import ConfigSet
from meshlib_control.config.mtls import PeerAuthentications


@dataclass(frozen=True, slots=True)
class Routing:
    """The part of a world that changes only with configuration or the list of services.

    Worlds that differ in instances alone share one, so that their difference is found quickly (`affected`).
    """

    config: ConfigSet
    catalog_services: Mapping[str, Service]
    settings: MeshSettings
    services: Services
    virtual_services: VirtualServices
    destination_rules: DestinationRules
    declared_instances: Mapping[ServiceKey, tuple[Instance, ...]]
    declared_names: Mapping[ServiceKey, tuple[str, ...]]  # subjectAltNames of ServiceEntries
    selection: Selection  # of registered instances by ServiceEntries
    peer_authentications: PeerAuthentications
    authorization_policies: AuthorizationPolicies
    request_authentications: RequestAuthentications
    sidecars: Sidecars
    workload_groups: WorkloadGroups
    rate_limits: RateLimitPolicies
    resilience_policies: ResiliencePolicies


@dataclass(frozen=True, slots=True)
class World:
    """Build with `World.of`."""

    routing: Routing
    instances: Mapping[str, tuple[Instance, ...]]  # of the catalog, by host
    trust: Trust = Trust()
    jwks: Mapping[str, str] = field(default_factory=dict)  # key sets that were fetched, by jwksUri
    # What ServiceEntries select of `instances`, as far as somebody has asked.
    _selected: dict[ServiceKey, tuple[Instance, ...]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        config: ConfigSet,
        catalog: CatalogSnapshot,
        *,
        domain: str = "cluster.local",
        trust: Trust | None = None,
        jwks: Mapping[str, str] | None = None,
        previous: World | None = None,
    ) -> World:
        """The world of this configuration, catalog and trust.  `previous`: what did not change is taken from there.

        `trust`: as the certificate authority has it, to which MeshConfig may add; None: what MeshConfig says is all there is.
        """
        if previous is not None:
            routing = previous.routing
            if (
                routing.config is config
                and routing.settings.domain == domain
                and (routing.catalog_services is catalog.services or routing.catalog_services == catalog.services)
            ):
                known = completed(trust, routing.settings)
                return replace(previous, instances=catalog.instances, trust=known, jwks=jwks or {}, _selected={})
        routing = _routing(config, catalog, domain)
        return cls(routing, catalog.instances, completed(trust, routing.settings), jwks or {})

    @property
    def settings(self) -> MeshSettings:
        return self.routing.settings

    @property
    def services(self) -> Services:
        return self.routing.services

    @property
    def virtual_services(self) -> VirtualServices:
        return self.routing.virtual_services

    @property
    def destination_rules(self) -> DestinationRules:
        return self.routing.destination_rules

    @property
    def peer_authentications(self) -> PeerAuthentications:
        return self.routing.peer_authentications

    @property
    def authorization_policies(self) -> AuthorizationPolicies:
        return self.routing.authorization_policies

    @property
    def request_authentications(self) -> RequestAuthentications:
        return self.routing.request_authentications

    @property
    def rate_limits(self) -> RateLimitPolicies:
        return self.routing.rate_limits

    @property
    def resilience_policies(self) -> ResiliencePolicies:
        return self.routing.resilience_policies

    @property
    def workload_groups(self) -> WorkloadGroups:
        return self.routing.workload_groups

    @property
    def sidecars(self) -> Sidecars:
        return self.routing.sidecars

    def declared_names(self, service: Service) -> tuple[str, ...]:
        """Names that certificates of its instances have beside those of their service accounts."""
        return self.routing.declared_names.get((service.namespace, service.host), ())

    def instances_of(self, service: Service) -> tuple[Instance, ...]:
        """All instances of a service, whatever their health."""
        if service.source == "config":
            key = (service.namespace, service.host)
            if key not in self._selected:
                chosen = self.routing.selection.chosen(key, self.instances)
                self._selected[key] = self.routing.declared_instances.get(key, ()) + chosen
            return self._selected[key]
        return self.instances.get(service.host, ())

    def resolve(self, host: str, namespace: str) -> str:
        """The fully qualified name of a host in a resource of `namespace`."""
        return resolve(host, namespace, domain=self.settings.domain, known=self.services.hosts)


def _routing(config: ConfigSet, catalog: CatalogSnapshot, domain: str) -> Routing:
    settings = mesh_settings(config, domain)
    declared = declared_services(config, settings)
    # The catalog's come first: what runs there cannot be taken over by a ServiceEntry for the same host.
    services = Services((*catalog.services.values(), *declared.services), settings)

    def full(host: str, namespace: str) -> str:
        return resolve(host, namespace, domain=domain, known=services.hosts)

    return Routing(
        config=config,
        catalog_services=catalog.services,
        settings=settings,
        services=services,
        virtual_services=VirtualServices(config.of("VirtualService"), full, settings),
        destination_rules=DestinationRules(config.of("DestinationRule"), full, settings),
        declared_instances=declared.instances,
        declared_names=declared.names,
        selection=Selection(declared.selectors, catalog.services),
        peer_authentications=PeerAuthentications(config.of("PeerAuthentication"), settings.root_namespace),
        authorization_policies=AuthorizationPolicies(config.of("AuthorizationPolicy"), settings.root_namespace),
        request_authentications=RequestAuthentications(config.of("RequestAuthentication"), settings.root_namespace),
        workload_groups=WorkloadGroups(config.of("WorkloadGroup")),
        sidecars=Sidecars(config.of("Sidecar"), settings.root_namespace),
        rate_limits=RateLimitPolicies(config.of("RateLimitPolicy"), full, settings),
        resilience_policies=ResiliencePolicies(config.of("ResiliencePolicy"), full, settings),
    )
