"""The mesh as one scope sees it: what is exported to its namespace and, where a Sidecar holds, what that lets it see.

Three degrees.  What is *seen* can be called by name.  What is *reached* has clusters beside that: the destinations of routes
that are seen (Istio adds them too), and who is asked about the workload's own requests.  All else is as if it did not exist.
"""

from __future__ import annotations

from collections.abc import Iterator

from meshlib_control.catalog.model import Service
from meshlib_control.compile.node import Scope
from meshlib_control.compile.sidecars import Egress
from meshlib_control.compile.virtual_services import Routing
from meshlib_control.compile.world import World
from meshlib_control.config.kinds import HTTPRoute


def egress_of(world: World, scope: Scope) -> Egress | None:
    """None: nothing limits what the scope sees."""
    return world.sidecars.egress(scope.namespace, dict(scope.labels))


def seen(world: World, scope: Scope, host: str, port: int | None = None) -> Service | None:
    """The service of exactly this host that the scope may call, on `port` or any."""
    egress = egress_of(world, scope)
    service = world.services.find(host, scope.namespace, egress)
    if service is None or egress is None or port is None or egress.sees(service, port):
        return service
    return None


def called(world: World, scope: Scope, name: str) -> Service | None:
    """The service that the scope's processes mean by `name`."""
    return world.services.called(name, scope.namespace, egress_of(world, scope))


def reached(world: World, scope: Scope, host: str, port: int) -> Service | None:
    """The service of exactly this host that the scope may need a cluster of, on `port`."""
    service = seen(world, scope, host, port)
    if service is None and (egress := egress_of(world, scope)) is not None and host in _reached_hosts(world, scope, egress):
        return world.services.find(host, scope.namespace)
    return service


def seen_services(world: World, scope: Scope) -> tuple[Service, ...]:
    """All that the scope may call on some port, one a host, ordered by host."""
    return world.services.visible(scope.namespace, egress_of(world, scope))


def reached_services(world: World, scope: Scope) -> Iterator[Service]:
    """All that the scope may need clusters of, ordered by host."""
    egress = egress_of(world, scope)
    if egress is None:
        yield from seen_services(world, scope)
        return
    others = _reached_hosts(world, scope, egress)
    for host in sorted(world.services.hosts):
        service = world.services.find(host, scope.namespace, egress)
        if service is None and host in others:
            service = world.services.find(host, scope.namespace)
        if service is not None:
            yield service


def routings(world: World, scope: Scope, host: str, port: int) -> Iterator[Routing]:
    """VirtualServices for `host` that the scope sees, best first."""
    egress = egress_of(world, scope)
    for routing in world.virtual_services.holding_for(host, scope.namespace):
        if egress is None or egress.routes(routing.key.namespace, routing.hosts, port):
            yield routing


def routed_hosts(world: World, scope: Scope, port: int) -> Iterator[str]:
    """Host names, no wildcards and addresses, that some VirtualService routes which the scope sees."""
    egress = egress_of(world, scope)
    for host in world.virtual_services.exact_hosts(scope.namespace):
        if egress is None or any(host in routing.hosts for routing in routings(world, scope, host, port)):
            yield host


def allows_outside(world: World, scope: Scope) -> bool:
    """Whether hosts that are not part of the mesh, as the scope sees it, may be called."""
    said = world.sidecars.allows_outside(scope.namespace, dict(scope.labels))
    return world.settings.allow_any if said is None else said


def _reached_hosts(world: World, scope: Scope, egress: Egress) -> frozenset[str]:
    """Worked out once for each Sidecar and namespace."""
    if egress.reached is None:
        hosts = {
            world.resolve(host, routing.key.namespace)
            for routing in world.virtual_services.visible(scope.namespace)
            if egress.routes(routing.key.namespace, routing.hosts)
            for rule in routing.spec.http
            for host in _destinations(rule)
        }
        egress.reached = frozenset(hosts | set(_asked_hosts(world)))
    return egress.reached


def _destinations(rule: HTTPRoute) -> Iterator[str]:
    yield from (share.destination.host for share in rule.route)
    yield from (mirror.destination.host for mirror in rule.mirrors)
    if rule.mirror is not None:
        yield rule.mirror.host


def _asked_hosts(world: World) -> Iterator[str]:
    """Whoever limits what an application calls does not mean those who decide who may call it."""
    for provider in world.settings.extension_providers:
        for authorizer in (provider.envoy_ext_authz_http, provider.envoy_ext_authz_grpc):
            if authorizer is not None:
                yield authorizer.service.rpartition("/")[2].lower()
