"""ResiliencePolicy: which one holds for a call, and for the requests that a workload serves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from meshlib_control.catalog.model import Service
from meshlib_control.compile.mesh_settings import MeshSettings, is_exported
from meshlib_control.config.kinds import ResiliencePolicy
from meshlib_control.config.model import ConfigResource

Labels = Mapping[str, str]


class ResiliencePolicies:
    """All of a configuration.  Of several for the same host or workload in one namespace the oldest holds, as a whole."""

    def __init__(self, resources: Iterable[ConfigResource], resolve: Callable[[str, str], str], settings: MeshSettings) -> None:
        """`resources` in order of age, as a ConfigSet has them."""
        self._root = settings.root_namespace
        self._of_calls: dict[tuple[str, str], list[tuple[tuple[str, ...], ResiliencePolicy]]] = {}  # by namespace and host
        self._of_workloads: dict[str, list[tuple[Labels, ResiliencePolicy]]] = {}  # by namespace
        for resource in resources:
            spec, namespace = resource.spec, resource.key.namespace
            if not isinstance(spec, ResiliencePolicy):
                continue
            if spec.host is not None:
                seen_by = spec.export_to or settings.destination_rule_export_to
                self._of_calls.setdefault((namespace, resolve(spec.host, namespace)), []).append((seen_by, spec))
            elif spec.selector is not None:
                self._of_workloads.setdefault(namespace, []).append((spec.selector.match_labels, spec))
        self.selector_keys = frozenset(key for chosen in self._of_workloads.values() for labels, _ in chosen for key in labels)
        """Labels of workloads that some policy asks for."""
        self._noticing = frozenset(
            (owner, seen_by)
            for (owner, _), chosen in self._of_calls.items()
            for seen_by, spec in chosen
            if notices_failures(spec)
        )

    def holding_for(self, service: Service, namespace: str) -> ResiliencePolicy | None:
        """The policy for calls from `namespace`: of the caller's namespace, then of the service's, then of the root's."""
        if not self._of_calls:
            return None
        for owner in dict.fromkeys((namespace, service.namespace, self._root)):
            for seen_by, spec in self._of_calls.get((owner, service.host), ()):
                if owner == namespace or is_exported(seen_by, owner, namespace):
                    return spec
        return None

    def notice_failures(self, namespace: str) -> bool:
        """Whether some policy for calls from `namespace` has callers notice which endpoints fail."""
        return any(owner == namespace or is_exported(seen_by, owner, namespace) for owner, seen_by in self._noticing)

    def for_workload(self, namespace: str, labels: Labels) -> ResiliencePolicy | None:
        """The policy for what a workload serves: of its own namespace, then of the root's."""
        for owner in dict.fromkeys((namespace, self._root)):
            for selector, spec in self._of_workloads.get(owner, ()):
                if selector.items() <= labels.items():
                    return spec
        return None


def notices_failures(policy: ResiliencePolicy | None) -> bool:
    """Whether failing endpoints are left out by it, so that those of lower priorities come into use."""
    return policy is not None and bool(policy.failure_rate_ejection or policy.success_rate_ejection or policy.health_checks)
