"""VirtualService."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations

from meshlib_control.config.kinds import L4MatchAttributes, TCPRoute, TLSMatchAttributes, TLSRoute, VirtualService
from meshlib_control.config.problems import Problem, under
from meshlib_control.config.validate import names
from meshlib_control.config.validate.http_routes import check_destinations, check_http_route

MESH = "mesh"
"""The gateway that stands for all calling processes."""

_SNI_DOMAIN = re.compile(r"outbound_\.[0-9]+_\.[^.]*_\.(?P<host>.+)\Z")


def check_virtual_service(spec: VirtualService, namespace: str) -> Iterator[Problem]:
    """Istio's rules."""
    is_delegate = not spec.hosts
    of_mesh = (not spec.gateways and not is_delegate) or MESH in spec.gateways
    of_gateway = any(gateway != MESH for gateway in spec.gateways)
    yield from under(("gateways",), names.check_gateway_names(spec.gateways))
    if not of_gateway:
        yield from _check_claims(spec)
    yield from under(("hosts",), _check_hosts(spec.hosts, of_mesh=of_mesh, of_gateway=of_gateway))
    if is_delegate:
        for name, given in (("gateways", spec.gateways), ("tls", spec.tls), ("tcp", spec.tcp)):
            if given:
                yield Problem((name,), "MSH0131", f"without hosts this is a delegate, where {name} has no meaning; add hosts")
    if not spec.http and not spec.tcp and not spec.tls:
        yield Problem(("http",), "MSH0143", "there are no rules; give it http rules")
    for index, http_route in enumerate(spec.http):
        yield from under(("http", index), check_http_route(http_route, delegate=is_delegate))
    for index, tls_route in enumerate(spec.tls):
        yield from under(("tls", index), _check_tls_route(tls_route, spec.hosts))
    for index, tcp_route in enumerate(spec.tcp):
        yield from under(("tcp", index), _check_tcp_route(tcp_route))
    yield from under(("exportTo",), names.check_export_to(spec.export_to, namespace))


def _check_hosts(hosts: tuple[str, ...], *, of_mesh: bool, of_gateway: bool) -> Iterator[Problem]:
    clean = True
    for index, host in enumerate(hosts):
        sni = _SNI_DOMAIN.match(host) if of_gateway else None
        fault = names.fqdn_fault(sni["host"]) if sni else names.host_fault(host)
        if fault and not names.is_ip(host):
            clean = False
            yield Problem((index,), "MSH0121", fault)
        elif of_mesh and host == "*":
            clean = False
            yield Problem(
                (index,), "MSH0121", "* would take every call of every process; name hosts, or a suffix such as *.example.com"
            )
    if not clean:
        return
    for (_, one), (index, other) in combinations(enumerate(hosts), 2):
        if names.hosts_overlap(one, other):
            yield Problem((index,), "MSH0122", f"{other} and {one} of the same list match the same names")


def _check_claims(spec: VirtualService) -> Iterator[Problem]:
    for index, route in enumerate(spec.http):
        for position, match in enumerate(route.match):
            for field, headers in (("headers", match.headers), ("withoutHeaders", match.without_headers)):
                for name in headers:
                    if names.is_claim(name):
                        message = f"{name}: routing by the claims of a token is for gateways only"
                        yield Problem(("http", index, "match", position, field, name), "MSH0130", message)


def _check_tls_route(route: TLSRoute, hosts: tuple[str, ...]) -> Iterator[Problem]:
    if not route.match:
        yield Problem(("match",), "MSH0143", "a TLS rule needs a match")
    for index, match in enumerate(route.match):
        yield from under(("match", index), _check_tls_match(match, hosts))
    if not route.route:
        yield Problem(("route",), "MSH0131", "the rule does nothing; give it a route")
    yield from under(("route",), check_destinations(route.route))


def _check_tls_match(match: TLSMatchAttributes, hosts: tuple[str, ...]) -> Iterator[Problem]:
    if not match.sni_hosts:
        yield Problem(("sniHosts",), "MSH0143", "a TLS match needs sniHosts")
    for index, name in enumerate(match.sni_hosts):
        yield from under(("sniHosts", index), _check_sni(name, hosts))
    yield from _check_connection_match(match)


def _check_sni(name: str, hosts: tuple[str, ...]) -> Iterator[Problem]:
    if names.is_ip(name):
        yield Problem((), "MSH0151", f"{name}: clients do not send addresses as server names")
        return
    sni = _SNI_DOMAIN.match(name)
    fault = names.fqdn_fault(sni["host"]) if sni else names.host_fault(name)
    if fault:
        yield Problem((), "MSH0121", fault)
    elif not any(names.host_is_within(name, host) for host in hosts):
        yield Problem((), "MSH0121", f"{name} is not among the hosts of this VirtualService: {', '.join(hosts)}")


def _check_tcp_route(route: TCPRoute) -> Iterator[Problem]:
    for index, match in enumerate(route.match):
        yield from under(("match", index), _check_connection_match(match))
    if not route.route:
        yield Problem(("route",), "MSH0131", "the rule does nothing; give it a route")
    yield from under(("route",), check_destinations(route.route))


def _check_connection_match(match: TLSMatchAttributes | L4MatchAttributes) -> Iterator[Problem]:
    for index, subnet in enumerate(match.destination_subnets):
        fault = names.address_fault(subnet)
        if fault:
            yield Problem(("destinationSubnets", index), "MSH0135", fault)
    if match.port:
        yield from under(("port",), names.check_port(match.port))
    yield from under(("sourceLabels",), names.check_labels(match.source_labels))
    yield from under(("gateways",), names.check_gateway_names(match.gateways))
