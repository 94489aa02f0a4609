"""Consistent hashing over the priorities of a cluster: one table for each priority, the hash chooses both."""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.model.cluster import Cluster, LbPolicy
from meshlib.model.endpoint import Locality
from meshlib.policy.balancing.balancer import PickContext
from meshlib.policy.balancing.bounded_load import BoundedLoad
from meshlib.policy.balancing.host import Host
from meshlib.policy.balancing.levels import Level, Source
from meshlib.policy.balancing.loads import PriorityLoads
from meshlib.policy.balancing.maglev import Maglev
from meshlib.policy.balancing.placing import Table, placed
from meshlib.policy.balancing.ring_hash import Ring
from meshlib.policy.rng import Rng


class ConsistentHashing:
    """RING_HASH and MAGLEV.  Tables are built when they are first needed, unless `ahead` has built them before."""

    __slots__ = ("_cluster", "_first_takes_all", "_levels", "_loads", "_own", "_tables", "hosts")

    def __init__(self, cluster: Cluster, levels: Sequence[Level], loads: PriorityLoads, own: Locality) -> None:
        """`own`: where this process is."""
        self._cluster = cluster
        self._levels = levels
        self._loads = loads
        self._first_takes_all = loads.healthy[:1] == (100,)
        self._own = own
        self._tables: dict[int, Table | None] = {}
        self.hosts = tuple(host for level in levels for host in level.hosts)

    def pick(self, rng: Rng, now: float = 0.0, context: PickContext | None = None) -> Host | None:
        """Without a hash in the context any host may be meant."""
        hash_ = context.hash if context is not None else None
        if hash_ is None:
            hash_ = rng.randrange(2**64)
        priority = 0
        if not self._first_takes_all:
            chosen = self._loads.choose(hash_ % 100 + 1)
            if chosen is None:
                return None
            priority = chosen[0]
        table = self._table(priority)
        return table.pick(hash_, context.attempt if context is not None else 0) if table is not None else None

    def fill(self) -> None:
        """Build all tables that calls may be led to."""
        for priority, shares in enumerate(zip(self._loads.healthy, self._loads.degraded, strict=True)):
            if any(shares):
                self._table(priority)

    def _table(self, priority: int) -> Table | None:
        if priority not in self._tables:
            self._tables[priority] = self._build(priority)
        return self._tables[priority]

    def _build(self, priority: int) -> Table | None:
        level, settings = self._levels[priority], self._cluster.balancing
        source = Source.ALL if self._loads.panic[priority] else Source.HEALTHY
        if not level.of(source):
            source = Source.DEGRADED  # Envoy's tables have no degraded hosts, and an empty one fails; this one does not
        if not level.of(source):
            return None
        hosts = placed(
            level, source, self._own, by_locality=settings.locality_weighted, by_hostname=settings.hash_by_hostname
        ) or placed(level, source, self._own, by_locality=False, by_hostname=settings.hash_by_hostname)
        table: Table
        if self._cluster.lb_policy is LbPolicy.MAGLEV:
            table = Maglev(hosts, settings.table_size)
        else:
            table = Ring(hosts, settings.minimum_ring_size, settings.maximum_ring_size)
        return BoundedLoad(table, hosts, settings.hash_balance_factor, self.hosts) if settings.hash_balance_factor else table
