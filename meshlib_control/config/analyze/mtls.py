"""Both ends of a connection have to mean the same: DestinationRules, PeerAuthentications, and what instances speak."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from meshlib_control.config.analyze.landscape import Issue, KnownService, Landscape
from meshlib_control.config.kinds import ClientTLSSettings, DestinationRule, TrafficPolicy
from meshlib_control.config.model import ConfigResource, Key
from meshlib_control.config.mtls import MTLS_LABEL, MTLS_MODE, Mode, PeerAuthentications, selector_of
from meshlib_control.config.problems import Path, Problem, under

_MODE: Path = ("tls", "mode")


def check_mtls(land: Landscape, *, grpc_clients: bool | None) -> Iterator[Issue]:
    """`grpc_clients`: whether clients use grpcio's own xDS; None: unknown, so judged by the ports' protocols."""
    modes = PeerAuthentications(land.peer_authentications, land.mesh.root_namespace)
    for resource in land.destination_rules:
        for problem in _check_rule(resource, land, modes, grpc_clients):
            yield Issue(resource, problem)
    for resource in land.peer_authentications:
        for problem in _check_peer_authentication(resource, land):
            yield Issue(resource, problem)
    yield from _check_doubles(land)
    yield from _check_instances(land, modes)


def _check_rule(
    resource: ConfigResource, land: Landscape, modes: PeerAuthentications, grpc_clients: bool | None
) -> Iterator[Problem]:
    """What it says of TLS, at every level, against what holds for the workloads of its host."""
    spec: DestinationRule = resource.spec
    host = land.rule_host(resource)
    services = [service for service in land.services(host) if not host.startswith("*")]
    grpc = any(port.protocol == "grpc" for service in services for port in service.ports)
    held = _held(host, services, land, modes)
    for path, tls in _settings(spec):
        yield from under(("spec", *path), _check_conflict(tls, host, held))
        if (grpc if grpc_clients is None else grpc_clients) and _needs_files(tls):
            message = f"gRPC clients that use xds:/// do not get {host}: their TLS has neither files nor exceptions"
            yield Problem(("spec", *path, *_MODE), "MSH0315", message)


def _settings(spec: DestinationRule) -> Iterator[tuple[Path, ClientTLSSettings]]:
    policies: list[tuple[Path, TrafficPolicy | None]] = [(("trafficPolicy",), spec.traffic_policy)]
    policies += [(("subsets", index, "trafficPolicy"), subset.traffic_policy) for index, subset in enumerate(spec.subsets)]
    for path, policy in policies:
        if policy is None:
            continue
        if policy.tls is not None:
            yield path, policy.tls
        for index, level in enumerate(policy.port_level_settings):
            if level.tls is not None:
                yield (*path, "portLevelSettings", index), level.tls


def _held(
    host: str, services: list[KnownService], land: Landscape, modes: PeerAuthentications
) -> Mapping[Mode, ConfigResource | None]:
    """The modes that hold for workloads of the host and a resource that says so; without those that differ by port."""
    found: dict[Mode, ConfigResource | None] = {}
    namespaces = [service.namespace for service in services if service.location != "MESH_EXTERNAL"]
    if not services and (owner := land.owner(host)):
        namespaces = [owner]
    for namespace in namespaces:
        for labels in land.instances(host) or [{}]:
            level = modes.level(namespace, labels)
            if level.workload is not None and level.workload.spec.port_level_mtls:
                continue
            found.setdefault(modes.mode(namespace, labels, 0), level.workload or level.namespace or level.mesh)
    return found


def _check_conflict(tls: ClientTLSSettings, host: str, held: Mapping[Mode, ConfigResource | None]) -> Iterator[Problem]:
    if tls.mode != "ISTIO_MUTUAL" and (strict := held.get("STRICT")) is not None:
        message = f"{strict.key} has {host} accept mTLS only, so calls by {tls.mode} are refused; leave tls out"
        yield Problem(_MODE, "MSH0311", message)
    if tls.mode == "ISTIO_MUTUAL" and (disabled := held.get("DISABLE")) is not None:
        message = f"{disabled.key} has {host} accept plaintext only, so calls by mTLS fail; leave tls out"
        yield Problem(_MODE, "MSH0312", message)


def _needs_files(tls: ClientTLSSettings) -> bool:
    return tls.mode == "MUTUAL" or (tls.mode == "SIMPLE" and bool(tls.ca_certificates or tls.insecure_skip_verify))


def _check_peer_authentication(resource: ConfigResource, land: Landscape) -> Iterator[Problem]:
    selector, namespace = selector_of(resource), resource.key.namespace
    path: Path = ("spec", "selector")
    if not selector:
        return
    if namespace == land.mesh.root_namespace:
        message = f"{namespace} is the root namespace, where a selector chooses no workload; leave it out for the whole mesh"
        yield Problem(path, "MSH0314", message)
        return
    labels = [labels for service in land.known if service.namespace == namespace for labels in land.instances(service.host)]
    if labels and not any(selector.items() <= each.items() for each in labels):
        wanted = ", ".join(f"{key}={value}" for key, value in sorted(selector.items()))
        yield Problem(path, "MSH0314", f"none of the {len(labels)} known instances in {namespace} has {wanted}")


def _check_doubles(land: Landscape) -> Iterator[Issue]:
    """Of several for the same workloads the oldest, which comes first, holds."""
    first: dict[tuple[str, tuple[tuple[str, str], ...]], ConfigResource] = {}
    for resource in land.peer_authentications:
        selector = tuple(sorted(selector_of(resource).items()))
        older = first.setdefault((resource.key.namespace, selector), resource)
        if older is not resource:
            message = f"{older.key} is for the same workloads and older, so this one is not used; write one of them"
            yield Issue(resource, Problem(("spec",), "MSH0314", message))


def _check_instances(land: Landscape, modes: PeerAuthentications) -> Iterator[Issue]:
    """Told at the PeerAuthentication that decides."""
    plain: dict[Key, tuple[ConfigResource, list[str]]] = {}
    for service in land.known:
        if service.location == "MESH_EXTERNAL":
            continue
        for labels in land.instances(service.host):
            if labels.get(MTLS_LABEL) == MTLS_MODE or modes.mode(service.namespace, labels, 0) != "STRICT":
                continue
            level = modes.level(service.namespace, labels)
            deciding = level.workload or level.namespace or level.mesh
            if deciding is not None:
                plain.setdefault(deciding.key, (deciding, []))[1].append(service.host)
    for resource, hosts in plain.values():
        named = ", ".join(sorted(set(hosts)))
        message = (
            f"{len(hosts)} known instances speak no mTLS, though it is STRICT for them, of {named}: start them with an identity"
        )
        yield Issue(resource, Problem(("spec", "mtls"), "MSH0313", message))
