"""Which AuthorizationPolicies hold for a workload."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshlib_control.config.kinds import AuthorizationPolicy, RequestAuthentication
from meshlib_control.config.model import ConfigResource

Labels = Mapping[str, str]


class AuthorizationPolicies:
    """Those of the root namespace and of the workload's own, whose selector the workload has.  All of them hold."""

    def __init__(self, resources: Iterable[ConfigResource], root_namespace: str) -> None:
        self._root = root_namespace
        self._by_namespace: dict[str, list[ConfigResource]] = {}
        for resource in filter(is_for_workloads, resources):
            self._by_namespace.setdefault(resource.key.namespace, []).append(resource)
        self.selector_keys = frozenset(
            key for resources in self._by_namespace.values() for resource in resources for key in selector_of(resource)
        )
        """Labels of workloads that some policy asks for."""

    def of(self, namespace: str, labels: Labels) -> tuple[ConfigResource, ...]:
        """The policies of a workload: those of the root namespace first."""
        return tuple(
            resource
            for owner in dict.fromkeys((self._root, namespace))
            for resource in self._by_namespace.get(owner, ())
            if selector_of(resource).items() <= labels.items()
        )


def is_for_workloads(resource: ConfigResource) -> bool:
    """Whether a policy is not attached to a gateway or waypoint (``targetRefs``), which no workload of this mesh is."""
    spec: AuthorizationPolicy | RequestAuthentication = resource.spec
    return spec.target_ref is None and not spec.target_refs


def selector_of(resource: ConfigResource) -> dict[str, str]:
    """The labels that a policy selects by; none: all workloads."""
    spec: AuthorizationPolicy = resource.spec
    return spec.selector.match_labels if spec.selector is not None else {}
