"""Answers from the world that is being served: services, endpoints, routes, resources, and the way of one request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from google.protobuf.message import Message
from msgspec.structs import replace

from meshlib.xds.proto.listener_pb2 import HttpConnectionManager, Listener
from meshlib.xds.proto.registry_pb2 import ReportRequest
from meshlib.xds.proto.route_pb2 import RouteConfiguration
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE
from meshlib_control.admin import routing, views
from meshlib_control.admin.authorization import authorization
from meshlib_control.admin.nodes import node_of
from meshlib_control.admin.problems import Problem
from meshlib_control.admin.reported import Reported
from meshlib_control.catalog.model import Instance, InstanceHealth, Service
from meshlib_control.compile.document import compile_document
from meshlib_control.compile.generate import generate
from meshlib_control.compile.hosts import bracketed, is_wildcard, split_authority
from meshlib_control.compile.names import VIRTUAL_OUTBOUND, parse_cluster_name, route_name
from meshlib_control.compile.node import Scope
from meshlib_control.compile.scope import scope_of
from meshlib_control.compile.services import instance_port
from meshlib_control.compile.world import World
from meshlib_control.reports import Reporter

if TYPE_CHECKING:
    from meshlib.lowlevel import Explanation


@dataclass(frozen=True, slots=True)
class Scene:
    """What is served now.  `suspicious`: hosts whose instances are kept from before, and why.

    `reports`: what callers have found out; `callers`: how many call a host.  Both are of this control service's own clients;
    `is_replica`: there may be others, with clients of their own.
    """

    world: World
    suspicious: Mapping[str, str] = field(default_factory=dict)
    reports: Sequence[tuple[Reporter, ReportRequest]] = ()
    callers: Mapping[str, int] = field(default_factory=dict)
    is_replica: bool = False


class Viewer:
    """Only reads.  Methods raise `Problem` for what does not exist or cannot be asked."""

    def __init__(self, scene: Callable[[], Scene]) -> None:
        self._scene = scene

    def services(self) -> views.Services:
        """Every service, by host."""
        scene = self._scene()
        found = [service for host in sorted(scene.world.services.hosts) for service in scene.world.services.hosts[host]]
        return views.Services(services=[_service_view(scene, service) for service in found])

    def endpoints(self, name: str, namespace: str) -> views.Endpoints:
        """The instances of the service that `namespace` calls `name`; of all services if that is empty."""
        scene = self._scene()
        world = scene.world
        services = (
            [_called(world, name, namespace)] if name else [one for many in world.services.hosts.values() for one in many]
        )
        hosts = frozenset(service.host for service in services)
        reported = Reported(scene.reports, scene.callers, hosts)
        found = [view for service in sorted(services, key=lambda s: s.host) for view in _endpoint_views(world, service)]
        return views.Endpoints(
            endpoints=[
                replace(
                    view,
                    callers=reported.callers(view.host),
                    reported=reported.of_endpoint(view.host, f"{bracketed(view.address)}:{view.port}"),
                )
                for view in found
            ],
            clusters=reported.clusters,
            limits=reported.limits(world.rate_limits.concerning(hosts, namespace) if name else None),
            notes=list(_notes(scene, reported)),
        )

    def routes(self, request: views.RoutesRequest) -> views.Routes:
        """The routes that a node has, in the order in which they are tried."""
        world = self._scene().world
        node = node_of(request.node)
        scope = scope_of(world, node)
        service = _called(world, request.service, node.namespace) if request.service else None
        rows: list[views.RouteView] = []
        for name, configuration in sorted(_route_configurations(world, scope, service).items()):
            rows.extend(routing.route_views(name, _narrowed(configuration, service)))
        return views.Routes(routes=rows)

    def compiled(self, node: views.NodeView) -> views.Compiled:
        """Every resource of a node as protobuf-JSON."""
        return views.Compiled(resources=compile_document(self._scene().world, node_of(node)))

    def explain(self, request: views.ExplainRequest) -> views.ExplanationView:
        """The way of one request from a client like `request.node`, found by the data plane's own code."""
        # The data plane is imported when it is asked for: compiling, offline, does without.
        from meshlib import lowlevel
        from meshlib.xds.invalid import ResourceInvalid

        world = self._scene().world
        node = node_of(request.node)
        authority, target = _split(request.url)
        resources = _reachable(world, scope_of(world, node), authority)
        try:
            found = lowlevel.explain(resources, request.method, authority, target, request.headers)
        except ResourceInvalid as error:
            raise Problem(
                500,
                "a client would refuse its resources",
                where=authority,
                why=str(error),
                next_step="This is a defect of the control service; `meshctl compile` shows the resource.",
            ) from error
        return views.ExplanationView(
            authority=found.authority,
            outcome=found.outcome,
            detail=found.detail,
            virtual_host=found.virtual_host,
            route=found.route,
            routes=[views.RouteTried(name=trial.name, matched=trial.matched, reason=trial.reason) for trial in found.routes],
            clusters=list(_shares(world, node.namespace, found)),
            timeout=found.timeout,
            retries=found.retries,
            retry_on=list(found.retry_on),
            per_try_timeout=found.per_try_timeout,
            status=found.status,
        )

    def authorize(self, request: views.AuthorizeRequest) -> views.AuthorizationView:
        """Whether a request would be served, judged by the data plane's own code."""
        world = self._scene().world
        return authorization(world, _called(world, request.service, request.namespace), request, now=time.time())


def _notes(scene: Scene, reported: Reported) -> Iterator[str]:
    if scene.is_replica:
        yield "The store is shared: what callers say is told by those that are connected to this control service."
    if reported.truncated:
        yield "Some caller has more to tell than it sends at once."


def _called(world: World, name: str, namespace: str) -> Service:
    service = world.services.called(name.lower(), namespace)
    if service is not None:
        return service
    near = get_close_matches(name, [part for host in world.services.hosts for part in (host, host.partition(".")[0])], n=1)
    raise Problem(
        404,
        f"no service {name!r} is known in namespace {namespace}",
        why="neither registered, nor in the catalog, nor declared by a ServiceEntry that is visible there",
        next_step=f"Did you mean {near[0]}?"
        if near
        else "`meshctl endpoints` lists all that there are; -n NAME looks elsewhere.",
    )


def _service_view(scene: Scene, service: Service) -> views.ServiceView:
    instances = scene.world.instances_of(service)
    return views.ServiceView(
        host=service.host,
        namespace=service.namespace,
        ports=[views.PortView(number=port.number, protocol=port.protocol, name=port.name) for port in service.ports],
        resolution=service.resolution,
        location=service.location,
        source=service.source,
        healthy=sum(instance.health is InstanceHealth.HEALTHY for instance in instances),
        instances=len(instances),
        suspicious=scene.suspicious.get(service.host, ""),
    )


def _endpoint_views(world: World, service: Service) -> Iterator[views.EndpointView]:
    for instance in world.instances_of(service):
        for port in _ports(service, instance):
            yield views.EndpointView(
                host=service.host,
                id=instance.id,
                address=instance.address,
                port=port,
                health=instance.health.value,
                weight=instance.weight,
                locality=instance.locality,
                labels=dict(instance.labels),
                service_account=instance.service_account,
            )


def _ports(service: Service, instance: Instance) -> list[int]:
    """Where an instance listens for each of the service's ports."""
    return sorted({instance_port(instance, port) for port in service.ports}) or [instance.port]


def _route_configurations(world: World, scope: Scope, service: Service | None) -> dict[str, RouteConfiguration]:
    # Envoy has one route configuration for all hosts; the others have one for each port of each service.
    names = None
    if service is not None and scope.flavour != "envoy":
        names = frozenset(route_name(service.host, port.number) for port in service.ports)
    found = generate(world, scope, ROUTE, names)
    return {name: message for name, message in found.items() if isinstance(message, RouteConfiguration)}


def _narrowed(configuration: RouteConfiguration, service: Service | None) -> RouteConfiguration:
    """Only the virtual hosts of `service`."""
    if service is None:
        return configuration
    narrowed = RouteConfiguration(name=configuration.name)
    for host in configuration.virtual_hosts:
        domains = {domain.partition(":")[0] for domain in host.domains}
        if service.host in domains or configuration.name.startswith(service.host):
            narrowed.virtual_hosts.append(host)
    return narrowed


def _split(url: str) -> tuple[str, str]:
    """``host:port`` as the data plane subscribes to it, and path with query.  Raises `Problem`."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        split = split_authority(f"{bracketed(parts.hostname or '')}:{port}", port)
    except (ValueError, KeyError) as error:
        raise _bad_url(url) from error
    if split is None or not split[0]:
        raise _bad_url(url)
    return f"{bracketed(split[0])}:{split[1]}", (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _bad_url(url: str) -> Problem:
    return Problem(
        400,
        f"{url!r} is not an HTTP URL",
        where="url",
        why="expected http://HOST[:PORT]/PATH",
        next_step="For example http://reviews/api/reviews/7.",
    )


def _reachable(world: World, scope: Scope, authority: str) -> list[tuple[str, bytes]]:
    """What a client holds after it asked for `authority`: listener, routes, clusters, endpoints."""
    listeners = generate(world, scope, LISTENER, frozenset({authority, VIRTUAL_OUTBOUND}))
    configurations = list(_inline(listeners.values()))
    names = frozenset(_route_names(listeners.values()))
    routes = generate(world, scope, ROUTE, names) if names else {}
    configurations.extend(route for route in routes.values() if isinstance(route, RouteConfiguration))
    clusters = frozenset(cluster for configuration in configurations for cluster in routing.clusters_of(configuration))
    messages: list[tuple[str, Mapping[str, Message]]] = [(LISTENER, listeners), (ROUTE, routes)]
    if clusters:
        messages.append((CLUSTER, generate(world, scope, CLUSTER, clusters)))
        messages.append((ENDPOINTS, generate(world, scope, ENDPOINTS, clusters)))
    return [(type_url, message.SerializeToString()) for type_url, found in messages for message in found.values()]


def _managers(listeners: Iterable[Message]) -> Iterator[HttpConnectionManager]:
    for listener in listeners:
        if isinstance(listener, Listener) and listener.HasField("api_listener"):
            yield HttpConnectionManager.FromString(listener.api_listener.api_listener.value)


def _route_names(listeners: Iterable[Message]) -> Iterator[str]:
    return (manager.rds.route_config_name for manager in _managers(listeners) if manager.HasField("rds"))


def _inline(listeners: Iterable[Message]) -> Iterator[RouteConfiguration]:
    return (manager.route_config for manager in _managers(listeners) if manager.HasField("route_config"))


def _shares(world: World, namespace: str, found: Explanation) -> Iterator[views.ClusterShare]:
    """The clusters with what the catalog knows of their endpoints."""
    for share in found.clusters:
        parsed = parse_cluster_name(share.name)
        service = world.services.find(parsed.host, namespace) if parsed and not is_wildcard(parsed.host) else None
        known = {f"{bracketed(view.address)}:{view.port}": view for view in _endpoint_views(world, service)} if service else {}
        endpoints = []
        for text, priority in zip(share.endpoints, share.priorities, strict=True):
            address, _, health = text.partition(" ")
            view = known.get(address) or _bare(address, health, host=parsed.host if parsed else share.name)
            endpoints.append(replace(view, priority=priority))
        yield views.ClusterShare(
            name=share.name, percent=share.percent, endpoints=endpoints, error=share.error, placed=share.placed
        )


def _bare(address: str, health: str, *, host: str) -> views.EndpointView:
    """An endpoint that the catalog says no more of."""
    name, _, port = address.rpartition(":")
    return views.EndpointView(
        host=host, id=address, address=name.strip("[]"), port=int(port or 0), health=health or "healthy", weight=1
    )
