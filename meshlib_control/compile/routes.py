"""VirtualServices → the routes of a service's port, and the virtual hosts that they are in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from meshlib.xds.proto import route_pb2
from meshlib_control.catalog.model import Service
from meshlib_control.compile.cors import set_cors
from meshlib_control.compile.hash_policies import set_hash_policies
from meshlib_control.compile.hosts import bracketed, is_address, split_authority, with_port
from meshlib_control.compile.http_actions import (
    host_header,
    set_direct_response,
    set_fault,
    set_headers,
    set_redirect,
    set_rewrite,
)
from meshlib_control.compile.matches import is_catch_all, is_for_caller, route_match
from meshlib_control.compile.mirrors import set_mirrors
from meshlib_control.compile.names import ALLOW_ANY, BLOCK_ALL, HTTP_PROXY, PASSTHROUGH, ClusterName
from meshlib_control.compile.node import Scope
from meshlib_control.compile.rate_limits import set_call_limits
from meshlib_control.compile.resilience import set_time_limits
from meshlib_control.compile.retry_policy import duration, for_grpc, for_meshlib, retry_policy
from meshlib_control.compile.scope import is_served
from meshlib_control.compile.services import is_http, port_of
from meshlib_control.compile.view import allows_outside, egress_of, routed_hosts, routings, seen, seen_services
from meshlib_control.compile.virtual_services import Routing
from meshlib_control.compile.world import World
from meshlib_control.config.kinds import Destination, HTTPMatchRequest, HTTPRetry, HTTPRoute

MAX_BODY: Final = 1024 * 1024
"""Bytes of a direct response (Istio's limit; Envoy's own would be 4 KiB)."""

UNREGISTERED_PORT: Final = 80
"""Istio routes hosts that are in no catalog on this port only."""

_BLOCKED = 502


def route_names(world: World, scope: Scope) -> Iterator[str]:
    """Names of all route configurations."""
    if scope.flavour == "envoy":
        yield HTTP_PROXY
        return
    for service in seen_services(world, scope):
        for port in service.ports:
            if is_served(scope, service, port) and seen(world, scope, service.host, port.number):
                yield with_port(service.host, port.number)
    for host in _unregistered(world, scope):
        yield with_port(host, UNREGISTERED_PORT)


def route_configuration(world: World, scope: Scope, name: str) -> route_pb2.RouteConfiguration | None:
    """The route configuration of this name; None: there is none."""
    if scope.flavour == "envoy":
        return _http_proxy(world, scope) if name == HTTP_PROXY else None
    called = split_authority(name, UNREGISTERED_PORT)
    if called is None:
        return None
    host = virtual_host(world, scope, *called)
    if host is None:
        return None
    config = _configuration(name)
    # One resource a host and port: what the caller wrote behind the host adds nothing. grpcio does not know the field.
    config.ignore_port_in_host_matching = scope.flavour == "meshlib"
    set_call_limits(host, world.rate_limits, scope, called, world.services.find(called[0], scope.namespace))
    config.virtual_hosts.append(host)
    return config


def virtual_host(world: World, scope: Scope, host: str, port: int) -> route_pb2.VirtualHost | None:
    """The virtual host of one service and port by the service's own host name; None: nothing is there for this scope."""
    service = seen(world, scope, host, port)
    if service is None:
        named = port == UNREGISTERED_PORT and not is_address(host)
        routes = _routed(world, scope, host, port, None) if named else []
        aliases = world.services.host_aliases(host, None, scope.namespace)
        return _virtual_host(with_port(host, port), _domains(aliases, port, scope, bare=True), routes) if routes else None
    found = port_of(service, port)
    if found is None or not is_served(scope, service, found):
        return None
    routes = _routed(world, scope, host, port, service) if is_http(found) else []
    if not routes:
        routes = [_default_route(world, scope, ClusterName(port, "", host), retried=is_http(found))]
    aliases = world.services.aliases(service, scope.namespace)
    return _virtual_host(with_port(host, port), _domains(aliases, port, scope, bare=_is_bare(scope, port)), routes)


def outside_host(world: World, scope: Scope) -> route_pb2.VirtualHost:
    """What happens to hosts outside of the mesh (`outboundTrafficPolicy`)."""
    match = route_pb2.RouteMatch(prefix="/")
    if allows_outside(world, scope):
        action = route_pb2.RouteAction(cluster=PASSTHROUGH)
        _set_timeout(action, 0.0)
        return _virtual_host(ALLOW_ANY, ["*"], [route_pb2.Route(name=ALLOW_ANY, match=match, route=action)])
    refused = route_pb2.DirectResponseAction(status=_BLOCKED)
    return _virtual_host(BLOCK_ALL, ["*"], [route_pb2.Route(name=BLOCK_ALL, match=match, direct_response=refused)])


def _http_proxy(world: World, scope: Scope) -> route_pb2.RouteConfiguration:
    """All hosts in one.  A domain that two hosts claim belongs to the first: Envoy refuses duplicates."""
    config = _configuration(HTTP_PROXY)
    taken: set[str] = set()
    served = [
        (service.host, port.number)
        for service in seen_services(world, scope)
        for port in service.ports
        if is_served(scope, service, port)
    ]
    for name, port in (*served, *((host, UNREGISTERED_PORT) for host in _unregistered(world, scope))):
        host = virtual_host(world, scope, name, port)
        if host is None:
            continue
        free = [domain for domain in host.domains if domain not in taken]
        if not free:
            continue
        taken.update(free)
        host.ClearField("domains")
        host.domains.extend(free)
        config.virtual_hosts.append(host)
    config.virtual_hosts.append(outside_host(world, scope))
    return config


def _configuration(name: str) -> route_pb2.RouteConfiguration:
    config = route_pb2.RouteConfiguration(name=name)
    config.validate_clusters.value = False  # a cluster that is missing fails its own routes, not the whole update
    config.max_direct_response_body_size_bytes.value = MAX_BODY
    return config


def _virtual_host(name: str, domains: list[str], routes: list[route_pb2.Route]) -> route_pb2.VirtualHost:
    return route_pb2.VirtualHost(name=name, domains=domains, routes=routes, include_request_attempt_count=True)


def _domains(aliases: tuple[str, ...], port: int, scope: Scope, *, bare: bool) -> list[str]:
    """Meshlib's route configurations ignore ports.  The others name them; `bare`: and hold for names without one, too."""
    domains: dict[str, None] = {}
    for alias in aliases:
        if scope.flavour == "meshlib" or bare:
            domains[bracketed(alias)] = None
        if scope.flavour != "meshlib":
            domains[with_port(alias, port)] = None
    return list(domains)


def _is_bare(scope: Scope, port: int) -> bool:
    """A Host header without a port means 80.  Where each host and port has routes of its own, it can mean nothing else."""
    return port == UNREGISTERED_PORT or scope.flavour == "grpc"


def _unregistered(world: World, scope: Scope) -> Iterator[str]:
    """Hosts that VirtualServices route although no catalog has them."""
    for host in routed_hosts(world, scope, UNREGISTERED_PORT):
        if world.services.covering(host, scope.namespace, egress_of(world, scope)) is None:
            yield host


def _routed(world: World, scope: Scope, host: str, port: int, service: Service | None) -> list[route_pb2.Route]:
    """The routes of the first VirtualService that has any for this caller."""
    for routing in routings(world, scope, host, port):
        if service is None and host not in routing.hosts:
            continue  # wildcards reach only what a catalog has
        routes = _routes(world, scope, routing, port)
        if routes:
            return routes
    return []


def _routes(world: World, scope: Scope, routing: Routing, port: int) -> list[route_pb2.Route]:
    routes: list[route_pb2.Route] = []
    labels = dict(scope.labels)
    for index, rule in enumerate(routing.spec.http):
        conditions: tuple[HTTPMatchRequest | None, ...] = rule.match or (None,)
        for condition in conditions:
            if condition is not None and not is_for_caller(condition, port=port, namespace=scope.namespace, labels=labels):
                continue
            route = _route(world, scope, routing, port, (index, rule, condition))
            if route is None:
                continue
            routes.append(route)
            if is_catch_all(route.match):
                return routes
    return routes


_Rule = tuple[int, HTTPRoute, HTTPMatchRequest | None]


def _route(world: World, scope: Scope, routing: Routing, port: int, rule: _Rule) -> route_pb2.Route | None:
    """One rule and one of its conditions.  None: grpcio could not use it, and would pass it over silently."""
    index, spec, condition = rule
    route = route_pb2.Route(name=_route_name(routing, index, spec, condition), match=route_match(condition))
    if scope.flavour == "grpc" and (route.match.query_parameters or not spec.route):
        return None
    _set_origin(route, routing)
    set_fault(route, spec.fault)
    if scope.flavour != "grpc":  # which evaluates no header operations
        set_headers(route, spec.headers)
        route.stat_prefix = condition.stat_prefix or "" if condition is not None else ""
    if scope.flavour == "envoy":
        set_cors(route, spec.cors_policy)
    if spec.redirect is not None:
        set_redirect(route.redirect, spec.redirect, port)
        return route
    if spec.direct_response is not None:
        set_direct_response(route.direct_response, spec.direct_response)
        return route
    _set_clusters(world, route.route, routing, port, spec)
    if scope.flavour != "grpc":
        _set_alterations(route, spec)
        set_mirrors(route.route, spec, lambda destination: _cluster_name(world, routing, port, destination))
    _set_policies(world, scope, route.route, timeout=spec.timeout or 0.0, retries=spec.retries)
    return route


def _route_name(routing: Routing, index: int, rule: HTTPRoute, condition: HTTPMatchRequest | None) -> str:
    """Istio's ``rule.match``; a rule without a name is called by its place, so that logs and errors can name it."""
    name = rule.name or f"{routing.key.namespace}/{routing.key.name}/http[{index}]"
    return f"{name}.{condition.name}" if condition is not None and condition.name else name


def _set_origin(route: route_pb2.Route, routing: Routing) -> None:
    """Where the route comes from, in the place and form of Istio."""
    key = routing.key
    path = f"/apis/networking.istio.io/v1/namespaces/{key.namespace}/virtual-service/{key.name}"
    route.metadata.filter_metadata["istio"]["config"] = path


def _set_clusters(world: World, action: route_pb2.RouteAction, routing: Routing, port: int, rule: HTTPRoute) -> None:
    """A single destination gets everything; among several, weight 0 means that it gets nothing."""
    if len(rule.route) == 1:
        action.cluster = _cluster_name(world, routing, port, rule.route[0].destination)
        return
    for share in rule.route:
        if share.weight > 0:
            cluster = action.weighted_clusters.clusters.add(name=_cluster_name(world, routing, port, share.destination))
            cluster.weight.value = share.weight


def _set_alterations(route: route_pb2.Route, rule: HTTPRoute) -> None:
    """Rewrites, and the headers of destinations: those of the only one are the route's, those of several are their shares'.

    The rule's authority takes the place of a destination's (Envoy sees to it for shares).
    """
    set_rewrite(route.route, rule.rewrite, rule.headers)
    if len(rule.route) == 1:
        only = rule.route[0].headers
        set_headers(route, only)
        if host := "" if route.route.host_rewrite_literal else host_header(only):
            route.route.host_rewrite_literal = host
        return
    used = [share for share in rule.route if share.weight > 0]
    for cluster, share in zip(route.route.weighted_clusters.clusters, used, strict=True):
        set_headers(cluster, share.headers)
        if host := host_header(share.headers):
            cluster.host_rewrite_literal = host


def _cluster_name(world: World, routing: Routing, port: int, destination: Destination) -> str:
    """The port: as written, else the only one that the service has, else the one that was called."""
    host = world.resolve(destination.host, routing.key.namespace)
    if destination.port is not None and destination.port.number:
        number = destination.port.number
    else:
        candidates = world.services.hosts.get(host, ())
        number = candidates[0].ports[0].number if candidates and len(candidates[0].ports) == 1 else port
    return str(ClusterName(number, destination.subset or "", host))


def _default_route(world: World, scope: Scope, cluster: ClusterName, *, retried: bool) -> route_pb2.Route:
    """For hosts without a VirtualService.  Ports that do not speak HTTP for sure are not retried."""
    route = route_pb2.Route(name="default", match=route_pb2.RouteMatch(prefix="/"))
    route.route.cluster = str(cluster)
    _set_policies(world, scope, route.route, timeout=0.0, retries=None if retried else HTTPRetry(attempts=0))
    return route


def _set_policies(
    world: World, scope: Scope, action: route_pb2.RouteAction, *, timeout: float, retries: HTTPRetry | None
) -> None:
    hashed = set_hash_policies(world, scope, action)
    policy = retry_policy(retries, world.settings.default_retry, hashed=hashed)
    if scope.flavour == "grpc":
        # No timeouts: grpcio's timers from xDS fire one to two seconds early (grpc/grpc #34547, #40633).
        policy = for_grpc(policy)
    else:
        _set_timeout(action, timeout)
    if scope.flavour == "meshlib":
        policy = for_meshlib(policy)
    if policy is not None:
        action.retry_policy.CopyFrom(policy)
    set_time_limits(action, world, scope)


def _set_timeout(action: route_pb2.RouteAction, seconds: float) -> None:
    """0: none.  A gRPC caller's own timeout is honoured up to it (Istio sets both)."""
    action.timeout.CopyFrom(duration(seconds))
    action.max_grpc_timeout.CopyFrom(duration(seconds))
