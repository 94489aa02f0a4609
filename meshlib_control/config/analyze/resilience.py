"""ResiliencePolicies beside each other and beside the hosts that they name."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib_control.config.analyze.landscape import Issue, Landscape
from meshlib_control.config.kinds import ResiliencePolicy
from meshlib_control.config.model import ConfigResource
from meshlib_control.config.problems import Problem


def check_resilience(land: Landscape) -> Iterator[Issue]:
    """Policies that are never used: for hosts that there are not, in namespaces that do not count, after older ones."""
    first: dict[tuple[object, ...], ConfigResource] = {}
    for resource in land.resilience_policies:
        spec: ResiliencePolicy = resource.spec
        if spec.host is not None:
            host = land.fqdn(spec.host, resource)
            for problem in _check_host(host, resource, land):
                yield Issue(resource, problem)
            chosen: tuple[object, ...] = (resource.key.namespace, host, frozenset(spec.export_to))
            field, what = "host", host
        else:
            labels = spec.selector.match_labels if spec.selector is not None else {}
            chosen = (resource.key.namespace, frozenset(labels.items()))
            field, what = "selector", "these workloads"
        older = first.setdefault(chosen, resource)
        if older is not resource:
            message = f"{older.key} is for {what} too and goes before this one, which is not used at all"
            yield Issue(resource, Problem(("spec", field), "MSH0342", message))


def _check_host(host: str, resource: ConfigResource, land: Landscape) -> Iterator[Problem]:
    if not land.services(host):
        if land.live:
            message = f"the catalog has no service {host}: the policy has no effect until it does"
            yield Problem(("spec", "host"), "MSH0201", message)
        return
    namespace, owner = resource.key.namespace, land.owner(host)
    exported = [each for each in resource.spec.export_to if each not in (".", namespace)]
    if namespace not in (owner, land.mesh.root_namespace) and exported:
        message = (
            f"callers outside of {namespace} do not use it, whatever exportTo says: {host} is of the namespace {owner}; "
            f"put it there, or leave exportTo out"
        )
        yield Problem(("spec", "exportTo"), "MSH0343", message)
