"""Which mode of mTLS holds for a workload: Istio's precedence among PeerAuthentications."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from meshlib_control.config.kinds import MutualTLS, PeerAuthentication
from meshlib_control.config.model import ConfigResource

Mode = Literal["DISABLE", "PERMISSIVE", "STRICT"]

DEFAULT_MODE: Mode = "PERMISSIVE"

MTLS_LABEL: Final = "security.istio.io/tlsMode"
MTLS_MODE: Final = "istio"
"""Istio's label of a workload that speaks mTLS, and its value."""

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Level:
    """The PeerAuthentications that decide for one workload; None: there is none at that level."""

    mesh: ConfigResource | None = None
    namespace: ConfigResource | None = None
    workload: ConfigResource | None = None


class PeerAuthentications:
    """Port before workload before namespace before mesh; at each level the oldest, and UNSET is as the level above has it."""

    def __init__(self, resources: Iterable[ConfigResource], root_namespace: str) -> None:
        """`resources` in order of age, as a ConfigSet has them."""
        self._root = root_namespace
        self._whole: dict[str, ConfigResource] = {}  # without selector, by namespace
        self._selecting: dict[str, list[ConfigResource]] = {}
        for resource in resources:
            namespace = resource.key.namespace
            if not selector_of(resource):
                self._whole.setdefault(namespace, resource)
            elif namespace != root_namespace:  # in the root namespace a selector chooses nobody
                self._selecting.setdefault(namespace, []).append(resource)
        self.selector_keys = frozenset(
            key for resources in self._selecting.values() for resource in resources for key in selector_of(resource)
        )
        """Labels of workloads that some PeerAuthentication asks for."""

    def level(self, namespace: str, labels: Labels) -> Level:
        """What decides for a workload."""
        return Level(
            mesh=self._whole.get(self._root),
            namespace=self._whole.get(namespace) if namespace != self._root else None,
            workload=next((r for r in self._selecting.get(namespace, ()) if selector_of(r).items() <= labels.items()), None),
        )

    def mode(self, namespace: str, labels: Labels, port: int) -> Mode:
        """For connections to one port that the workload listens on."""
        level = self.level(namespace, labels)
        mode: Mode = DEFAULT_MODE
        for resource in (level.mesh, level.namespace, level.workload):
            if resource is not None:
                spec: PeerAuthentication = resource.spec
                mode = _set(spec.mtls, mode)
        if level.workload is not None:
            chosen: PeerAuthentication = level.workload.spec
            mode = _set((chosen.port_level_mtls or {}).get(str(port)), mode)
        return mode


def selector_of(resource: ConfigResource) -> dict[str, str]:
    """The labels that a PeerAuthentication selects by; none: all workloads."""
    spec: PeerAuthentication = resource.spec
    return spec.selector.match_labels if spec.selector is not None else {}


def _set(mtls: MutualTLS | None, inherited: Mode) -> Mode:
    return inherited if mtls is None or mtls.mode == "UNSET" else mtls.mode
