"""The CORS filter of an inbound listener, and the policies of its routes → model."""

from __future__ import annotations

from typing import Final

from meshlib.model.cors import Cors, CorsPolicy, CorsRoute
from meshlib.xds.fields import allow_only, unpack
from meshlib.xds.invalid import Problems
from meshlib.xds.matchers import decode_fraction, decode_route_match, decode_string_match
from meshlib.xds.proto import route_pb2

FILTER: Final = "envoy.filters.http.cors"

MAX_ROUTES: Final = 1_000
"""Per listener: every cross-origin request looks at them in turn."""

_ROUTE_FIELDS = frozenset({"name", "match", "non_forwarding_action", "typed_per_filter_config"})


def decode_cors(config: route_pb2.RouteConfiguration, problems: Problems, *, field: str) -> Cors:
    """The routes before the last one, which takes everything.  `field`: of the route configuration."""
    routes = [route for host in config.virtual_hosts for route in host.routes][:-1]
    if len(routes) > MAX_ROUTES:
        problems.describe(f"{field}.virtual_hosts[0].routes", f"{len(routes)} routes", f"at most {MAX_ROUTES}")
    return Cors(
        tuple(_route(route, problems, field=f"{field}.virtual_hosts[0].routes[{index}]") for index, route in enumerate(routes))
    )


def _route(route: route_pb2.Route, problems: Problems, *, field: str) -> CorsRoute:
    allow_only(route, _ROUTE_FIELDS, field=field, problems=problems)
    match = decode_route_match(route.match, problems, field=f"{field}.match")
    if match.fraction is not None:
        problems.describe(f"{field}.match.runtime_fraction", "set", "unset: browsers are answered always or never")
    policy: CorsPolicy | None = None
    for name in route.typed_per_filter_config:
        where = f"{field}.typed_per_filter_config[{name!r}]"
        if name != FILTER:
            problems.describe(where, "set", f"only {FILTER}")
            continue
        message = unpack(route.typed_per_filter_config[name], route_pb2.CorsPolicy, field=where, problems=problems)
        if message is not None:
            policy = decode_cors_policy(message, problems, field=where)
    return CorsRoute(match, policy)


def decode_cors_policy(message: route_pb2.CorsPolicy, problems: Problems, *, field: str) -> CorsPolicy | None:
    """None: it is switched off."""
    if message.HasField("filter_enabled"):
        where = f"{field}.filter_enabled.default_value"
        enabled = decode_fraction(message.filter_enabled.default_value, problems, field=where)
        if enabled == 0.0:
            return None
        if enabled != 1.0:
            problems.describe(where, f"{enabled:.2%}", "all requests or none: a browser would keep either answer")
    for name in ("allow_methods", "allow_headers", "expose_headers", "max_age"):
        value: str = getattr(message, name)
        if any(character < " " or character == "\x7f" for character in value):
            problems.describe(f"{field}.{name}", "control characters", "the value of a header")
    return CorsPolicy(
        origins=tuple(
            decode_string_match(item, problems, field=f"{field}.allow_origin_string_match[{index}]")
            for index, item in enumerate(message.allow_origin_string_match)
        ),
        methods=message.allow_methods,
        headers=message.allow_headers,
        exposed=message.expose_headers,
        max_age=message.max_age,
        credentials=message.allow_credentials.value,
        private_network=message.allow_private_network_access.value,
        forwards_unmatched=(
            message.forward_not_matching_preflights.value if message.HasField("forward_not_matching_preflights") else True
        ),
    )
