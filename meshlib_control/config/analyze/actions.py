"""What rules do with requests, where it comes to something else than it looks like."""

from __future__ import annotations

from collections.abc import Iterator

import re2

from meshlib_control.config.analyze.landscape import Issue, Landscape
from meshlib_control.config.kinds import CorsPolicy, Destination, HTTPRoute, StringMatch, VirtualService
from meshlib_control.config.model import ConfigResource
from meshlib_control.config.problems import Path, Problem, under

_SCHEME = "http"
"""Of every call that a router of the mesh gets to see."""

_STRANGER = "https://anybody.invalid"


def check_actions(land: Landscape) -> Iterator[Issue]:
    for resource in land.virtual_services:
        spec: VirtualService = resource.spec
        for index, route in enumerate(spec.http):
            for problem in under(("spec", "http", index), _check_route(route, resource, land)):
                yield Issue(resource, problem)


def _check_route(route: HTTPRoute, resource: ConfigResource, land: Landscape) -> Iterator[Problem]:
    yield from under(("fault",), _check_fault(route))
    yield from _check_passed_on(route, resource, land)
    yield from _check_mirrors(route, resource, land)
    if route.cors_policy is not None:
        yield from under(("corsPolicy",), _check_cors(route.cors_policy))
    if route.retries is not None and "retriable-headers" in (route.retries.retry_on or "").split(","):
        message = "retriable-headers does nothing: which headers it is about can only be said to an Envoy directly"
        yield Problem(("retries", "retryOn"), "MSH0365", message)
    for position, match in enumerate(route.match):
        if match.scheme is not None and not _matches(match.scheme, _SCHEME):
            message = "every call that is routed is plain http; what the application encrypts itself has no rules"
            yield Problem(("match", position, "scheme"), "MSH0328", message)


def _check_fault(route: HTTPRoute) -> Iterator[Problem]:
    fault = route.fault
    if fault is None:
        return
    if fault.delay is not None and fault.delay.percentage is None and not fault.delay.percent:
        yield Problem(("delay",), "MSH0364", _NO_SHARE)
    if fault.abort is not None and fault.abort.percentage is None:
        yield Problem(("abort",), "MSH0364", _NO_SHARE)


_NO_SHARE = "without a percentage it is for no request at all; for all of them write percentage: {value: 100}"


def _check_passed_on(route: HTTPRoute, resource: ConfigResource, land: Landscape) -> Iterator[Problem]:
    """What the application's own transport sends cannot be changed."""
    for position, share in enumerate(route.route):
        changed = [name for name, value in (("rewrite", route.rewrite), ("headers", route.headers or share.headers)) if value]
        if changed and _is_passed_on(share.destination, resource, land):
            message = (
                f"{share.destination.host} has the resolution NONE: its requests go by the application's own transport, and "
                f"{' and '.join(changed)} would be lost, so they fail"
            )
            yield Problem(("route", position, "destination", "host"), "MSH0366", message)


def _check_mirrors(route: HTTPRoute, resource: ConfigResource, land: Landscape) -> Iterator[Problem]:
    for path, mirror in mirrors(route):
        if _is_passed_on(mirror, resource, land):
            message = f"{mirror.host} has the resolution NONE: nobody here can send anything there, and no copies are sent"
            yield Problem((*path, "host"), "MSH0366", message)
    if route.mirror is not None or route.mirrors:
        for position, share in enumerate(route.route):
            services = land.services(land.fqdn(share.destination.host, resource))
            wanted = share.destination.port.number if share.destination.port is not None else None
            if any(port.protocol == "grpc" and wanted in (None, port.number) for one in services for port in one.ports):
                message = f"calls of {share.destination.host} by a gRPC channel of meshlib are not copied; others are"
                yield Problem(("route", position, "destination", "host"), "MSH0367", message)


def mirrors(route: HTTPRoute) -> Iterator[tuple[Path, Destination]]:
    """Where copies go, with the path below the rule."""
    if route.mirror is not None:
        yield ("mirror",), route.mirror
    for index, mirror in enumerate(route.mirrors):
        yield ("mirrors", index, "destination"), mirror.destination


def _is_passed_on(destination: Destination, resource: ConfigResource, land: Landscape) -> bool:
    services = land.services(land.fqdn(destination.host, resource))
    return bool(services) and services[0].resolution == "NONE"


def _check_cors(policy: CorsPolicy) -> Iterator[Problem]:
    origins = policy.allow_origins or tuple(StringMatch(exact=origin) for origin in policy.allow_origin)
    for index, origin in enumerate(origins):
        if policy.allow_credentials and (origin.exact == "*" or _matches(origin, _STRANGER)):
            field = "allowOrigins" if policy.allow_origins else "allowOrigin"
            message = "any web site may call this with its visitor's cookies, and read the answer; name the origins"
            yield Problem((field, index), "MSH0368", message)
    if not origins:
        yield Problem((), "MSH0369", "no origin is allowed, so no browser is; give allowOrigins")


def _matches(condition: StringMatch, value: str) -> bool:
    if condition.exact is not None:
        return condition.exact == value
    if condition.prefix is not None:
        return value.startswith(condition.prefix)
    if condition.regex is None or condition.regex == "*":
        return True
    try:
        return re2.fullmatch(condition.regex, value) is not None
    except re2.error:
        return True  # said elsewhere
