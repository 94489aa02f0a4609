"""Which endpoint: ROUND_ROBIN, LEAST_REQUEST and RANDOM as in Envoy, over the endpoints that may be used.

The unweighted picks cost the same for ten endpoints and for ten thousand.  With differing weights ROUND_ROBIN and
LEAST_REQUEST go by earliest deadline first (Envoy's EDF scheduler), which is logarithmic; RANDOM ignores weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import Protocol

from meshlib.model.cluster import Cluster, LbPolicy
from meshlib.model.endpoint import Health
from meshlib.policy.balancing.host import Host
from meshlib.policy.rng import Rng

__all__ = ["Balancer", "EarliestDeadlineFirst", "Host", "LeastRequest", "Random", "RoundRobin", "build_balancer", "usable"]


class Balancer(Protocol):
    """Picks one of its hosts."""

    def pick(self, rng: Rng) -> Host:
        """Never waits, never fails: a balancer is only made for at least one host."""
        ...


class RoundRobin:
    """In turn, starting at a random place so that many clients do not march in step."""

    __slots__ = ("_hosts", "_next")

    def __init__(self, hosts: Sequence[Host], rng: Rng) -> None:
        self._hosts = tuple(hosts)
        self._next = rng.randrange(len(self._hosts))

    def pick(self, rng: Rng) -> Host:
        index = self._next
        self._next = index + 1 if index + 1 < len(self._hosts) else 0
        return self._hosts[index]


class Random:
    """Uniform."""

    __slots__ = ("_count", "_hosts")

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = tuple(hosts)
        self._count = len(self._hosts)

    def pick(self, rng: Rng) -> Host:
        return self._hosts[int(rng.random() * self._count)]


class LeastRequest:
    """Power of `choices` draws, with replacement; the first draw wins ties (Envoy N_CHOICES)."""

    __slots__ = ("_choices", "_count", "_hosts")

    def __init__(self, hosts: Sequence[Host], choices: int = 2) -> None:
        self._hosts = tuple(hosts)
        self._count = len(self._hosts)
        self._choices = max(choices, 2)

    def pick(self, rng: Rng) -> Host:
        hosts, count = self._hosts, self._count
        if count == 1:
            return hosts[0]
        best = hosts[int(rng.random() * count)]
        for _ in range(self._choices - 1):
            other = hosts[int(rng.random() * count)]
            if other.active < best.active:
                best = other
        return best


class EarliestDeadlineFirst:
    """Envoy's scheduler for weighted hosts: each pick puts its host 1/weight further into the future.

    `by_load`: the weight is ``weight / (active + 1)``, read when the host is put back (LEAST_REQUEST with bias 1).
    """

    __slots__ = ("_by_load", "_heap", "_sequence")

    def __init__(self, hosts: Sequence[Host], *, by_load: bool, rng: Rng) -> None:
        self._by_load = by_load
        self._sequence = len(hosts)
        self._heap = [(1.0 / host.weight, order, host) for order, host in enumerate(hosts)]
        heapify(self._heap)
        for _ in range(rng.randrange(len(hosts))):  # many clients must not march in step
            self.pick(rng)

    def pick(self, rng: Rng) -> Host:
        deadline, _, host = heappop(self._heap)
        weight = host.weight / (host.active + 1) if self._by_load else host.weight
        self._sequence += 1
        heappush(self._heap, (deadline + 1.0 / weight, self._sequence, host))
        return host


def usable(hosts: Iterable[Host]) -> list[Host]:
    """The hosts of the first priority that has any: healthy ones, else degraded ones."""
    by_priority: dict[int, tuple[list[Host], list[Host]]] = {}
    for host in hosts:
        healthy, degraded = by_priority.setdefault(host.endpoint.priority, ([], []))
        if host.health is Health.HEALTHY:
            healthy.append(host)
        elif host.health is Health.DEGRADED:
            degraded.append(host)
    for tier in (0, 1):
        for priority in sorted(by_priority):
            if by_priority[priority][tier]:
                return by_priority[priority][tier]
    return []


def build_balancer(cluster: Cluster, hosts: Iterable[Host], rng: Rng) -> Balancer | None:
    """The balancer that the cluster asks for, over what is usable; None when nothing is."""
    chosen = usable(hosts)
    if not chosen:
        return None
    if cluster.lb_policy is LbPolicy.RANDOM:
        return Random(chosen)
    weighted = len({host.weight for host in chosen}) > 1
    if cluster.lb_policy is LbPolicy.ROUND_ROBIN:
        return EarliestDeadlineFirst(chosen, by_load=False, rng=rng) if weighted else RoundRobin(chosen, rng)
    if weighted:
        return EarliestDeadlineFirst(chosen, by_load=True, rng=rng)
    return LeastRequest(chosen, cluster.balancing.choice_count)
