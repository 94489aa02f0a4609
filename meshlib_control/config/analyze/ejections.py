"""Outlier detection that has nobody to eject."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from meshlib_control.config.analyze.landscape import Issue, Landscape
from meshlib_control.config.code import WARNING
from meshlib_control.config.kinds import DestinationRule, OutlierDetection, ResiliencePolicy, TrafficPolicy
from meshlib_control.config.problems import Path, Problem

_DEFAULT = 10
"""Percent; Envoy's, and so Istio's."""

_FEW = 5
"""Endpoints; a share that ejects one of so many is taken for what was meant."""


def check_ejections(land: Landscape) -> Iterator[Issue]:
    """As Envoy counts, a share of less than one endpoint is none."""
    lenient = set(_ejecting(land))
    for resource in land.destination_rules:
        host = land.rule_host(resource)
        known = len(land.instances(host))
        for path, detection in _detections(resource.spec):
            if host in lenient and not detection.max_ejection_percent:
                continue  # the policy's own share holds, which is one endpoint at least
            problem = _check(detection, path, known)
            if problem is not None:
                yield Issue(resource, problem)


def _ejecting(land: Landscape) -> Iterator[str]:
    """Hosts with a ResiliencePolicy that ejects."""
    for resource in land.resilience_policies:
        spec: ResiliencePolicy = resource.spec
        if spec.host is not None and (spec.failure_rate_ejection or spec.success_rate_ejection):
            yield land.fqdn(spec.host, resource)


def _detections(spec: DestinationRule) -> Iterator[tuple[Path, OutlierDetection]]:
    yield from _of_policy(spec.traffic_policy, ("spec", "trafficPolicy"))
    for index, subset in enumerate(spec.subsets):
        yield from _of_policy(subset.traffic_policy, ("spec", "subsets", index, "trafficPolicy"))


def _of_policy(policy: TrafficPolicy | None, path: Path) -> Iterator[tuple[Path, OutlierDetection]]:
    if policy is None:
        return
    if policy.outlier_detection is not None:
        yield (*path, "outlierDetection"), policy.outlier_detection
    for index, port in enumerate(policy.port_level_settings):
        if port.outlier_detection is not None:
            yield (*path, "portLevelSettings", index, "outlierDetection"), port.outlier_detection


def _check(detection: OutlierDetection, path: Path, known: int) -> Problem | None:
    """`known`: endpoints of the host; 0: nobody knows."""
    percent = detection.max_ejection_percent or _DEFAULT
    needed = ceil(100 / percent)
    if needed <= _FEW or known >= needed:
        return None
    said = (
        f"maxEjectionPercent is {percent}"
        if detection.max_ejection_percent
        else f"maxEjectionPercent is not given, so {percent}"
    )
    if not known:
        return Problem(path, "MSH0355", f"{said}: with fewer than {needed} endpoints none is ever ejected")
    return Problem(
        path, "MSH0355", f"{said}: of the {known} known endpoints none is ever ejected, which takes {needed}", WARNING
    )
