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

    def choosing(self, host: str, *before_and_after: Instances) -> Iterator[ServiceKey]:
        """The ServiceEntries that choose some instance of a host of the catalog, in any of several states of it."""
        owner = self._owner.get(host)
        if owner is None:
            return
        instances = [one for state in before_and_after for one in state.get(host, ())]
        for key, selectors in self._selectors.items():
            if key[0] == owner and any(_is_chosen(one, selectors) for one in instances):
                yield key


def _is_chosen(instance: Instance, selectors: tuple[Labels, ...]) -> bool:
    return any(selector.items() <= instance.labels.items() for selector in selectors)
