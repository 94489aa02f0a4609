"""Cross-checks of a whole configuration: references between resources and to the catalog, and rules without effect."""

from __future__ import annotations

from collections.abc import Iterable

from meshlib_control.config.analyze.actions import check_actions
from meshlib_control.config.analyze.authorization import check_authorization
from meshlib_control.config.analyze.balancing import check_balancing
from meshlib_control.config.analyze.delegates import check_delegates
from meshlib_control.config.analyze.effects import check_effects
from meshlib_control.config.analyze.ejections import check_ejections
from meshlib_control.config.analyze.landscape import Instances, Issue, KnownPort, KnownService, Landscape, Services
from meshlib_control.config.analyze.mtls import check_mtls
from meshlib_control.config.analyze.rate_limits import check_rate_limits
from meshlib_control.config.analyze.references import check_references
from meshlib_control.config.analyze.resilience import check_resilience
from meshlib_control.config.analyze.sidecars import check_sidecars
from meshlib_control.config.codes import CODES
from meshlib_control.config.findings import Finding
from meshlib_control.config.hosts import DEFAULT_DOMAIN
from meshlib_control.config.model import ConfigResource, ConfigSet
from meshlib_control.config.problems import render

__all__ = ["Instances", "KnownPort", "KnownService", "Services", "analyze"]


def analyze(
    resources: ConfigSet | Iterable[ConfigResource],
    *,
    services: Services | None = None,
    instances: Instances | None = None,
    grpc_clients: bool | None = None,
    domain: str = DEFAULT_DOMAIN,
) -> list[Finding]:
    """What is wrong between valid resources, by file and line, the same order every time.

    `services`: what the catalog has, as a collection or by host; None: it was not looked at, so an unknown host is only a
    warning.  `instances`: the labels of each instance by host, as far as they are known.
    `grpc_clients`: whether some clients use grpcio's own xDS; None: unknown.
    """
    resources = resources if isinstance(resources, ConfigSet) else ConfigSet(resources)
    land = Landscape(resources, services, instances, domain)
    issues = [
        *check_references(land),
        *check_effects(land, grpc_clients=grpc_clients),
        *check_delegates(land),
        *check_actions(land),
        *check_balancing(land, grpc_clients=grpc_clients),
        *check_ejections(land),
        *check_mtls(land, grpc_clients=grpc_clients),
        *check_authorization(land),
        *check_sidecars(land),
        *check_resilience(land),
        *check_rate_limits(land),
    ]
    findings = [_finding(issue) for issue in issues]
    return sorted(findings, key=lambda f: (f.file, f.line, f.column, f.resource, f.field, f.code))


def _finding(issue: Issue) -> Finding:
    resource, problem = issue.resource, issue.problem
    line, column = resource.places.locate(problem.path) if resource.places else (resource.line, 0)
    return Finding(
        code=problem.code,
        severity=problem.severity or CODES[problem.code].severity,
        resource=str(resource.key),
        field=render(problem.path),
        message=problem.message,
        file=resource.file,
        line=line,
        column=column,
    )
