"""HTTPRoute: one rule of a VirtualService."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from meshlib_control.config.kinds import (
    Destination,
    HTTPMatchRequest,
    HTTPRoute,
    HTTPRouteDestination,
    RouteDestination,
    StringMatch,
)
from meshlib_control.config.problems import Problem, under
from meshlib_control.config.validate import names
from meshlib_control.config.validate.http_actions import (
    check_cors,
    check_direct_response,
    check_fault,
    check_redirect,
    check_rewrite,
)
from meshlib_control.config.validate.retries import check_retry
from meshlib_control.config.validate.strings import (
    authorities_set,
    check_duration,
    check_headers,
    check_percent,
    check_string_match,
)

_PRESENCE_REGEX = "*"  # Istio takes it for "present" in withoutHeaders, though it is no expression


def check_http_route(route: HTTPRoute, *, delegate: bool = False) -> Iterator[Problem]:
    """Istio's rules for a rule.  `delegate`: it belongs to a VirtualService without hosts."""
    yield from _check_action(route, delegate=delegate)
    for index, match in enumerate(route.match):
        yield from under(("match", index), check_match(match))
    yield from _check_prefix_rewrite(route)
    yield from _check_authority(route)
    yield from under(("headers",), check_headers(route.headers))
    yield from under(("corsPolicy",), check_cors(route.cors_policy))
    yield from under(("fault",), check_fault(route.fault))
    yield from _check_mirrors(route)
    yield from under(("redirect",), check_redirect(route.redirect))
    yield from under(("directResponse",), check_direct_response(route.direct_response))
    yield from under(("retries",), check_retry(route.retries))
    yield from under(("rewrite",), check_rewrite(route.rewrite))
    yield from under(("route",), check_http_destinations(route.route))
    yield from under(("timeout",), check_duration(route.timeout))


def _check_action(route: HTTPRoute, *, delegate: bool) -> Iterator[Problem]:
    actions = {
        "route": bool(route.route),
        "redirect": route.redirect is not None,
        "directResponse": route.direct_response is not None,
        "delegate": route.delegate is not None,
    }
    given = [name for name, is_given in actions.items() if is_given]
    if delegate and route.delegate is not None:
        yield Problem(
            ("delegate",), "MSH0131", "a VirtualService without hosts is a delegate itself and cannot delegate further"
        )
        return
    if not given:
        yield Problem((), "MSH0131", "the rule does nothing; give it a route")
    for other in given[1:]:
        yield Problem((other,), "MSH0131", f"{given[0]} and {other} exclude each other")
    if route.redirect is not None or route.direct_response is not None:
        action = "redirect" if route.redirect is not None else "directResponse"
        for name, extra in (("fault", route.fault), ("rewrite", route.rewrite)):
            if extra is not None:
                yield Problem((name,), "MSH0131", f"{name} has no meaning together with {action}, since nothing is forwarded")


def check_match(match: HTTPMatchRequest) -> Iterator[Problem]:
    """One condition on requests."""
    for name, value in (("uri", match.uri), ("scheme", match.scheme), ("method", match.method), ("authority", match.authority)):
        if value is not None:
            yield from under((name,), check_string_match(value))
    yield from under(("headers",), _check_header_matches(match.headers, presence=False))
    yield from under(("withoutHeaders",), _check_header_matches(match.without_headers, presence=True))
    for name, value in match.query_params.items():
        yield from under(("queryParams", name), check_string_match(value))
    if match.port:
        yield from under(("port",), names.check_port(match.port))
    yield from under(("sourceLabels",), names.check_labels(match.source_labels))
    yield from under(("gateways",), names.check_gateway_names(match.gateways))
    if match.source_namespace and not names.is_dns_label(match.source_namespace):
        yield Problem(("sourceNamespace",), "MSH0124", f"{match.source_namespace!r} is not the name of a namespace")


def _check_header_matches(matches: Mapping[str, StringMatch], *, presence: bool) -> Iterator[Problem]:
    for name, value in matches.items():
        fault = None if names.is_claim(name) else names.header_name_fault(name)
        if fault:
            yield Problem((name,), "MSH0126", fault)
        if not (presence and value.regex == _PRESENCE_REGEX):
            yield from under((name,), check_string_match(value))


def _check_prefix_rewrite(route: HTTPRoute) -> Iterator[Problem]:
    if route.redirect is None or not route.redirect.prefix_rewrite:
        return
    for index, match in enumerate(route.match):
        if match.uri is not None and match.uri.prefix is None:
            message = "redirect.prefixRewrite replaces a prefix, so the match must be on uri.prefix"
            yield Problem(("match", index, "uri"), "MSH0141", message)


def _check_authority(route: HTTPRoute) -> Iterator[Problem]:
    """The authority is set in one place, or nobody could say which one holds."""
    above = authorities_set(route.headers)
    if route.rewrite is not None and route.rewrite.authority:
        above = ["rewrite.authority", *above]
    if len(above) > 1:
        yield Problem(("headers",), "MSH0141", f"the authority is set more than once: {' and '.join(above)}")
    for index, share in enumerate(route.route):
        own = authorities_set(share.headers)
        if own and len(above + own) > 1:
            message = f"the authority is set more than once: {' and '.join(above + own)}"
            yield Problem(("route", index, "headers"), "MSH0141", message)


def _check_mirrors(route: HTTPRoute) -> Iterator[Problem]:
    if route.mirror is not None and route.mirrors:
        yield Problem(("mirrors",), "MSH0131", "mirror and mirrors exclude each other; use mirrors alone")
    for name, percent in (("mirrorPercent", route.mirror_percent), ("mirror_percent", route.mirror_percent_snake)):
        if percent is not None and percent > 100:
            yield Problem((name,), "MSH0139", f"{percent} is not a percentage; it goes from 0 to 100")
    yield from under(("mirrorPercentage",), check_percent(route.mirror_percentage))
    if route.mirror is not None:
        yield from under(("mirror",), check_destination(route.mirror))
    for index, mirror in enumerate(route.mirrors):
        yield from under(("mirrors", index, "destination"), check_destination(mirror.destination))
        yield from under(("mirrors", index, "percentage"), check_percent(mirror.percentage))


def check_http_destinations(shares: Sequence[HTTPRouteDestination]) -> Iterator[Problem]:
    """The split of an HTTP route."""
    for index, share in enumerate(shares):
        yield from under((index, "destination"), check_destination(share.destination))
        yield from under((index, "headers"), check_headers(share.headers))
    yield from _check_weights([share.weight for share in shares])


def check_destinations(shares: Sequence[RouteDestination]) -> Iterator[Problem]:
    """The split of a TCP or TLS route."""
    for index, share in enumerate(shares):
        yield from under((index, "destination"), check_destination(share.destination))
    yield from _check_weights([share.weight for share in shares])


def _check_weights(weights: Iterable[int]) -> Iterator[Problem]:
    listed = list(weights)
    for index, weight in enumerate(listed):
        if weight < 0:
            yield Problem((index, "weight"), "MSH0132", f"the weight {weight} is negative")
    if len(listed) > 1 and sum(listed) == 0:
        yield Problem((), "MSH0132", "all weights are 0, so no destination would get anything; give at least one a weight")


def check_destination(destination: Destination) -> Iterator[Problem]:
    """A host, subset and port that a route may name."""
    if destination.host == "*":
        yield Problem(("host",), "MSH0121", "* is not a destination; name a host")
    else:
        fault = names.host_fault(destination.host)
        if fault:
            yield Problem(("host",), "MSH0121", fault)
    if destination.subset:
        yield from under(("subset",), check_subset_name(destination.subset))
    if destination.port is not None:
        yield from under(("port", "number"), names.check_port(destination.port.number))


def check_subset_name(name: str) -> Iterator[Problem]:
    if not name:
        yield Problem((), "MSH0138", "the subset has no name")
    elif not names.is_dns_label(name):
        yield Problem(
            (), "MSH0138", f"{name!r} is not a subset's name: letters, digits and inner dashes, at most 63 characters"
        )
