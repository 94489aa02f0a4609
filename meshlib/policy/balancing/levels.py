"""The hosts of a cluster by priority and locality (Envoy ``HostSet``, ``HostsPerLocality``)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from meshlib.model.endpoint import Health, Locality
from meshlib.policy.balancing.host import Host

NOWHERE = Locality()


class Source(Enum):
    """Which hosts of a priority are picked from."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    ALL = "all"  # in panic


class Hosts:
    """Some hosts, by what they are good for.  `weight`: of their locality, if it is all of one."""

    __slots__ = ("degraded", "healthy", "hosts", "locality", "weight")

    def __init__(self, hosts: Iterable[Host], locality: Locality = NOWHERE, weight: int = 0) -> None:
        self.hosts = tuple(hosts)
        health = [host.health for host in self.hosts]
        self.healthy = tuple(host for host, state in zip(self.hosts, health, strict=True) if state is Health.HEALTHY)
        self.degraded = tuple(host for host, state in zip(self.hosts, health, strict=True) if state is Health.DEGRADED)
        self.locality = locality
        self.weight = weight

    def of(self, source: Source) -> tuple[Host, ...]:
        if source is Source.HEALTHY:
            return self.healthy
        return self.degraded if source is Source.DEGRADED else self.hosts


class Level(Hosts):
    """One priority."""

    __slots__ = ()

    def localities(self, own: Locality) -> list[Hosts]:
        """The caller's own comes first, then the others in order: ring hash counts its replicas along this order."""
        found: dict[Locality, list[Host]] = {}
        for host in self.hosts:
            found.setdefault(host.endpoint.locality, []).append(host)
        order = sorted(found, key=lambda each: (each != own, each.region, each.zone, each.sub_zone))
        return [Hosts(found[locality], locality, found[locality][-1].endpoint.locality_weight) for locality in order]


def levels_of(hosts: Iterable[Host]) -> list[Level]:
    """From priority 0 to the last one; those in between may be empty."""
    found: dict[int, list[Host]] = {}
    for host in hosts:
        found.setdefault(host.endpoint.priority, []).append(host)
    return [Level(found.get(priority, ())) for priority in range(max(found, default=-1) + 1)]
