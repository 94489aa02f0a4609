"""How much of the traffic each priority gets: Envoy's priority loads, panic and degraded hosts (``LoadBalancerBase``).

All arithmetic is in whole percent, and truncates.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple


class Availability(NamedTuple):
    """The hosts of one priority, counted."""

    healthy: int
    degraded: int
    hosts: int


class PriorityLoads(NamedTuple):
    """Percent of the calls for the healthy and for the degraded hosts of each priority; 100 in all, or nothing can be used.

    `panic`: where health is ignored, because too little of it is left.
    """

    healthy: tuple[int, ...]
    degraded: tuple[int, ...]
    panic: tuple[bool, ...]

    def choose(self, number: int) -> tuple[int, bool] | None:
        """(Priority, its degraded hosts?) for a `number` from 1 to 100."""
        bound = 0
        for loads, degraded in ((self.healthy, False), (self.degraded, True)):
            for priority, load in enumerate(loads):
                bound += load
                if number <= bound:
                    return priority, degraded
        return None


def priority_loads(
    levels: Sequence[Availability], *, overprovisioning: int = 140, panic_threshold: float = 50.0
) -> PriorityLoads:
    """`overprovisioning`: how much more than their share hosts can take, percent; `panic_threshold` in percent, 0: never.

    A priority is filled as far as its hosts go, then the next; what is degraded comes after all that is healthy.
    """
    healthy = [_health(level.healthy, level.hosts, overprovisioning) for level in levels]
    degraded = [_health(level.degraded, level.hosts, overprovisioning) for level in levels]
    total = min(100, sum(healthy) + sum(degraded))
    threshold = min(100, int(panic_threshold + 0.5))
    if total == 0 and threshold == 0:
        return _whatever_is_left(levels)
    panic = tuple(total != 100 and _available_percent(level) < threshold for level in levels)
    if all(panic):
        return PriorityLoads(tuple(_by_size(levels)), (0,) * len(levels), panic)
    return PriorityLoads(*_filled(healthy, degraded, total), panic)


def loads_without(
    levels: Sequence[Availability], left_out: Collection[int], loads: PriorityLoads, overprovisioning: int = 140
) -> PriorityLoads | None:
    """`loads` without those of some priorities (Envoy ``previous_priorities``); None: no other can take anything."""
    spared = [Availability(0, 0, each.hosts) if at in left_out else each for at, each in enumerate(levels)]
    healthy = [_health(level.healthy, level.hosts, overprovisioning) for level in spared]
    degraded = [_health(level.degraded, level.hosts, overprovisioning) for level in spared]
    total = min(100, sum(healthy) + sum(degraded))
    return PriorityLoads(*_filled(healthy, degraded, total), loads.panic) if total else None


def _health(available: int, hosts: int, overprovisioning: int) -> int:
    return min(100, overprovisioning * available // hosts) if hosts else 0


def _available_percent(level: Availability) -> float:
    return 100.0 * (level.healthy + level.degraded) / level.hosts if level.hosts else 0.0


def _filled(healthy: list[int], degraded: list[int], total: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    left = 100
    shares: list[list[int]] = []
    for health in (healthy, degraded):
        loads = []
        for percent in health:
            load = min(left, percent * 100 // total)
            loads.append(load)
            left -= load
        shares.append(loads)
    for health, loads in zip((healthy, degraded), shares, strict=True):
        # What truncation has left goes to the first that can take it.
        first = next((priority for priority, percent in enumerate(health) if percent), None)
        if left and first is not None:
            loads[first] += left
            left = 0
    return tuple(shares[0]), tuple(shares[1])


def _by_size(levels: Sequence[Availability]) -> list[int]:
    """Total panic: each priority by how many hosts it has."""
    total = sum(level.hosts for level in levels)
    loads = [100 * level.hosts // total if total else 0 for level in levels]
    first = next((priority for priority, level in enumerate(levels) if level.hosts), 0)
    if loads:
        loads[first] += 100 - sum(loads)
    return loads


def _whatever_is_left(levels: Sequence[Availability]) -> PriorityLoads:
    """No priority has one percent of health, and there is no panic: so few hosts that Envoy would not find them beyond
    priority 0.  One that is known to work beats an error.
    """
    healthy, degraded = [0] * len(levels), [0] * len(levels)
    for loads, available in ((healthy, [each.healthy for each in levels]), (degraded, [each.degraded for each in levels])):
        first = next((priority for priority, count in enumerate(available) if count), None)
        if first is not None:
            loads[first] = 100
            break
    return PriorityLoads(tuple(healthy), tuple(degraded), (False,) * len(levels))
