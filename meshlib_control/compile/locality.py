"""Which endpoints a caller prefers, by where it and they are: Istio's locality load balancing.

The rules are those of Istio's pilot (``pkg/networking/core/loadbalancer``): `distribute` gives weights to localities,
everything else gives priorities, which take effect only where failing endpoints are noticed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from meshlib_control.catalog.model import Instance
from meshlib_control.config.kinds import (
    LoadBalancer,
    LocalityDistribute,
    LocalityFailover,
    LocalityLbSetting,
    ZoneAwareLbSetting,
)

REGION: Final = "topology.kubernetes.io/region"
ZONE: Final = "topology.kubernetes.io/zone"
SUB_ZONE: Final = "topology.istio.io/subzone"
"""Labels that `failoverPriority` may name although nobody sets them: they are the parts of a locality."""

_OTHER_REGION = 3
_OTHER_THAN_CHOSEN = 4
_LEVELS = 5
"""Of priorities by locality: own sub-zone, zone, region, another region, one that `failover` does not name."""

MIN_CLUSTER_SIZE: Final = 6
"""Istio's, as Envoy's: with fewer endpoints, `zoneAwareLbSetting` has no effect."""


class Locality(NamedTuple):
    """A locality in its parts; empty ones are unknown."""

    region: str
    zone: str
    sub_zone: str

    @classmethod
    def parse(cls, text: str) -> Locality:
        """``region/zone/sub_zone``."""
        region, zone, sub_zone, *_ = [*text.split("/", 2), "", "", ""]
        return cls(region, zone, sub_zone)

    def is_in(self, pattern: str) -> bool:
        """Whether it is covered by ``region``, ``region/zone``, ``region/zone/sub_zone``, each part ``*`` at will."""
        region, zone, sub_zone = Locality.parse(pattern)
        return region in ("*", self.region) and zone in ("", "*", self.zone) and sub_zone in ("", "*", self.sub_zone)

    def labels(self) -> dict[str, str]:
        """The parts that are known, under the names that Istio gives them on workloads."""
        return {key: part for key, part in zip((REGION, ZONE, SUB_ZONE), self, strict=True) if part}


@dataclass(frozen=True, slots=True)
class Group:
    """Endpoints of one locality and priority.  `members`: by address and port, each with its weight in `weight`."""

    locality: Locality
    members: tuple[tuple[tuple[str, int], Instance], ...]
    weight: int
    priority: int = 0


@dataclass(frozen=True, slots=True)
class LocalitySetting:
    """`localityLbSetting` or, with a `min_cluster_size`, `zoneAwareLbSetting`.  By default it is on: failover by locality."""

    enabled: bool = True
    distribute: tuple[LocalityDistribute, ...] = ()
    failover: tuple[LocalityFailover, ...] = ()
    failover_priority: tuple[str, ...] = ()
    min_cluster_size: int = 0  # 0: calls are not kept in the caller's zone


def locality_setting(locality: LocalityLbSetting | None, zone: ZoneAwareLbSetting | None) -> LocalitySetting | None:
    """What one place of the configuration says, with `enabled` on unless it says false; None: nothing."""
    if locality is not None:
        on = locality.enabled is not False
        return LocalitySetting(on, locality.distribute, locality.failover, locality.failover_priority)
    if zone is not None:
        size = zone.min_cluster_size or MIN_CLUSTER_SIZE
        return LocalitySetting(zone.enabled is not False, (), zone.failover, zone.failover_priority, size)
    return None


def effective_setting(mesh: LocalitySetting, balancer: LoadBalancer | None) -> LocalitySetting | None:
    """A DestinationRule's setting replaces all of the mesh's.  None: switched off."""
    own = locality_setting(balancer.locality_lb_setting, balancer.zone_aware_lb_setting) if balancer is not None else None
    setting = own or mesh
    return setting if setting.enabled else None


@dataclass(frozen=True, slots=True)
class Preference:
    """What decides the order of a cluster's endpoints for one kind of caller.

    `labels`: the caller's, as far as some rule asks for them.  `failing_over`: failing endpoints are noticed (outlier
    detection), without which lower priorities would never be used.
    """

    setting: LocalitySetting
    locality: Locality
    labels: Mapping[str, str]
    failing_over: bool

    @property
    def distribution(self) -> LocalityDistribute | None:
        """The weights for callers from here; the first that covers them holds."""
        return next((item for item in self.setting.distribute if self.locality.is_in(item.from_ or "")), None)


def arranged(groups: Sequence[Group], preference: Preference) -> list[Group]:
    """The groups with weights or priorities, as the caller should have them; priorities are 0, 1, 2 ... without a gap."""
    setting = preference.setting
    if setting.distribute:
        return _weighted(groups, preference.distribution)
    if not (preference.failing_over or setting.min_cluster_size):
        return list(groups)
    if setting.failover_priority:
        groups = _by_labels(groups, preference)
        if not setting.failover:
            return _compacted(groups)
    return _compacted(_by_locality(groups, preference))


def _weighted(groups: Sequence[Group], distribution: LocalityDistribute | None) -> list[Group]:
    """Localities that are not named get nothing.  Several that one name covers share its weight by their own weights."""
    if distribution is None:
        return list(groups)
    left, chosen = list(groups), []
    for pattern, weight in distribution.to.items():
        covered = [group for group in left if group.locality.is_in(pattern)]
        left = [group for group in left if not group.locality.is_in(pattern)]
        total = sum(group.weight for group in covered)
        chosen += [replace(group, weight=math.ceil(group.weight * weight / total)) for group in covered]
    return sorted((group for group in chosen if group.weight), key=lambda group: group.locality)


def _by_locality(groups: Iterable[Group], preference: Preference) -> list[Group]:
    """Below priorities that are there already, if any.

    Zone awareness is a client's choice among the endpoints of priority 0: the whole region is one level then.
    """
    own, setting = preference.locality, preference.setting
    chosen = next((item for item in setting.failover if item.from_ == own.region), None)
    result = []
    for group in groups:
        level = _distance(own, group.locality)
        if level < _OTHER_REGION and setting.min_cluster_size:
            level = 0
        if level == _OTHER_REGION and chosen is not None and group.locality.region != chosen.to:
            level = _OTHER_THAN_CHOSEN
        result.append(replace(group, priority=group.priority * _LEVELS + level))
    return result


def _distance(own: Locality, other: Locality) -> int:
    """0: the same place; 1: the same zone; 2: the same region; 3: elsewhere."""
    if own.region != other.region:
        return _OTHER_REGION
    if own.zone != other.zone:
        return 2
    return 0 if own.sub_zone == other.sub_zone else 1


def _by_labels(groups: Iterable[Group], preference: Preference) -> list[Group]:
    """The more labels in a row an endpoint has in common with the caller, the better; a locality may be split by that."""
    wanted = wanted_labels(preference)
    result = []
    for group in groups:
        by_priority: dict[int, list[tuple[tuple[str, int], Instance]]] = {}
        for member in group.members:
            found = {**member[1].labels, **group.locality.labels()}
            by_priority.setdefault(_mismatch(wanted, found), []).append(member)
        for priority, members in by_priority.items():
            weight = sum(weight_of(instance) for _, instance in members)
            result.append(Group(group.locality, tuple(members), weight, priority))
    return result


def wanted_labels(preference: Preference) -> list[tuple[str, str]]:
    """The labels of `failoverPriority` in order, with the caller's values or those that are written (``key=value``)."""
    own = {**preference.labels, **preference.locality.labels()}
    parts = (label.partition("=") for label in preference.setting.failover_priority)
    return [(key, value if given else own.get(key, "")) for key, given, value in parts]


def _mismatch(wanted: Sequence[tuple[str, str]], found: Mapping[str, str]) -> int:
    """0: all are equal; else how many are left from the first that differs on.  Missing labels are empty ones."""
    return next((len(wanted) - index for index, (key, value) in enumerate(wanted) if found.get(key, "") != value), 0)


def _compacted(groups: Iterable[Group]) -> list[Group]:
    """Clients refuse priorities with a gap."""
    ordered = sorted(groups, key=lambda group: (group.priority, group.locality))
    places = {priority: place for place, priority in enumerate(dict.fromkeys(group.priority for group in ordered))}
    return [replace(group, priority=places[group.priority]) for group in ordered]


def weight_of(instance: Instance) -> int:
    """Of one endpoint: clients refuse 0."""
    return max(instance.weight, 1)


@dataclass(frozen=True, slots=True)
class CallerTraits:
    """What of callers some rule asks for.  Whoever differs in nothing else gets the same resources."""

    locality: bool = False
    labels: frozenset[str] = frozenset()

    def __or__(self, other: CallerTraits) -> CallerTraits:
        return CallerTraits(self.locality or other.locality, self.labels | other.labels)


NO_TRAITS: Final = CallerTraits()


def asked_traits(setting: LocalitySetting | None, *, failing_over: bool) -> CallerTraits:
    """What `arranged` looks at under this setting."""
    if setting is None:
        return NO_TRAITS
    if setting.distribute:
        return CallerTraits(locality=True)
    if not (failing_over or setting.min_cluster_size):
        return NO_TRAITS
    labels = frozenset(label for label in setting.failover_priority if "=" not in label)
    placed = not setting.failover_priority or bool(setting.failover) or not labels.isdisjoint((REGION, ZONE, SUB_ZONE))
    return CallerTraits(placed, labels)
