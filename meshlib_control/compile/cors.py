"""`corsPolicy` → the policy of Envoy's CORS filter, and where it is executed.

Envoy answers where Istio puts it: in the listener that its application's requests leave by.  A browser does not come that way
to a meshlib process, and no client library needs the answer: there the workloads of the service answer, in the listener of the
port that they serve (docs/decisions/033).
"""

from __future__ import annotations

from typing import Final

from meshlib.xds.proto import core_pb2, route_pb2
from meshlib.xds.types import pack
from meshlib_control.catalog.model import Service
from meshlib_control.compile.matches import is_catch_all, route_match
from meshlib_control.compile.node import Node, Scope
from meshlib_control.compile.services import is_http
from meshlib_control.compile.virtual_services import MESH, Routing
from meshlib_control.compile.world import World
from meshlib_control.config.kinds import CorsPolicy, HTTPMatchRequest, StringMatch

CORS: Final = "envoy.filters.http.cors"


def set_cors(route: route_pb2.Route, policy: CorsPolicy | None) -> None:
    if policy is not None:
        route.typed_per_filter_config[CORS].CopyFrom(pack(cors_policy(policy)))


def cors_policy(policy: CorsPolicy) -> route_pb2.CorsPolicy:
    """As Istio translates it; origins of the old form are exact ones, and not looked at beside those of the new form."""
    made = route_pb2.CorsPolicy(
        allow_methods=",".join(policy.allow_methods),
        allow_headers=",".join(policy.allow_headers),
        expose_headers=",".join(policy.expose_headers),
    )
    origins = policy.allow_origins or tuple(StringMatch(exact=origin) for origin in policy.allow_origin)
    made.allow_origin_string_match.extend(_matcher(origin) for origin in origins)
    made.filter_enabled.default_value.numerator = 100
    if policy.max_age is not None:
        made.max_age = str(int(policy.max_age))
    if policy.allow_credentials is not None:
        made.allow_credentials.value = policy.allow_credentials
    if policy.unmatched_preflights == "IGNORE":
        made.forward_not_matching_preflights.value = False
    return made


def _matcher(origin: StringMatch) -> core_pb2.StringMatcher:
    if origin.exact is not None:
        return core_pb2.StringMatcher(exact=origin.exact)
    if origin.prefix is not None:
        return core_pb2.StringMatcher(prefix=origin.prefix)
    return core_pb2.StringMatcher(safe_regex=core_pb2.RegexMatcher(regex=origin.regex or ""))


def cors_host(world: World, node: Node) -> str:
    """The service that the node is of, if a VirtualService says something about its browsers; else empty.

    A node that claims another service of its own namespace gets that one's policy for its own port, and nothing else by it.
    """
    if node.flavour != "meshlib" or not node.service or not world.virtual_services.has_cors:
        return ""
    service = world.services.called(node.service.lower(), node.namespace)
    if service is None or service.namespace != node.namespace:
        return ""
    routing = _routing(world, service)
    return service.host if routing is not None and any(rule.cors_policy for rule in routing.spec.http) else ""


def cors_routes(world: World, scope: Scope, port: int) -> list[route_pb2.Route]:
    """The rules of the scope's service by which its workloads answer browsers at `port`; none if no rule says anything.

    They are those that callers of the service's own namespace have, without what is only for callers of a certain kind: a
    browser is none of them.
    """
    service = world.services.find(scope.cors, scope.namespace) if scope.cors else None
    routing = _routing(world, service) if service is not None else None
    if service is None or routing is None:
        return []
    routes: list[route_pb2.Route] = []
    for index, rule in enumerate(routing.spec.http):
        for condition in rule.match or (None,):
            if condition is not None and not _is_for_browsers(condition, _called_port(service, port)):
                continue
            route = route_pb2.Route(name=rule.name or f"http[{index}]", match=route_match(condition))
            route.non_forwarding_action.SetInParent()
            set_cors(route, rule.cors_policy)
            routes.append(route)
            if is_catch_all(route.match):
                return _needed(routes)
    return _needed(routes)


def _needed(routes: list[route_pb2.Route]) -> list[route_pb2.Route]:
    """Rules without a policy count only as far as they keep requests from later ones that have one."""
    last = max((index for index, route in enumerate(routes) if route.typed_per_filter_config), default=-1)
    return routes[: last + 1]


def _routing(world: World, service: Service) -> Routing | None:
    return next(iter(world.virtual_services.holding_for(service.host, service.namespace)), None)


def _is_for_browsers(match: HTTPMatchRequest, port: int) -> bool:
    if match.port and match.port != port:
        return False
    return not match.source_labels and not match.source_namespace and (not match.gateways or MESH in match.gateways)


def _called_port(service: Service, served: int) -> int:
    """The port that callers name for the one that a workload serves; where nothing says it, the first one for HTTP."""
    ports = [port for port in service.ports if is_http(port)]
    found = [port.number for port in ports if served in (port.target, port.number)]
    return next(iter(found), ports[0].number if ports else served)
