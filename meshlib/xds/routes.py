"""RouteConfiguration → model.  Where a field is unset, Envoy's default holds, not one of our own."""

from __future__ import annotations

from typing import Final

from google.protobuf.duration_pb2 import Duration

from meshlib.model.route import (
    Action,
    DirectResponse,
    Forward,
    NonForwarding,
    RetryPolicy,
    Route,
    RouteConfig,
    VirtualHost,
    WeightedCluster,
)
from meshlib.xds.fields import allow_only, seconds
from meshlib.xds.invalid import Problems
from meshlib.xds.matchers import decode_route_match
from meshlib.xds.proto import core_pb2, route_pb2
from meshlib.xds.retries import decode_retry_policy

MAX_DOMAINS: Final = 20_000
MAX_ROUTES: Final = 20_000
"""Per route configuration, all virtual hosts together."""

_ENVOY_TIMEOUT = 15.0  # RouteAction.timeout when unset
_ENVOY_BODY = 4096  # max_direct_response_body_size_bytes when unset
_MAX_TOTAL_WEIGHT = 2**32 - 1
_CONFIG_FIELDS = frozenset(
    {
        "name",
        "virtual_hosts",
        "ignore_port_in_host_matching",
        "max_direct_response_body_size_bytes",
        # Not acted on: a route to a cluster that does not exist fails its own calls, whatever this says.
        "validate_clusters",
    }
)
_HOST_FIELDS = frozenset({"name", "domains", "routes", "include_request_attempt_count", "retry_policy"})
_ROUTE_FIELDS = frozenset({"name", "match", "route", "direct_response", "non_forwarding_action", "metadata"})
_ACTION_FIELDS = frozenset(
    {
        "cluster",
        "weighted_clusters",
        "timeout",
        "retry_policy",
        # A cap on what the caller's grpc-timeout may ask for; the caller's deadline is always the tighter one here.
        "max_grpc_timeout",
    }
)


def decode_routes(config: route_pb2.RouteConfiguration, problems: Problems, *, field: str = "") -> RouteConfig:
    """A RouteConfiguration, as a resource of its own or (`field` set) inline in a listener."""
    prefix = f"{field}." if field else ""
    allow_only(config, _CONFIG_FIELDS, field=field, problems=problems)
    _check_sizes(config, problems, field=f"{prefix}virtual_hosts")
    _check_domains(config, problems, field=f"{prefix}virtual_hosts")
    limit = (
        config.max_direct_response_body_size_bytes.value
        if config.HasField("max_direct_response_body_size_bytes")
        else _ENVOY_BODY
    )
    return RouteConfig(
        name=config.name,
        virtual_hosts=tuple(
            _virtual_host(host, problems, field=f"{prefix}virtual_hosts[{index}]", body_limit=limit)
            for index, host in enumerate(config.virtual_hosts)
        ),
        ignore_port=config.ignore_port_in_host_matching,
    )


def _check_sizes(config: route_pb2.RouteConfiguration, problems: Problems, *, field: str) -> None:
    domains = sum(len(host.domains) for host in config.virtual_hosts)
    routes = sum(len(host.routes) for host in config.virtual_hosts)
    if domains > MAX_DOMAINS:
        problems.describe(field, f"{domains} domains", f"at most {MAX_DOMAINS}")
    if routes > MAX_ROUTES:
        problems.describe(field, f"{routes} routes", f"at most {MAX_ROUTES}")


def _check_domains(config: route_pb2.RouteConfiguration, problems: Problems, *, field: str) -> None:
    """Envoy refuses a configuration whose virtual hosts share a domain."""
    taken: set[str] = set()
    for index, host in enumerate(config.virtual_hosts):
        for position, domain in enumerate(host.domains):
            where = f"{field}[{index}].domains[{position}]"
            lowered = domain.lower()
            if not domain or "*" in domain[1:-1] or (len(domain) > 1 and domain[0] == domain[-1] == "*"):
                problems.add(where, domain, "a host, *.suffix, prefix.* or *")
            if lowered in taken:
                problems.add(where, domain, "each domain once in a route configuration")
            taken.add(lowered)


def _virtual_host(host: route_pb2.VirtualHost, problems: Problems, *, field: str, body_limit: int) -> VirtualHost:
    allow_only(host, _HOST_FIELDS, field=field, problems=problems)
    if not host.name:
        problems.add(f"{field}.name", "", "a name")
    if not host.domains:
        problems.describe(f"{field}.domains", "none", "at least one domain")
    retry = (
        decode_retry_policy(host.retry_policy, problems, field=f"{field}.retry_policy")
        if host.HasField("retry_policy")
        else None
    )
    return VirtualHost(
        name=host.name,
        domains=tuple(domain.lower() for domain in host.domains),
        routes=tuple(
            _route(route, problems, field=f"{field}.routes[{index}]", host_retry=retry, body_limit=body_limit)
            for index, route in enumerate(host.routes)
        ),
        attempt_count_header=host.include_request_attempt_count,
    )


def _route(route: route_pb2.Route, problems: Problems, *, field: str, host_retry: RetryPolicy | None, body_limit: int) -> Route:
    allow_only(route, _ROUTE_FIELDS, field=field, problems=problems)
    action: Action = NonForwarding()
    match route.WhichOneof("action"):
        case "route":
            action = _forward(route.route, problems, field=f"{field}.route", host_retry=host_retry)
        case "direct_response":
            action = _direct(route.direct_response, problems, field=f"{field}.direct_response", body_limit=body_limit)
        case "non_forwarding_action":
            pass
        case None:
            problems.describe(field, "no action", "route, direct_response or non_forwarding_action")
    # Any other action is set, hence already reported as unsupported.
    match = decode_route_match(route.match, problems, field=f"{field}.match")
    return Route(name=route.name, match=match, action=action)


def _forward(action: route_pb2.RouteAction, problems: Problems, *, field: str, host_retry: RetryPolicy | None) -> Forward:
    allow_only(action, _ACTION_FIELDS, field=field, problems=problems)
    retry = host_retry
    if action.HasField("retry_policy"):  # replaces the virtual host's as a whole
        retry = decode_retry_policy(action.retry_policy, problems, field=f"{field}.retry_policy")
    return Forward(
        clusters=_clusters(action, problems, field=field),
        timeout=_timeout(action.timeout, problems, field=f"{field}.timeout") if action.HasField("timeout") else _ENVOY_TIMEOUT,
        retry=retry,
    )


def _timeout(duration: Duration, problems: Problems, *, field: str) -> float:
    return seconds(duration, field=field, problems=problems)


def _clusters(action: route_pb2.RouteAction, problems: Problems, *, field: str) -> tuple[WeightedCluster, ...]:
    specifier = action.WhichOneof("cluster_specifier")
    if specifier is None or (specifier == "cluster" and not action.cluster):
        problems.describe(field, "no cluster", "cluster or weighted_clusters")
        return ()
    if specifier == "cluster":
        return (WeightedCluster(action.cluster),)
    found: list[WeightedCluster] = []
    for index, share in enumerate(action.weighted_clusters.clusters):
        where = f"{field}.weighted_clusters.clusters[{index}]"
        if not share.name:
            problems.add(f"{where}.name", "", "a cluster name")
        if not share.HasField("weight"):
            problems.describe(f"{where}.weight", "unset", "a weight")
        found.append(WeightedCluster(share.name, share.weight.value))
    if not 0 < sum(share.weight for share in found) <= _MAX_TOTAL_WEIGHT:
        problems.describe(f"{field}.weighted_clusters", "sum of weights", f"1 to {_MAX_TOTAL_WEIGHT}")
    return tuple(found)


def _direct(action: route_pb2.DirectResponseAction, problems: Problems, *, field: str, body_limit: int) -> DirectResponse:
    if not 200 <= action.status < 600:
        problems.add(f"{field}.status", action.status, "200 to 599")
    body = _body(action.body)
    if len(body) > body_limit:
        problems.describe(f"{field}.body", f"{len(body)} bytes", f"at most {body_limit} bytes")
    return DirectResponse(status=action.status, body=body)


def _body(source: core_pb2.DataSource) -> bytes:
    return source.inline_string.encode() if source.HasField("inline_string") else source.inline_bytes
