"""Keeps the last good instances when a source suddenly knows none, or few: `update(state, seen, now) -> state`.  Pure.

Discovery fails in ways that look like an answer: a wiped Consul says "no instances", a partition lets all leases expire.
Traffic to instances that are really gone costs a failed connection and a retry; no instances at all is an outage.  So
what vanishes without being told goodbye stays for a while, and is reported; what comes is used at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from meshlib_control.catalog.model import Instance, InstanceHealth, Service
from meshlib_control.catalog.offers import Seen


@dataclass(frozen=True, slots=True)
class GuardRules:
    """Seconds.  `shrink`: the share of instances above which a loss at once is held for a moment."""

    hold_empty: float = 300.0
    hold_shrink: float = 10.0
    shrink: float = 0.5


@dataclass(frozen=True, slots=True)
class Missing:
    """An instance that is kept though its source no longer has it."""

    instance: Instance
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Guarded:
    """One host.  `gone`: since when its service is unknown to all sources; infinite while it is known."""

    service: Service
    watched: bool
    instances: tuple[Instance, ...] = ()  # those that are, and those that are kept, ordered by id
    seen: tuple[Instance, ...] = ()  # as the sources said it
    present: Mapping[str, Instance] = field(default_factory=dict)
    missing: Mapping[str, Missing] = field(default_factory=dict)
    gone: float = math.inf


GuardState = Mapping[str, Guarded]


def update(state: GuardState, seen: Seen, now: float, rules: GuardRules) -> dict[str, Guarded]:
    """Take what the sources say, and the passing of time.  Call it again at `deadline`."""
    updated = {}
    for host, service in seen.services.items():
        updated[host] = _known(state.get(host), service, seen, now, rules)
    for host, guarded in state.items():
        if host not in seen.services:
            kept = _unknown(guarded, seen, now, rules)
            if kept is not None:
                updated[host] = kept
    return updated


def deadline(state: GuardState, rules: GuardRules) -> float:
    """When something that is kept has to go, unless it comes back; infinite when nothing is."""
    ends = [missing.until for guarded in state.values() for missing in guarded.missing.values()]
    ends += [guarded.gone + rules.hold_empty for guarded in state.values() if guarded.gone < math.inf]
    return min(ends, default=math.inf)


def reason(guarded: Guarded) -> str:
    """Why some instances are kept; empty when none are."""
    if not guarded.missing:
        return ""
    total = len(guarded.present) + len(guarded.missing)
    if not guarded.present:
        return f"all {total} instances vanished without deregistering; the last known ones are kept for a while"
    return f"{len(guarded.missing)} of {total} instances vanished at once without deregistering; they are kept for a moment"


def _known(before: Guarded | None, service: Service, seen: Seen, now: float, rules: GuardRules) -> Guarded:
    if service.host not in seen.instances:
        return Guarded(service, watched=False)
    found = seen.instances[service.host]
    if before is not None and before.seen is found and before.service == service and not before.missing:
        return before
    present = {instance.id: instance for instance in found}
    missing = _missing(before, present, seen.left, now, rules) if before else {}
    if before is not None and missing and not present:
        service = before.service  # nobody is there to tell its ports
    return Guarded(service, watched=True, instances=_all(present, missing), seen=found, present=present, missing=missing)


def _unknown(before: Guarded, seen: Seen, now: float, rules: GuardRules) -> Guarded | None:
    gone = min(before.gone, now)
    if now - gone >= rules.hold_empty:
        return None
    missing = _missing(before, {}, seen.left, now, rules)
    return Guarded(before.service, watched=before.watched, instances=_all({}, missing), missing=missing, gone=gone)


def _all(present: Mapping[str, Instance], missing: Mapping[str, Missing]) -> tuple[Instance, ...]:
    found = {**{name: kept.instance for name, kept in missing.items()}, **present}
    return tuple(found[name] for name in sorted(found))


def _missing(
    before: Guarded, found: Mapping[str, Instance], left: frozenset[str], now: float, rules: GuardRules
) -> dict[str, Missing]:
    since = {name: missing.since for name, missing in before.missing.items()}
    places = {(instance.address, instance.port) for instance in found.values()}
    candidates = {
        instance.id: instance
        for instance in before.instances
        if instance.id not in found
        and instance.id not in left
        and instance.health is not InstanceHealth.DRAINING
        # The same process under a new id: it came back, and registered anew.
        and (instance.address, instance.port) not in places
    }
    hold = _hold(len(candidates), len(found), rules)
    return {
        name: Missing(instance, since.get(name, now), since.get(name, now) + hold)
        for name, instance in candidates.items()
        if now - since.get(name, now) < hold
    }


def _hold(missing: int, found: int, rules: GuardRules) -> float:
    if not found:
        return rules.hold_empty
    return rules.hold_shrink if missing > rules.shrink * (missing + found) else 0.0
