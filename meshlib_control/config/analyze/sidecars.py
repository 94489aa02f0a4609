"""Sidecars: which of them can never hold, and which of their entries let nothing be seen."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib_control.config.analyze.landscape import Issue, Landscape
from meshlib_control.config.hosts import is_visible
from meshlib_control.config.kinds import Sidecar
from meshlib_control.config.model import ConfigResource
from meshlib_control.config.problems import Problem
from meshlib_control.config.validate.names import host_is_within


def check_sidecars(land: Landscape) -> Iterator[Issue]:
    """One at a time holds for a workload, as a whole."""
    yield from _check_alike(land)
    for resource in land.sidecars:
        for problem in _check_hosts(resource, land):
            yield Issue(resource, problem)


def _check_alike(land: Landscape) -> Iterator[Issue]:
    first: dict[tuple[str, frozenset[tuple[str, str]]], ConfigResource] = {}
    for resource in land.sidecars:
        spec: Sidecar = resource.spec
        labels = spec.workload_selector.labels if spec.workload_selector else {}
        older = first.setdefault((resource.key.namespace, frozenset(labels.items())), resource)
        if older is not resource:
            message = f"{older.key} is for the same workloads and older: it holds, as a whole, and this one never does"
            yield Issue(resource, Problem(("spec",), "MSH0371", message))


def _check_hosts(resource: ConfigResource, land: Landscape) -> Iterator[Problem]:
    spec: Sidecar = resource.spec
    for index, listener in enumerate(spec.egress):
        for position, entry in enumerate(listener.hosts):
            owner, _, host = entry.partition("/")
            path = ("spec", "egress", index, "hosts", position)
            if "." not in host and host != "*":
                message = f"{host} is compared as it is, and services have full names: {host}.{_named(owner)}.svc.{land.domain}"
                yield Problem(path, "MSH0372", message)
            elif land.live and not owner.startswith("~") and not _is_somebody(owner, host, resource, land):
                yield Problem(path, "MSH0372", f"no service that {resource.key.namespace} may see is covered by {entry}")


def _named(owner: str) -> str:
    return owner.lstrip("~") if owner.lstrip("~") not in ("", "*", ".") else "NAMESPACE"


def _is_somebody(owner: str, host: str, resource: ConfigResource, land: Landscape) -> bool:
    """`.` in the root namespace stands for the namespace of each workload, so for any."""
    namespace = resource.key.namespace
    of_root = namespace == land.mesh.root_namespace
    owner = ("*" if of_root else namespace) if owner == "." else owner
    return any(
        owner in ("*", service.namespace)
        and host_is_within(service.host, host.lower())
        and (of_root or is_visible(service.export_to, service.namespace, namespace))
        for service in land.known
    )
