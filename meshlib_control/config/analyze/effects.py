"""Rules that work differently than they look: unreachable, doubled, ignored, or out of proportion."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib_control.config.analyze.landscape import Issue, Landscape
from meshlib_control.config.analyze.matching import conditions, implies, is_same, is_unconditional
from meshlib_control.config.durations import format_duration
from meshlib_control.config.kinds import HTTPMatchRequest, HTTPRoute, VirtualService
from meshlib_control.config.model import ConfigResource
from meshlib_control.config.problems import Path, Problem, under

IGNORED_HEADERS = frozenset({"uri", "scheme", "method", "authority"})


def check_effects(land: Landscape, *, grpc_clients: bool | None) -> Iterator[Issue]:
    """`grpc_clients`: whether clients use grpcio's own xDS; None: unknown, so judged by the ports' protocols."""
    for resource in land.virtual_services:
        spec: VirtualService = resource.spec
        yield from _check_owner(resource, land)
        for problem in under(("spec", "http"), _check_order(spec.http)):
            yield Issue(resource, problem)
        for index, route in enumerate(spec.http):
            path: Path = ("spec", "http", index)
            for problem in under(path, _check_route(route)):
                yield Issue(resource, problem)
            uses_grpc = _serves_grpc(route, resource, land) if grpc_clients is None else grpc_clients
            if route.timeout is not None and uses_grpc:
                message = f"grpcio clients that use xds:/// are not sent the timeout of {format_duration(route.timeout)}"
                yield Issue(resource, Problem((*path, "timeout"), "MSH0304", message))


def _check_owner(resource: ConfigResource, land: Landscape) -> Iterator[Issue]:
    """Whoever may write to one namespace could take the traffic of all others (Istio's bulletin 2026-002)."""
    own, visible = resource.key.namespace, set(land.export_to(resource))
    if own == land.mesh.root_namespace or visible <= {".", own, "~"}:
        return
    for index, name in enumerate(resource.spec.hosts):
        host = land.fqdn(name, resource)
        owner = land.owner(host)
        if owner and owner != own:
            message = f"{host} is of {owner}, and callers elsewhere are routed by this"
            yield Issue(resource, Problem(("spec", "hosts", index), "MSH0307", message))


def _check_order(routes: tuple[HTTPRoute, ...]) -> Iterator[Problem]:
    seen: list[tuple[int, HTTPMatchRequest]] = []
    for index, route in enumerate(routes):
        unreachable: list[tuple[Path, int, HTTPMatchRequest, HTTPMatchRequest]] = []
        for position, match in enumerate(conditions(route)):
            winner = next(((first, earlier) for first, earlier in seen if implies(match, earlier)), None)
            if winner is not None:
                path: Path = (index, "match", position) if route.match else (index,)
                unreachable.append((path, winner[0], winner[1], match))
        if unreachable and len(unreachable) == len(conditions(route)):
            yield _unreachable((index,), *unreachable[0][1:])
        else:
            for path, first, earlier, match in unreachable:
                yield _unreachable(path, first, earlier, match)
        seen.extend((index, match) for match in conditions(route))


def _unreachable(path: Path, first: int, earlier: HTTPMatchRequest, match: HTTPMatchRequest) -> Problem:
    if is_unconditional(earlier):
        return Problem(path, "MSH0301", f"never used: http[{first}] takes every request")
    if is_same(earlier, match):
        return Problem(path, "MSH0302", f"never used: http[{first}] has the same condition")
    return Problem(path, "MSH0301", f"never used: http[{first}] matches every request that this would")


def _check_route(route: HTTPRoute) -> Iterator[Problem]:
    total = sum(share.weight for share in route.route)
    if len(route.route) > 1 and total != 100:
        message = f"the weights add up to {total}; each destination gets its part of that sum"
        yield Problem(("route",), "MSH0303", message)
    retry = route.retries
    per_try = retry.per_try_timeout if retry is not None and retry.attempts else None
    if per_try and route.timeout and per_try >= route.timeout:
        message = f"the whole call has {format_duration(route.timeout)}, so no attempt is cut short and none is retried"
        yield Problem(("retries", "perTryTimeout"), "MSH0305", message)
    for position, match in enumerate(route.match):
        for field, headers in (("headers", match.headers), ("withoutHeaders", match.without_headers)):
            for name in headers:
                if name.lower() in IGNORED_HEADERS:
                    message = f"a header named {name} is not looked at; use the field {name} of the match"
                    yield Problem(("match", position, field, name), "MSH0306", message)


def _serves_grpc(route: HTTPRoute, resource: ConfigResource, land: Landscape) -> bool:
    for share in route.route:
        wanted = share.destination.port.number if share.destination.port is not None else None
        for service in land.services(land.fqdn(share.destination.host, resource)):
            if any(port.protocol == "grpc" and wanted in (None, port.number) for port in service.ports):
                return True
    return False
