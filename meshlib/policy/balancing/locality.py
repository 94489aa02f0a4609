"""Locality-weighted balancing: first a locality by its weight and by how much of it is available, then a host in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from meshlib.policy.balancing.balancer import Balancer, PickContext
from meshlib.policy.balancing.edf import EarliestDeadlineFirst
from meshlib.policy.balancing.host import Host
from meshlib.policy.balancing.levels import Hosts, Source
from meshlib.policy.rng import Rng


class Share:
    """What goes to one locality."""

    __slots__ = ("balancer", "weight")

    def __init__(self, weight: float, balancer: Balancer) -> None:
        self.weight = weight
        self.balancer = balancer


class LocalityWeighted:
    """Envoy ``LocalityWeightedLbConfig``, for one priority."""

    __slots__ = ("_scheduler",)

    def __init__(self, shares: Sequence[Share], rng: Rng) -> None:
        self._scheduler = EarliestDeadlineFirst(shares, None, rng)

    def pick(self, rng: Rng, now: float = 0.0, context: PickContext | None = None) -> Host | None:
        return self._scheduler.pick(rng).balancer.pick(rng, now, context)


def effective_weight(weight: int, available: int, hosts: int, overprovisioning: int) -> float:
    """A locality keeps its weight as long as its available hosts, overprovisioned, can take it."""
    return weight * min(1.0, overprovisioning / 100.0 * available / hosts) if hosts else 0.0


def balance_localities(
    localities: Iterable[Hosts],
    source: Source,
    within: Callable[[Sequence[Host]], Balancer],
    rng: Rng,
    *,
    overprovisioning: int,
) -> Balancer | None:
    """None: no locality that has a weight can be used, so the hosts are to be taken without regard to it."""
    shares = []
    for locality in localities:
        hosts = locality.of(source)
        weight = effective_weight(locality.weight, len(hosts), len(locality.hosts), overprovisioning)
        if weight > 0:
            shares.append(Share(weight, within(hosts)))
    if not shares:
        return None
    return LocalityWeighted(shares, rng) if len(shares) > 1 else shares[0].balancer
