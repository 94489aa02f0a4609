"""ServiceEntries whose instances are those registered processes of their namespace that have certain labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from meshlib_control.catalog.model import Instance, Service
from meshlib_control.compile.service_entries import ServiceKey

Labels = Mapping[str, str]
Instances = Mapping[str, tuple[Instance, ...]]
"""By host."""


class Selection:
    """Which of them choose what."""

    def __init__(self, selectors: Mapping[ServiceKey, tuple[Labels, ...]], catalog: Mapping[str, Service]) -> None:
        self._selectors = selectors
        self._hosts: dict[str, list[str]] = {}  # by namespace: hosts of the catalog, where somebody selects
        self._owner: dict[str, str] = {}
        namespaces = {namespace for namespace, _ in selectors}
        for host, service in catalog.items():
            if service.namespace in namespaces:
                self._hosts.setdefault(service.namespace, []).append(host)
                self._owner[host] = service.namespace

    def chosen(self, key: ServiceKey, instances: Instances) -> tuple[Instance, ...]:
        """The instances that the ServiceEntry `key` has from the catalog."""
        selectors = self._selectors.get(key, ())
        if not selectors:
            return ()
        hosts = self._hosts.get(key[0], ())
        return tuple(one for host in hosts for one in instances.get(host, ()) if _is_chosen(one, selectors))

    def changed(self, host: str, before: Instances, after: Instances) -> Iterator[ServiceKey]:
        """The ServiceEntries that have something else of a host of the catalog after than before."""
        owner = self._owner.get(host)
        if owner is None:
            return
        states = [state.get(host, ()) for state in (before, after)]
        for key, selectors in self._selectors.items():
            old, new = ([one for one in state if _is_chosen(one, selectors)] for state in states)
            if key[0] == owner and old != new:
                yield key


def _is_chosen(instance: Instance, selectors: tuple[Labels, ...]) -> bool:
    return any(selector.items() <= instance.labels.items() for selector in selectors)
