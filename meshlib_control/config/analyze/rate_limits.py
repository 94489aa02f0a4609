"""RateLimitPolicies: limits that hold for nobody, and limits that whoever is limited can get around."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib_control.config.analyze.landscape import Issue, Landscape
from meshlib_control.config.kinds import RateLimitPolicy, RequestAuthentication
from meshlib_control.config.kinds.rate_limit_policy import RateLimit
from meshlib_control.config.model import ConfigResource
from meshlib_control.config.problems import Problem

_CHOSEN = frozenset({"METHOD", "PATH"})
"""Attributes that whoever sends a request chooses."""


def check_rate_limits(land: Landscape) -> Iterator[Issue]:
    """Each policy by itself, with the catalog and the RequestAuthentications beside it."""
    for resource in land.rate_limit_policies:
        spec: RateLimitPolicy = resource.spec
        if spec.host is not None:
            host = land.fqdn(spec.host, resource)
            if land.live and not host.startswith("*") and not land.services(host):
                message = f"the catalog has no service {host}: the policy has no effect until it does"
                yield Issue(resource, Problem(("spec", "host"), "MSH0201", message))
            continue
        for index, limit in enumerate(spec.limits):
            for problem in _check_limit(limit, index, resource, land):
                yield Issue(resource, problem)


def _check_limit(limit: RateLimit, index: int, resource: ConfigResource, land: Landscape) -> Iterator[Problem]:
    place = ("spec", "limits", index, "by")
    for position, descriptor in enumerate(limit.by):
        if descriptor.claim is not None and not _verifies_tokens(resource, land):
            message = "no RequestAuthentication is about these workloads, so all are counted together"
            yield Problem((*place, position, "claim"), "MSH0344", message)
    if limit.by and all(item.header is not None or item.attribute in _CHOSEN for item in limit.by):
        others = [other for other in resource.spec.limits if other is not limit and not other.dry_run]
        if not any(_binds(other) for other in others):
            message = f"whoever is limited by {limit.name} chooses what he is counted by, and no other limit binds him"
            yield Problem(place, "MSH0345", message)


def _binds(limit: RateLimit) -> bool:
    """Whether all requests are counted by something that nobody chooses for himself."""
    return not limit.match and not any(item.header is not None or item.attribute in _CHOSEN for item in limit.by)


def _verifies_tokens(resource: ConfigResource, land: Landscape) -> bool:
    """Whether some RequestAuthentication may be about a workload that the policy selects."""
    spec: RateLimitPolicy = resource.spec
    chosen = spec.selector.match_labels if spec.selector is not None else {}
    for authentication in land.request_authentications:
        asked: RequestAuthentication = authentication.spec
        labels = asked.selector.match_labels if asked.selector is not None else {}
        near = authentication.key.namespace in (resource.key.namespace, land.mesh.root_namespace)
        if near and all(chosen.get(key, value) == value for key, value in labels.items()):
            return True
    return False
