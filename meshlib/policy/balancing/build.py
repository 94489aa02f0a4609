"""From a cluster's settings and hosts to its balancer: built anew with each change of configuration or health."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from meshlib.model.cluster import Cluster, LbPolicy
from meshlib.policy.balancing.balancer import Balancer
from meshlib.policy.balancing.hashed import ConsistentHashing
from meshlib.policy.balancing.host import Host
from meshlib.policy.balancing.levels import Level, Source, levels_of
from meshlib.policy.balancing.loads import PriorityLoads, priority_loads
from meshlib.policy.balancing.locality import balance_localities
from meshlib.policy.balancing.priorities import Priorities, availability
from meshlib.policy.balancing.within import balance_within
from meshlib.policy.balancing.zone_aware import Place, balance_zones
from meshlib.policy.rng import Rng

HASHING = frozenset({LbPolicy.RING_HASH, LbPolicy.MAGLEV})

UNPLACED = Place()
"""Nothing is known of where this process is."""


class Balanced(NamedTuple):
    """`balancer`: None when no host can be used.  `hosts`: those that it may pick.

    `priorities`: set where a retry can be kept away from priorities that have failed it.
    """

    balancer: Balancer | None
    hosts: tuple[Host, ...]
    priorities: Priorities | None = None


class _Build:
    """One cluster's hosts, about to be balanced."""

    def __init__(self, cluster: Cluster, levels: Sequence[Level], overprovisioning: int, place: Place) -> None:
        self.cluster = cluster
        self.levels = levels
        self.overprovisioning = overprovisioning
        self.place = place

    def source(self, priority: int, source: Source, rng: Rng, now: float) -> Balancer | None:
        """The balancer for the hosts of one priority; None: nobody is to be picked there."""
        cluster, level, settings = self.cluster, self.levels[priority], self.cluster.balancing
        hosts = level.of(source)
        if not hosts:
            return None

        def within(some: Sequence[Host]) -> Balancer:
            return balance_within(cluster, some, rng, now)

        found: Balancer | None = None
        if source is Source.ALL:
            if settings.zone_aware is not None and settings.zone_aware.fail_traffic_on_panic:
                return None
        elif settings.locality_weighted:
            localities = level.localities(self.place.locality)
            found = balance_localities(localities, source, within, rng, overprovisioning=self.overprovisioning)
        elif settings.zone_aware is not None and priority == 0 and source is Source.HEALTHY:
            found = balance_zones(level.localities(self.place.locality), self.place, settings.zone_aware, within, hosts)
        return found or within(hosts)


def balance(
    cluster: Cluster, hosts: Iterable[Host], rng: Rng, now: float = 0.0, *, overprovisioning: int = 140, place: Place = UNPLACED
) -> Balanced:
    """Envoy's choice of endpoints for the cluster as its hosts are now."""
    levels = levels_of(hosts)
    if not levels:
        return Balanced(None, ())
    loads = loads_of(cluster, levels, overprovisioning)
    eligible = _eligible(levels, loads)
    if not eligible:
        return Balanced(None, ())
    if cluster.lb_policy in HASHING:
        return Balanced(ConsistentHashing(cluster, levels, loads, place.locality), eligible)
    build = _Build(cluster, levels, overprovisioning, place)
    priorities = Priorities(levels, loads, build.source, overprovisioning=overprovisioning)
    balancer = priorities.only(rng, now) or priorities
    return Balanced(balancer, eligible, priorities if len(levels) > 1 else None)


def loads_of(cluster: Cluster, levels: Sequence[Level], overprovisioning: int) -> PriorityLoads:
    """What each priority gets as its hosts are now."""
    return priority_loads(
        availability(levels), overprovisioning=overprovisioning, panic_threshold=cluster.balancing.panic_threshold
    )


def _eligible(levels: Sequence[Level], loads: PriorityLoads) -> tuple[Host, ...]:
    found: list[Host] = []
    for level, healthy, degraded, panic in zip(levels, *loads, strict=True):
        if panic and (healthy or degraded):
            found += level.hosts
        else:
            found += level.healthy if healthy else ()
            found += level.degraded if degraded else ()
    return tuple(found)
