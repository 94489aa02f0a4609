"""Balancers that do less, or something else, than they look like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from meshlib_control.config.analyze.landscape import Issue, Landscape
from meshlib_control.config.kinds import (
    ConsistentHash,
    Destination,
    DestinationRule,
    HTTPRoute,
    LoadBalancer,
    ResiliencePolicy,
    TrafficPolicy,
)
from meshlib_control.config.model import ConfigResource
from meshlib_control.config.problems import Path, Problem


def check_balancing(land: Landscape, *, grpc_clients: bool | None) -> Iterator[Issue]:
    """`grpc_clients`: whether clients use grpcio's own xDS; None: unknown, so judged by the ports' protocols."""
    watched = _watched(land)
    for resource in land.destination_rules:
        services = land.services(land.rule_host(resource))
        of_grpc = any(port.protocol == "grpc" for service in services for port in service.ports)
        for level in _levels(resource.spec, noticed=land.rule_host(resource) in watched):
            for problem in _check_level(level, grpc=of_grpc if grpc_clients is None else grpc_clients):
                yield Issue(resource, problem)
    for resource in land.virtual_services:
        for index, route in enumerate(resource.spec.http):
            for problem in _check_split(route, resource, land):
                yield Issue(resource, Problem(("spec", "http", index, *problem.path), problem.code, problem.message))


def _watched(land: Landscape) -> set[str]:
    """Hosts whose failing endpoints some ResiliencePolicy leaves out."""
    found = set()
    for resource in land.resilience_policies:
        spec: ResiliencePolicy = resource.spec
        if spec.host is not None and (spec.failure_rate_ejection or spec.success_rate_ejection or spec.health_checks):
            found.add(land.fqdn(spec.host, resource))
    return found


@dataclass(frozen=True, slots=True)
class _Level:
    """A load balancer and where it stands; `noticed`: failing endpoints are, by what holds together with it."""

    path: Path
    balancer: LoadBalancer
    noticed: bool


def _levels(spec: DestinationRule, *, noticed: bool) -> Iterator[_Level]:
    host = spec.traffic_policy or TrafficPolicy()
    policies = [item.traffic_policy or TrafficPolicy() for item in spec.subsets]
    # A host's balancer is its subsets' too, so one that detects outliers gives it a meaning.
    anywhere = any(policy.outlier_detection is not None for policy in (host, *policies))
    yield from _levels_of(host, ("spec", "trafficPolicy"), noticed or anywhere, noticed)
    for index, policy in enumerate(policies):
        here = noticed or policy.outlier_detection is not None or host.outlier_detection is not None
        yield from _levels_of(policy, ("spec", "subsets", index, "trafficPolicy"), here, noticed)


def _levels_of(policy: TrafficPolicy, path: Path, noticed: bool, otherwise: bool) -> Iterator[_Level]:
    """A port inherits nothing but what is noticed `otherwise` than by outlier detection."""
    if policy.load_balancer is not None:
        yield _Level((*path, "loadBalancer"), policy.load_balancer, noticed)
    for index, port in enumerate(policy.port_level_settings):
        if port.load_balancer is not None:
            here = otherwise or port.outlier_detection is not None
            yield _Level((*path, "portLevelSettings", index, "loadBalancer"), port.load_balancer, here)


def _check_level(level: _Level, *, grpc: bool) -> Iterator[Problem]:
    setting, hashed = level.balancer.locality_lb_setting, level.balancer.consistent_hash
    if setting is not None and setting.enabled is not False and not setting.distribute and not level.noticed:
        message = "no endpoint is preferred without outlierDetection beside it: nobody would notice when to fail over"
        yield Problem((*level.path, "localityLbSetting"), "MSH0351", message)
    if hashed is None:
        return
    path: Path = (*level.path, "consistentHash")
    if hashed.use_source_ip:
        message = "a process has one address: all its calls go to the same endpoint, whoever its own callers are"
        yield Problem((*path, "useSourceIp"), "MSH0352", message)
    if grpc and hashed.http_header_name is None:
        message = "grpcio clients that use xds:/// hash headers only; with anything else they take turns (round robin)"
        yield Problem(path, "MSH0353", message)


def _check_split(route: HTTPRoute, resource: ConfigResource, land: Landscape) -> Iterator[Problem]:
    if sum(share.weight > 0 for share in route.route) < 2:
        return
    for position, share in enumerate(route.route):
        if share.weight and (key := _hash_key(share.destination, resource, land)):
            message = f"the split is drawn anew for each request, so one {key} comes to several destinations in turn"
            yield Problem(("route", position), "MSH0354", message)
            return


def _hash_key(destination: Destination, resource: ConfigResource, land: Landscape) -> str:
    """What of requests to a destination is hashed, in words; empty: nothing."""
    for rule in land.rules_for(land.fqdn(destination.host, resource), resource.key.namespace):
        policies = [item.traffic_policy for item in rule.spec.subsets if item.name == destination.subset]
        for policy in (*policies, rule.spec.traffic_policy):
            if policy is not None and policy.load_balancer is not None:
                hashed = policy.load_balancer.consistent_hash
                return _in_words(hashed) if hashed is not None else ""
    return ""


def _in_words(hashed: ConsistentHash) -> str:
    if hashed.http_header_name:
        return f"value of {hashed.http_header_name}"
    if hashed.http_cookie is not None:
        return f"cookie {hashed.http_cookie.name}"
    return f"value of {hashed.http_query_parameter_name}" if hashed.http_query_parameter_name else "caller"
