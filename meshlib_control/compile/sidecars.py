"""Sidecar: which one holds for a workload, and what that lets it see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from meshlib_control.catalog.model import Service
from meshlib_control.compile.hosts import is_wildcard, matches
from meshlib_control.config.kinds import ConnectionPool, EgressListener, Sidecar
from meshlib_control.config.model import ConfigResource
from meshlib_control.config.validate.names import hosts_overlap

ANY = "*"
OWN = "."
NONE = "~"

Labels = Mapping[str, str]


class HostPatterns:
    """``namespace/host`` entries of one listener, by namespace; what ``~namespace/host`` takes away goes first."""

    __slots__ = ("_exact", "_taken", "_wildcards")

    def __init__(self, entries: Iterable[str], namespace: str) -> None:
        """`namespace`: that of the workload, which ``.`` stands for."""
        self._exact: dict[str, set[str]] = {}
        self._wildcards: dict[str, list[str]] = {}
        taken: list[str] = []
        for entry in entries:
            owner, _, host = entry.partition("/")
            host = host.lower().rstrip(".")
            if owner == NONE:
                continue
            if owner.startswith(NONE):
                taken.append(f"{owner[1:]}/{host}")
            elif is_wildcard(host):
                self._wildcards.setdefault(namespace if owner == OWN else owner, []).append(host)
            else:
                self._exact.setdefault(namespace if owner == OWN else owner, set()).add(host)
        self._taken = HostPatterns(taken, namespace) if taken else None

    def covers(self, owner: str, host: str) -> bool:
        """Whether the service `host` of the namespace `owner` is among them; it may be a wildcard itself."""
        if self._taken is not None and self._taken.covers(owner, host):
            return False
        return any(
            host in self._exact.get(name, ()) or any(matches(pattern, host) for pattern in self._wildcards.get(name, ()))
            for name in (owner, ANY)
        )

    def overlap(self, owner: str, host: str) -> bool:
        """Whether a VirtualService of the namespace `owner` may route some of them by its `host`."""
        if self._taken is not None and self._taken.covers(owner, host):
            return False
        return any(
            hosts_overlap(pattern, host)
            for name in (owner, ANY)
            for pattern in (*self._exact.get(name, ()), *self._wildcards.get(name, ()))
        )


class Egress:
    """What one Sidecar lets workloads of one namespace see.

    A listener with a port takes that port for its hosts alone; the one without has all other ports.
    """

    __slots__ = ("_by_port", "_rest", "reached")

    def __init__(self, listeners: Sequence[EgressListener], namespace: str) -> None:
        self._by_port: dict[int, HostPatterns] = {}
        self._rest: HostPatterns | None = None
        for listener in listeners:
            patterns = HostPatterns(listener.hosts, namespace)
            if listener.port is None:
                self._rest = patterns
            else:
                self._by_port[listener.port.number] = patterns
        self.reached: frozenset[str] | None = None  # see compile.view; None: not asked for yet

    def on(self, port: int) -> HostPatterns | None:
        """What may be called on `port`; None: nothing."""
        return self._by_port.get(port, self._rest)

    def sees(self, service: Service, port: int | None = None) -> bool:
        """Whether the service may be called, on `port` or on any that it has."""
        if port is not None:
            patterns = self.on(port)
            return patterns is not None and patterns.covers(service.namespace, service.host)
        numbers = [port.number for port in service.ports]
        # As long as a catalog was not asked, the ports are unknown.
        asked = [self.on(number) for number in numbers] if numbers else [*self._by_port.values(), self._rest]
        return any(patterns is not None and patterns.covers(service.namespace, service.host) for patterns in asked)

    def routes(self, owner: str, hosts: Iterable[str], port: int | None = None) -> bool:
        """Whether a VirtualService of the namespace `owner` is seen, on `port` or on any."""
        asked = [self.on(port)] if port is not None else [*self._by_port.values(), self._rest]
        return any(patterns.overlap(owner, host) for patterns in asked if patterns is not None for host in hosts)


@dataclass(frozen=True, slots=True)
class _Selected:
    labels: Labels
    spec: Sidecar


class Sidecars:
    """All of them.  For a workload holds the oldest that selects it, else its namespace's, else that of the root namespace."""

    def __init__(self, resources: Iterable[ConfigResource], root_namespace: str) -> None:
        self._root = root_namespace
        self._selecting: dict[str, list[_Selected]] = {}
        self._default: dict[str, Sidecar] = {}
        self._egress: dict[tuple[int, str], Egress] = {}  # by identity of the Sidecar, and namespace
        for resource in resources:
            spec, namespace = resource.spec, resource.key.namespace
            if not isinstance(spec, Sidecar):
                continue
            if spec.workload_selector is not None and spec.workload_selector.labels:
                self._selecting.setdefault(namespace, []).append(_Selected(spec.workload_selector.labels, spec))
            else:
                self._default.setdefault(namespace, spec)

    def selector_keys(self, namespace: str) -> frozenset[str]:
        """Labels of workloads of this namespace that some Sidecar asks for."""
        return frozenset(key for selected in self._selecting.get(namespace, ()) for key in selected.labels)

    def of(self, namespace: str, labels: Labels) -> Sidecar | None:
        """The one that holds; None: there is none."""
        for selected in self._selecting.get(namespace, ()):
            if selected.labels.items() <= labels.items():
                return selected.spec
        return self._default.get(namespace) or self._default.get(self._root)

    def egress(self, namespace: str, labels: Labels) -> Egress | None:
        """None: everything that is exported to the namespace."""
        spec = self.of(namespace, labels)
        if spec is None or not spec.egress:
            return None
        key = (id(spec), namespace)
        if key not in self._egress:
            self._egress[key] = Egress(spec.egress, namespace)
        return self._egress[key]

    def allows_outside(self, namespace: str, labels: Labels) -> bool | None:
        """Whether hosts that are not seen may be called; None: as the mesh says."""
        spec = self.of(namespace, labels)
        if spec is None or spec.outbound_traffic_policy is None:
            return None
        return spec.outbound_traffic_policy.mode == "ALLOW_ANY"

    def inbound_pool(self, namespace: str, labels: Labels, port: int) -> ConnectionPool | None:
        """How much comes in at once on a port: what is said of it takes the place of what is said of all."""
        spec = self.of(namespace, labels)
        if spec is None:
            return None
        for listener in spec.ingress:
            if listener.port.number == port and listener.connection_pool is not None:
                return listener.connection_pool
        return spec.inbound_connection_pool
