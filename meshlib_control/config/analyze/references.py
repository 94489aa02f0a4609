"""What resources say of each other and of the catalog: hosts, subsets, ports, and who claims or sees what."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from meshlib_control.config.analyze.actions import mirrors
from meshlib_control.config.analyze.landscape import Issue, KnownService, Landscape
from meshlib_control.config.findings import Severity
from meshlib_control.config.hosts import is_visible
from meshlib_control.config.kinds import Destination, DestinationRule, VirtualService
from meshlib_control.config.model import ConfigResource
from meshlib_control.config.problems import Path, Problem, under


def check_references(land: Landscape) -> Iterator[Issue]:
    """Everything that one resource says of others."""
    for resource in land.virtual_services:
        for path, destination in destinations(resource.spec):
            for problem in under(path, _check_destination(destination, resource, land)):
                yield Issue(resource, problem)
    yield from _check_claims(land)
    for rule in land.destination_rules:
        for problem in _check_rule(rule, land):
            yield Issue(rule, problem)
    yield from _check_rules_of_one_host(land)


def destinations(spec: VirtualService) -> Iterator[tuple[Path, Destination]]:
    """Every destination that the rules name, with its path."""
    for index, route in enumerate(spec.http):
        for position, share in enumerate(route.route):
            yield ("spec", "http", index, "route", position, "destination"), share.destination
        for path, mirror in mirrors(route):
            yield ("spec", "http", index, *path), mirror


def _check_destination(destination: Destination, resource: ConfigResource, land: Landscape) -> Iterator[Problem]:
    host = land.fqdn(destination.host, resource)
    services = land.services(host)
    if not services:
        yield from _check_unknown(host, land)
    elif not any(is_visible(service.export_to, service.namespace, resource.key.namespace) for service in services):
        owner = services[0].namespace
        message = f"{host} is of the namespace {owner} and not exported to {resource.key.namespace}"
        yield Problem(("host",), "MSH0206", message)
    if destination.subset:
        yield from _check_subset(destination.subset, host, resource, land)
    if destination.port is not None and services:
        yield from _check_port(destination.port.number, host, services)


def _check_unknown(host: str, land: Landscape) -> Iterator[Problem]:
    if not land.live and land.is_named(host):
        return
    close = get_close_matches(host, land.known_hosts(), n=1, cutoff=0.8)
    hint = f"; did you mean {close[0]}?" if close else ""
    if land.live:
        yield Problem(("host",), "MSH0201", f"the catalog has no service {host}: calls to it would fail{hint}", Severity.ERROR)
    else:
        message = f"no other resource names {host}; whether the catalog has it was not looked at{hint}"
        yield Problem(("host",), "MSH0201", message)


def _check_subset(subset: str, host: str, resource: ConfigResource, land: Landscape) -> Iterator[Problem]:
    namespace = resource.key.namespace
    rules = land.rules_for(host, namespace)
    defined = sorted({item.name for rule in rules for item in rule.spec.subsets})
    if subset in defined:
        return
    elsewhere = [rule for rule in land.rules(host) if any(item.name == subset for item in rule.spec.subsets)]
    hidden = [rule for rule in elsewhere if not land.sees(rule, namespace)]
    if hidden:
        message = f"{hidden[0].key} defines the subset {subset} of {host} but is not exported to {namespace}"
        yield Problem(("subset",), "MSH0206", message, Severity.ERROR)
        return
    close = get_close_matches(subset, defined, n=1, cutoff=0.6)
    if not rules and elsewhere:
        has = f"{elsewhere[0].key} defines it, but rules count only in the namespace of the caller, the service or the root"
    elif not rules:
        has = "no DestinationRule is about this host"
    else:
        has = f"{rules[0].key} defines {', '.join(defined) or 'no subsets'}"
    hint = f"; did you mean {close[0]}?" if close else ""
    yield Problem(("subset",), "MSH0202", f"{host} has no subset {subset}: {has}{hint}")


def _check_port(number: int, host: str, services: list[KnownService]) -> Iterator[Problem]:
    ports = sorted({port.number for service in services for port in service.ports})
    if ports and number not in ports:
        listed = ", ".join(str(port) for port in ports)
        yield Problem(("port", "number"), "MSH0203", f"{host} has no port {number}; it has {listed}")


def _check_claims(land: Landscape) -> Iterator[Issue]:
    """Two VirtualServices for one host: the older one, which comes first, holds."""
    claims: dict[str, list[ConfigResource]] = {}
    for resource in land.virtual_services:
        spec: VirtualService = resource.spec
        if spec.gateways and "mesh" not in spec.gateways:
            continue
        for index, name in enumerate(spec.hosts):
            host = land.fqdn(name, resource)
            for older in claims.get(host, []):
                if older is not resource and land.compete(older, resource):
                    message = f"{older.key} names {host} too and goes before this one, so these rules are not used"
                    yield Issue(resource, Problem(("spec", "hosts", index), "MSH0204", message))
                    break
            claims.setdefault(host, []).append(resource)


def _check_rule(resource: ConfigResource, land: Landscape) -> Iterator[Problem]:
    spec: DestinationRule = resource.spec
    host = land.rule_host(resource)
    services = land.services(host)
    if land.live and not services and not host.startswith("*"):
        message = f"the catalog has no service {host}: the rule has no effect until it does"
        yield Problem(("spec", "host"), "MSH0201", message)
    if host.startswith("*"):
        return
    labels = land.instances(host)
    for index, subset in enumerate(spec.subsets):
        if labels and not any(subset.labels.items() <= instance.items() for instance in labels):
            wanted = ", ".join(f"{key}={value}" for key, value in sorted(subset.labels.items()))
            message = f"none of the {len(labels)} known instances of {host} has {wanted}"
            yield Problem(("spec", "subsets", index, "labels"), "MSH0207", message)


def _check_rules_of_one_host(land: Landscape) -> Iterator[Issue]:
    first: dict[tuple[object, ...], ConfigResource] = {}
    for resource in land.destination_rules:
        host, chosen = land.rule_host(resource), resource.spec.workload_selector
        callers = frozenset(chosen.match_labels.items()) if chosen is not None else None  # each selector is a rule of its own
        older = first.setdefault((resource.key.namespace, host, callers), resource)
        if older is not resource and land.share_callers(older, resource):
            lost = _lost(older.spec, resource.spec)
            message = f"{older.key} is about {host} too and goes before this one: {lost}"
            yield Issue(resource, Problem(("spec", "host"), "MSH0205", message))


def _lost(older: DestinationRule, newer: DestinationRule) -> str:
    """What of the newer rule does not count."""
    names = {subset.name for subset in older.subsets}
    twice = [subset.name for subset in newer.subsets if subset.name in names]
    parts = []
    if older.traffic_policy is not None and newer.traffic_policy is not None:
        parts.append("its trafficPolicy holds, not this one")
    if twice:
        parts.append(f"its subsets {', '.join(twice)} hold, not these")
    return "; ".join(parts) or "the two are joined"
