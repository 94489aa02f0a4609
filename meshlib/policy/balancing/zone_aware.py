"""Zone-aware routing: calls stay in the caller's zone as far as that overloads nobody (Envoy ``ZoneAwareLbConfig``).

The callers of a cluster are this process and its like.  If each zone has as large a share of the cluster as it has of its
callers, all calls stay where they are; what a zone cannot take goes to those that have more than their share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from meshlib.model.cluster import ZoneAware
from meshlib.model.endpoint import Locality
from meshlib.policy.balancing.balancer import Balancer, PickContext
from meshlib.policy.balancing.host import Host
from meshlib.policy.balancing.levels import Hosts
from meshlib.policy.rng import Rng

_SCALE = 10_000
"""Shares are counted in hundredths of a percent."""


class Place(NamedTuple):
    """Where this process is, and how many healthy instances its own service has in each locality (itself included)."""

    locality: Locality = Locality()
    peers: Mapping[Locality, int] = {}


class ZoneShares(NamedTuple):
    """`local`: of 10,000 calls, how many stay; `others`: cumulative bounds of what the other localities take of the rest."""

    local: int
    others: tuple[int, ...]


def zone_shares(peers: Sequence[int], hosts: Sequence[int]) -> ZoneShares:
    """Both by locality, the own one first: healthy instances of the callers' service, and of the cluster."""
    callers, offered = _shares(peers), _shares(hosts)
    if offered[0] > 0 and offered[0] >= callers[0]:
        return ZoneShares(_SCALE, ())
    local = offered[0] * _SCALE // callers[0] if callers[0] else 0
    bounds, total = [], 0
    for theirs, ours in zip(offered[1:], callers[1:], strict=True):
        total += max(0, theirs - ours)
        bounds.append(total)
    return ZoneShares(local, tuple(bounds))


def _shares(counts: Sequence[int]) -> list[int]:
    total = sum(counts)
    return [_SCALE * count // total if total else 0 for count in counts]


class ZoneRouting:
    """For the healthy hosts of priority 0."""

    __slots__ = ("_anywhere", "_enabled", "_local", "_others", "_shares")

    def __init__(
        self, shares: ZoneShares, local: Balancer | None, others: Sequence[Balancer | None], anywhere: Balancer, enabled: float
    ) -> None:
        """`enabled`: the share of calls (0..1) that it holds for; the others go `anywhere`."""
        self._shares = shares
        self._local = local
        self._others = tuple(others)
        self._anywhere = anywhere
        self._enabled = enabled

    def pick(self, rng: Rng, now: float = 0.0, context: PickContext | None = None) -> Host | None:
        return self._zone(rng).pick(rng, now, context)

    def _zone(self, rng: Rng) -> Balancer:
        if self._enabled < 1.0 and rng.random() >= self._enabled:
            return self._anywhere
        local, bounds = self._shares
        if self._local is not None and (local == _SCALE or rng.random() * _SCALE < local):
            return self._local
        total = bounds[-1] if bounds else 0
        if not total:
            return self._anywhere
        drawn = rng.random() * total
        return next(
            (each for each, bound in zip(self._others, bounds, strict=True) if drawn < bound and each is not None),
            self._anywhere,
        )


def balance_zones(
    localities: Sequence[Hosts],
    place: Place,
    settings: ZoneAware,
    within: Callable[[Sequence[Host]], Balancer],
    healthy: Sequence[Host],
) -> Balancer | None:
    """None: zones are not looked at: there are too few hosts, or too few zones on either side."""
    with_hosts = {each.locality for each in localities if each.healthy}
    if len(with_hosts) < 2 or len(healthy) < settings.min_cluster_size or settings.routing_enabled <= 0:
        return None
    if len([count for count in place.peers.values() if count]) < 2 or not place.peers.get(place.locality):
        return None
    by_locality = {each.locality: each for each in localities}
    order = [place.locality, *(each for each in {**by_locality, **place.peers} if each != place.locality)]
    healthy_of = [by_locality[each].healthy if each in by_locality else () for each in order]
    shares = zone_shares([place.peers.get(each, 0) for each in order], [len(hosts) for hosts in healthy_of])
    local, *others = [within(hosts) if hosts else None for hosts in healthy_of]
    return ZoneRouting(shares, local, others, within(healthy), settings.routing_enabled / 100.0)
