"""Compiled routes as lines that people read.  Pure: protobuf in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.duration_pb2 import Duration

from meshlib.xds.proto.core_pb2 import StringMatcher
from meshlib.xds.proto.route_pb2 import (
    HeaderMatcher,
    QueryParameterMatcher,
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from meshlib_control.admin.views import RouteView


def route_views(service: str, configuration: RouteConfiguration) -> Iterator[RouteView]:
    """Every route of `configuration`, in the order in which they are tried."""
    for host in configuration.virtual_hosts:
        for route in host.routes:
            yield RouteView(
                service=service,
                virtual_host=host.name,
                name=route.name,
                match=describe_match(route.match),
                action=describe_action(route),
                timeout=_timeout(route),
                retries=_retries(route, host),
            )


def describe_match(match: RouteMatch) -> str:
    """``GET prefix /api, header end-user is jason``."""
    parts = [_path(match)]
    parts.extend(_header(header) for header in match.headers)
    parts.extend(_query(parameter) for parameter in match.query_parameters)
    if match.HasField("grpc"):
        parts.append("gRPC only")
    if match.HasField("case_sensitive") and not match.case_sensitive.value:
        parts.append("in any case")
    return ", ".join(parts)


def describe_action(route: Route) -> str:
    """Where it goes: ``90 % cluster, 10 % cluster``, a redirect or an answer."""
    kind = route.WhichOneof("action")
    if kind == "route":
        copies = "".join(f", copied to {policy.cluster}" for policy in route.route.request_mirror_policies)
        return f"{_forward(route.route)}{copies}"
    if kind == "direct_response":
        return f"answer {route.direct_response.status}"
    if kind == "redirect":
        target = route.redirect.host_redirect or "the same host"
        return f"redirect to {target}{route.redirect.path_redirect or route.redirect.prefix_rewrite}"
    return "pass on to the application" if kind == "non_forwarding_action" else "nothing"


def seconds(duration: Duration) -> str:
    """``2.5s``."""
    return f"{duration.seconds + duration.nanos / 1e9:g}s"


def _forward(action: RouteAction) -> str:
    if action.WhichOneof("cluster_specifier") == "cluster":
        return action.cluster
    shares = list(action.weighted_clusters.clusters)
    total = sum(share.weight.value for share in shares) or 1
    return ", ".join(f"{100 * share.weight.value / total:g} % {share.name}" for share in shares)


def _path(match: RouteMatch) -> str:
    kind = match.WhichOneof("path_specifier")
    if kind == "prefix":
        return f"prefix {match.prefix}"
    if kind == "path":
        return f"path {match.path}"
    if kind == "path_separated_prefix":
        return f"path {match.path_separated_prefix} and below"
    return f"path like {match.safe_regex.regex}" if kind == "safe_regex" else "any path"


def _header(header: HeaderMatcher) -> str:
    kind = header.WhichOneof("header_match_specifier")
    if kind == "string_match":
        condition = f"{'is not' if header.invert_match else 'is'} {_string(header.string_match)}"
    elif kind == "range_match":
        negation = "not " if header.invert_match else ""
        condition = f"is {negation}in [{header.range_match.start}, {header.range_match.end})"
    else:
        # present_match: false and invert_match both turn it round (envoy: HeaderMatcher.present_match).
        wanted = (header.present_match if kind == "present_match" else True) != header.invert_match
        condition = "is present" if wanted else "is absent"
    return f"{_header_name(header.name)} {condition}"


def _header_name(name: str) -> str:
    return name.removeprefix(":") if name.startswith(":") else f"header {name}"


def _query(parameter: QueryParameterMatcher) -> str:
    if parameter.WhichOneof("query_parameter_match_specifier") == "string_match":
        return f"parameter {parameter.name} is {_string(parameter.string_match)}"
    return f"parameter {parameter.name} is present"


def _string(matcher: StringMatcher) -> str:
    kind = matcher.WhichOneof("match_pattern")
    if kind == "safe_regex":
        text = f"like {matcher.safe_regex.regex}"
    elif kind is None or kind == "exact":
        text = matcher.exact
    else:
        text = f"{kind} {getattr(matcher, kind)}"
    return f"{text} (in any case)" if matcher.ignore_case else text


def _timeout(route: Route) -> str:
    action = route.route
    if route.WhichOneof("action") != "route" or not action.HasField("timeout"):
        return ""
    return "none" if not action.timeout.ToNanoseconds() else seconds(action.timeout)


def _retries(route: Route, host: VirtualHost) -> str:
    if route.WhichOneof("action") != "route":
        return ""
    policy = route.route.retry_policy if route.route.HasField("retry_policy") else host.retry_policy
    if not policy.retry_on:
        return "none"
    attempts = policy.num_retries.value if policy.HasField("num_retries") else 1  # envoy: RetryPolicy.num_retries
    per_try = f", {seconds(policy.per_try_timeout)} each" if policy.HasField("per_try_timeout") else ""
    return f"{attempts} on {policy.retry_on}{per_try}"


def clusters_of(configuration: RouteConfiguration) -> Iterable[str]:
    """The clusters that routes name."""
    for host in configuration.virtual_hosts:
        for route in host.routes:
            if route.route.cluster:
                yield route.route.cluster
            yield from (share.name for share in route.route.weighted_clusters.clusters)
