"""First a priority, healthy or degraded, then one of its hosts (Envoy ``LoadBalancerBase``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from meshlib.policy.balancing.balancer import Balancer, PickContext
from meshlib.policy.balancing.host import Host
from meshlib.policy.balancing.levels import Level, Source
from meshlib.policy.balancing.loads import Availability, PriorityLoads, loads_without
from meshlib.policy.rng import Rng

BuildSource = Callable[[int, Source, Rng, float], "Balancer | None"]
"""(Priority, source) -> the balancer for those hosts; None: there are none."""


class Priorities:
    """The priorities of a cluster whose policy does not hash.  Balancers are built when they are first needed."""

    __slots__ = ("_build", "_built", "_counts", "_overprovisioning", "_without", "loads")

    def __init__(self, levels: Sequence[Level], loads: PriorityLoads, build: BuildSource, *, overprovisioning: int) -> None:
        self.loads = loads
        self._counts = availability(levels)
        self._overprovisioning = overprovisioning
        self._build = build
        self._built: dict[tuple[int, Source], Balancer | None] = {}
        self._without: dict[frozenset[int], PriorityLoads | None] = {}

    def only(self, rng: Rng, now: float) -> Balancer | None:
        """The balancer that all calls go to, if there is one; None: they are spread, or there is nobody."""
        for loads, degraded in ((self.loads.healthy, False), (self.loads.degraded, True)):
            for priority, load in enumerate(loads):
                if load == 100:
                    return self._at(priority, degraded=degraded, rng=rng, now=now)
        return None

    def pick(self, rng: Rng, now: float = 0.0, context: PickContext | None = None) -> Host | None:
        loads = self.loads
        if context is not None and context.left_out:
            loads = self._loads_without(context.left_out) or loads
        chosen = loads.choose(int(rng.random() * 100) + 1)
        if chosen is None:
            return None
        balancer = self._at(chosen[0], degraded=chosen[1], rng=rng, now=now)
        return balancer.pick(rng, now, context) if balancer is not None else None

    def left_out(self, tried: Sequence[Host], frequency: int) -> frozenset[int]:
        """The priorities that a retry keeps away from after the tries on these hosts, in this order (``previous_priorities``).

        With every `frequency` tries those of all hosts tried are left out; once nothing else could take the call, it starts
        over with none.
        """
        attempted: list[int] = []
        found: frozenset[int] = frozenset()
        for host in tried:
            attempted.append(host.endpoint.priority)
            if len(attempted) % frequency == 0:
                found |= set(attempted)
                if self._loads_without(found) is None:
                    attempted, found = [], frozenset()
        return found

    def _at(self, priority: int, *, degraded: bool, rng: Rng, now: float) -> Balancer | None:
        source = Source.DEGRADED if degraded else Source.HEALTHY
        if self.loads.panic[priority]:
            source = Source.ALL
        key = priority, source
        if key not in self._built:
            self._built[key] = self._build(priority, source, rng, now)
        return self._built[key]

    def _loads_without(self, left_out: frozenset[int]) -> PriorityLoads | None:
        if left_out not in self._without:
            self._without[left_out] = loads_without(self._counts, left_out, self.loads, self._overprovisioning)
        return self._without[left_out]


def availability(levels: Sequence[Level]) -> list[Availability]:
    return [Availability(len(level.healthy), len(level.degraded), len(level.hosts)) for level in levels]
