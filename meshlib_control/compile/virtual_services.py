"""VirtualService: which one holds for a host, as seen from a namespace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from msgspec.structs import replace

from meshlib_control.compile.hosts import is_address, is_wildcard, matches
from meshlib_control.compile.mesh_settings import MeshSettings, is_exported
from meshlib_control.config.delegation import delegates_of, expanded
from meshlib_control.config.kinds import VirtualService
from meshlib_control.config.model import ConfigResource, Key

MESH = "mesh"
"""The gateway that stands for all workloads of the mesh."""


@dataclass(frozen=True, slots=True)
class Routing:
    """A VirtualService for workloads, with its hosts resolved and the rules of its delegates in their places."""

    key: Key
    hosts: tuple[str, ...]
    spec: VirtualService
    export_to: tuple[str, ...]
    order: int  # by age


class VirtualServices:
    """All that hold for workloads, indexed by host."""

    def __init__(self, resources: Iterable[ConfigResource], resolve: Callable[[str, str], str], settings: MeshSettings) -> None:
        self._exact: dict[str, list[Routing]] = {}
        self._wildcard: dict[str, list[Routing]] = {}
        self.has_cors = False  # some rule says how browsers are answered
        keys: set[str] = set()
        resources = tuple(resources)
        delegates = delegates_of(resources)
        for order, resource in enumerate(resources):
            spec = resource.spec
            if not isinstance(spec, VirtualService) or not spec.http or not (MESH in spec.gateways or not spec.gateways):
                continue
            if any(route.delegate is not None for route in spec.http):
                is_seen = _seen_from(resource, settings)
                spec = replace(spec, http=expanded(resource, delegates, is_seen=is_seen, resolve=resolve))
            routing = Routing(
                key=resource.key,
                hosts=tuple(dict.fromkeys(resolve(host, resource.key.namespace) for host in spec.hosts)),
                spec=spec,
                export_to=spec.export_to or settings.virtual_service_export_to,
                order=order,
            )
            for host in routing.hosts:
                index = self._wildcard if is_wildcard(host) else self._exact
                index.setdefault(host, []).append(routing)
            keys |= {key for route in spec.http for match in route.match for key in match.source_labels}
            self.has_cors |= any(route.cors_policy is not None for route in spec.http)
        self.source_label_keys = frozenset(keys)
        """Labels of callers that some rule asks for."""

    def holding_for(self, host: str, namespace: str) -> Iterator[Routing]:
        """Those for `host`, best first: exact hosts before wildcards, narrow before wide; then `_precedence`.

        Usually the first is the one; a later one only counts when no rule of those before is for the caller.
        """
        yield from _precedence(self._exact.get(host, ()), namespace)
        patterns = [pattern for pattern in self._wildcard if matches(pattern, host)]
        for pattern in sorted(patterns, key=lambda pattern: (-len(pattern), pattern)):
            yield from _precedence(self._wildcard[pattern], namespace)

    def visible(self, namespace: str) -> Iterator[Routing]:
        """All that are exported to `namespace`; one with several hosts as often."""
        for routings in (*self._exact.values(), *self._wildcard.values()):
            yield from _precedence(routings, namespace)

    def exact_hosts(self, namespace: str) -> tuple[str, ...]:
        """Host names, no wildcards and addresses, that some visible resource routes."""
        return tuple(
            sorted(
                host
                for host, routings in self._exact.items()
                if not is_address(host) and any(True for _ in _precedence(routings, namespace))
            )
        )


def _seen_from(root: ConfigResource, settings: MeshSettings) -> Callable[[ConfigResource], bool]:
    def is_seen(delegate: ConfigResource) -> bool:
        export_to = delegate.spec.export_to or settings.virtual_service_export_to
        return is_exported(export_to, delegate.key.namespace, root.key.namespace)

    return is_seen


def _precedence(routings: Iterable[Routing], namespace: str) -> Iterator[Routing]:
    """Visible ones: private to the namespace, then exported to it by name, then public; the oldest first in each.

    Istio's order (SelectVirtualServices).
    """
    ranked = []
    for routing in routings:
        owner = routing.key.namespace
        if not is_exported(routing.export_to, owner, namespace):
            continue
        private = owner == namespace and "." in routing.export_to
        rank = 0 if private else 1 if "*" not in routing.export_to else 2
        ranked.append((rank, routing.order, routing))
    for _, _, routing in sorted(ranked, key=lambda item: item[:2]):
        yield routing
