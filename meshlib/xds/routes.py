"""RouteConfiguration → model.  Where a field is unset, Envoy's default holds, not one of our own."""

from __future__ import annotations

import re
from typing import Final

from google.protobuf.duration_pb2 import Duration

from meshlib.model.route import (
    Action,
    DirectResponse,
    Forward,
    NonForwarding,
    Redirect,
    RetryPolicy,
    Route,
    RouteConfig,
    Substitution,
    VirtualHost,
    WeightedCluster,
)
from meshlib.xds.fault import decode_filters
from meshlib.xds.fields import allow_only, seconds
from meshlib.xds.hash_policies import decode_hash_policies
from meshlib.xds.header_changes import HEADER_FIELDS, decode_header_changes
from meshlib.xds.invalid import Problems
from meshlib.xds.matchers import decode_route_match, decode_substitution
from meshlib.xds.mirrors import decode_mirrors
from meshlib.xds.proto import core_pb2, route_pb2
from meshlib.xds.rate_limit import decode_host_limits
from meshlib.xds.retries import decode_retry_policy

MAX_DOMAINS: Final = 20_000
MAX_ROUTES: Final = 20_000
"""Per route configuration, all virtual hosts together."""

_LAST_PORT = 65_535
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
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
_HOST_FIELDS = HEADER_FIELDS | {
    "name",
    "domains",
    "routes",
    "include_request_attempt_count",
    "retry_policy",
    "typed_per_filter_config",
}
_ROUTE_FIELDS = HEADER_FIELDS | {
    "name",
    "match",
    "route",
    "redirect",
    "direct_response",
    "non_forwarding_action",
    "metadata",
    "typed_per_filter_config",
    "stat_prefix",
}
_SHARE_FIELDS = HEADER_FIELDS | {"name", "weight", "host_rewrite_literal"}
_REDIRECT_FIELDS = frozenset(
    {"scheme_redirect", "host_redirect", "port_redirect", "path_redirect", "prefix_rewrite", "response_code"}
)
_Redirect = route_pb2.RedirectAction
_MOVED: Final[dict[int, int]] = {
    _Redirect.MOVED_PERMANENTLY: 301,
    _Redirect.FOUND: 302,
    _Redirect.SEE_OTHER: 303,
    _Redirect.TEMPORARY_REDIRECT: 307,
    _Redirect.PERMANENT_REDIRECT: 308,
}
_AUTHORITY = re.compile(r"[!$&'()*+,;=:\[\]%._~0-9A-Za-z-]*")  # RFC 3986 host and port, without user info
_TARGET = re.compile(r"[!\"$-~]*")  # visible ASCII without "#"
_ACTION_FIELDS = frozenset(
    {
        "cluster",
        "weighted_clusters",
        "timeout",
        "retry_policy",
        "prefix_rewrite",
        "regex_rewrite",
        "host_rewrite_literal",
        "request_mirror_policies",
        "hash_policy",
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
        headers=decode_header_changes(host, problems, field=field),
        limits=decode_host_limits(host.typed_per_filter_config, problems, field=f"{field}.typed_per_filter_config"),
    )


def _route(route: route_pb2.Route, problems: Problems, *, field: str, host_retry: RetryPolicy | None, body_limit: int) -> Route:
    allow_only(route, _ROUTE_FIELDS, field=field, problems=problems)
    action: Action = NonForwarding()
    match route.WhichOneof("action"):
        case "route":
            action = _forward(route.route, problems, field=f"{field}.route", host_retry=host_retry)
        case "direct_response":
            action = _direct(route.direct_response, problems, field=f"{field}.direct_response", body_limit=body_limit)
        case "redirect":
            action = _redirect(route.redirect, problems, field=f"{field}.redirect")
        case "non_forwarding_action":
            pass
        case None:
            problems.describe(field, "no action", "route, redirect, direct_response or non_forwarding_action")
    # Any other action is set, hence already reported as unsupported.
    match = decode_route_match(route.match, problems, field=f"{field}.match")
    return Route(
        name=route.name,
        match=match,
        action=action,
        headers=decode_header_changes(route, problems, field=field),
        fault=decode_filters(route.typed_per_filter_config, problems, field=f"{field}.typed_per_filter_config"),
        stat_prefix=route.stat_prefix,
    )


def _forward(action: route_pb2.RouteAction, problems: Problems, *, field: str, host_retry: RetryPolicy | None) -> Forward:
    allow_only(action, _ACTION_FIELDS, field=field, problems=problems)
    retry = host_retry
    if action.HasField("retry_policy"):  # replaces the virtual host's as a whole
        retry = decode_retry_policy(action.retry_policy, problems, field=f"{field}.retry_policy")
    return Forward(
        clusters=_clusters(action, problems, field=field),
        timeout=_timeout(action.timeout, problems, field=f"{field}.timeout") if action.HasField("timeout") else _ENVOY_TIMEOUT,
        retry=retry,
        prefix_rewrite=_path(action.prefix_rewrite, problems, field=f"{field}.prefix_rewrite"),
        regex_rewrite=_regex_rewrite(action, problems, field=f"{field}.regex_rewrite"),
        authority=_authority(action.host_rewrite_literal, problems, field=f"{field}.host_rewrite_literal"),
        hash_policies=decode_hash_policies(action.hash_policy, problems, field=f"{field}.hash_policy"),
        mirrors=decode_mirrors(action.request_mirror_policies, problems, field=f"{field}.request_mirror_policies"),
    )


def _regex_rewrite(action: route_pb2.RouteAction, problems: Problems, *, field: str) -> Substitution | None:
    if not action.HasField("regex_rewrite"):
        return None
    if action.prefix_rewrite:
        problems.describe(field, "set", "either prefix_rewrite or regex_rewrite")
    return decode_substitution(action.regex_rewrite, problems, field=field)


def _path(text: str, problems: Problems, *, field: str) -> str:
    if not _TARGET.fullmatch(text):
        problems.add(field, text, "visible ASCII without #; everything else percent-encoded")
    return text


def _authority(text: str, problems: Problems, *, field: str) -> str:
    if not _AUTHORITY.fullmatch(text):
        problems.add(field, text, "a host, with or without a port")
    return text


def _redirect(action: route_pb2.RedirectAction, problems: Problems, *, field: str) -> Redirect:
    allow_only(action, _REDIRECT_FIELDS, field=field, problems=problems)
    status = _MOVED.get(action.response_code)
    if status is None:
        problems.add(f"{field}.response_code", action.response_code, "a RedirectResponseCode")
    if action.port_redirect > _LAST_PORT:
        problems.add(f"{field}.port_redirect", action.port_redirect, f"at most {_LAST_PORT}")
    if action.scheme_redirect and not _SCHEME.fullmatch(action.scheme_redirect):
        problems.add(f"{field}.scheme_redirect", action.scheme_redirect, "a scheme")
    return Redirect(
        status=status or 301,
        scheme=action.scheme_redirect,
        host=_authority(action.host_redirect, problems, field=f"{field}.host_redirect"),
        port=action.port_redirect,
        path=_path(action.path_redirect, problems, field=f"{field}.path_redirect"),
        prefix_rewrite=_path(action.prefix_rewrite, problems, field=f"{field}.prefix_rewrite"),
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
        allow_only(share, _SHARE_FIELDS, field=where, problems=problems)
        headers = decode_header_changes(share, problems, field=where)
        host = _authority(share.host_rewrite_literal, problems, field=f"{where}.host_rewrite_literal")
        found.append(WeightedCluster(share.name, share.weight.value, headers, host))
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
