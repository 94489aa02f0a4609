"""ServiceEntry and WorkloadEntry → services and instances, as if a catalog had reported them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from meshlib_control.catalog.model import Instance, Port, Resolution, Service
from meshlib_control.compile.mesh_settings import MeshSettings
from meshlib_control.config.kinds import ServiceEntry, ServicePort, WorkloadEntry
from meshlib_control.config.model import ConfigResource, ConfigSet

ServiceKey = tuple[str, str]
"""(namespace, host): the same host may be declared by several namespaces."""


@dataclass(frozen=True, slots=True)
class Declared:
    """Services that configuration declares, in order of age, and their instances."""

    services: tuple[Service, ...]
    instances: Mapping[ServiceKey, tuple[Instance, ...]]
    names: Mapping[ServiceKey, tuple[str, ...]]  # subjectAltNames
    selectors: Mapping[ServiceKey, tuple[Mapping[str, str], ...]]  # workloadSelectors: registered instances are chosen too


def declared_services(config: ConfigSet, settings: MeshSettings) -> Declared:
    """Entries of one namespace for the same host add up; the attributes of the oldest hold."""
    workloads = _workloads(config)
    services: dict[ServiceKey, Service] = {}
    instances: dict[ServiceKey, tuple[Instance, ...]] = {}
    names: dict[ServiceKey, tuple[str, ...]] = {}
    selectors: dict[ServiceKey, tuple[Mapping[str, str], ...]] = {}
    for resource in config.of("ServiceEntry"):
        entry = resource.spec
        if not isinstance(entry, ServiceEntry):
            continue
        for host in entry.hosts:
            service = _service(resource, entry, host.lower().rstrip("."), settings)
            key = (service.namespace, service.host)
            services[key] = _united(services[key], service) if key in services else service
            found = _instances(resource, entry, service, workloads)
            instances[key] = instances.get(key, ()) + found
            names[key] = names.get(key, ()) + entry.subject_alt_names
            if entry.workload_selector is not None and entry.workload_selector.labels:
                selectors[key] = (*selectors.get(key, ()), entry.workload_selector.labels)
    return Declared(tuple(services.values()), instances, names, selectors)


def _workloads(config: ConfigSet) -> Mapping[str, tuple[tuple[ConfigResource, WorkloadEntry], ...]]:
    found: dict[str, list[tuple[ConfigResource, WorkloadEntry]]] = {}
    for resource in config.of("WorkloadEntry"):
        if isinstance(resource.spec, WorkloadEntry):
            found.setdefault(resource.key.namespace, []).append((resource, resource.spec))
    return {namespace: tuple(items) for namespace, items in found.items()}


def _service(resource: ConfigResource, entry: ServiceEntry, host: str, settings: MeshSettings) -> Service:
    # The name that is called is resolved when it is called: by whoever makes the connection, as with NONE.
    resolution: Resolution = "NONE" if entry.resolution == "DYNAMIC_DNS" else entry.resolution
    return Service(
        host=host,
        namespace=resource.key.namespace,
        ports=tuple(_port(port) for port in entry.ports),
        resolution=resolution,
        location=entry.location,
        export_to=entry.export_to or settings.service_export_to,
        # Only single addresses can be called by name; networks are for intercepted connections.
        addresses=tuple(address for address in entry.addresses if "/" not in address),
        source="config",
        created=resource.created,
    )


def _port(port: ServicePort) -> Port:
    # Istio sniffs the protocol of a port that names none; callers that come this way speak HTTP.
    return Port(port.number, (port.protocol or "http").lower(), port.name, port.target_port or port.number)


def _united(older: Service, newer: Service) -> Service:
    numbers = {port.number for port in older.ports}
    return replace(older, ports=older.ports + tuple(port for port in newer.ports if port.number not in numbers))


def _instances(
    resource: ConfigResource,
    entry: ServiceEntry,
    service: Service,
    workloads: Mapping[str, tuple[tuple[ConfigResource, WorkloadEntry], ...]],
) -> tuple[Instance, ...]:
    if entry.workload_selector is not None:
        wanted = entry.workload_selector.labels.items()
        return tuple(
            _instance(workload, f"WorkloadEntry/{chosen.key.namespace}/{chosen.key.name}", extra=chosen.labels)
            for chosen, workload in workloads.get(resource.key.namespace, ())
            # A WorkloadEntry's labels may be written in its metadata as well as in its spec.
            if wanted <= {**chosen.labels, **workload.labels}.items() and workload.address
        )
    listed = tuple(
        _instance(workload, f"{resource.key}[{index}]") for index, workload in enumerate(entry.endpoints) if workload.address
    )
    if not listed and entry.resolution in ("DNS", "DNS_ROUND_ROBIN"):
        return (Instance(id=str(resource.key), address=service.host, port=0),)
    return listed


def _instance(workload: WorkloadEntry, identity: str, extra: Mapping[str, str] | None = None) -> Instance:
    return Instance(
        id=identity,
        address=workload.address or "",
        port=0,
        labels={**(extra or {}), **workload.labels},
        locality=workload.locality or "",
        weight=workload.weight or 1,
        service_account=workload.service_account or "",
        ports=workload.ports,
    )
