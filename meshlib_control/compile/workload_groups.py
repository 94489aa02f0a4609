"""WorkloadGroup: what a process that joins one has from it.

What the template says holds, whatever the process says of itself: it is the operator's word about all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from meshlib_control.config.kinds import ReadinessProbe, WorkloadGroup
from meshlib_control.config.model import ConfigResource


@dataclass(frozen=True, slots=True)
class Template:
    """Of one group.  Empty: the template does not say, and the process may."""

    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)  # name of a service's port -> the instance's
    locality: str = ""
    weight: int = 0
    service_account: str = ""
    probe: ReadinessProbe | None = None


NO_TEMPLATE = Template()
"""Of a process that joins no group."""


class WorkloadGroups:
    """All of them, by namespace and name."""

    def __init__(self, resources: Iterable[ConfigResource]) -> None:
        self._templates = {
            (resource.key.namespace, resource.key.name): _template(resource.spec)
            for resource in resources
            if isinstance(resource.spec, WorkloadGroup)
        }

    def find(self, namespace: str, name: str) -> Template | None:
        """None: there is no such group in the namespace."""
        return self._templates.get((namespace, name))

    def labels(self, namespace: str, name: str, own: Mapping[str, str]) -> Mapping[str, str]:
        """Of a workload that says it has joined the group `name` (empty: none) and has labels of its own."""
        template = self._templates.get((namespace, name)) if name else None
        return own if template is None else {**own, **template.labels}

    def locality(self, namespace: str, name: str, own: str) -> str:
        """Of the same workload, as endpoints are ordered for it."""
        template = self._templates.get((namespace, name)) if name else None
        return own if template is None else template.locality or own


def _template(group: WorkloadGroup) -> Template:
    template = group.template
    return Template(
        labels={**(group.metadata.labels if group.metadata else {}), **template.labels},
        ports=template.ports,
        locality=template.locality or "",
        weight=template.weight or 0,
        service_account=template.service_account or "",
        probe=group.probe,
    )
