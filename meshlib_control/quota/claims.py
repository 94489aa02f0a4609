"""What each replica of the control service may give away of a shared bucket: claims in the store, moved by compare-and-set.

A claim counts until its replica cannot have a lease out any more that it gave by it.  No two clocks are compared for that: a
replica renews its claims (`beat`), gives nothing once it could not do so for a while, and the others count from when they have
seen the beat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from meshlib_control.quota.ledger import MARGIN, TTL
from meshlib_control.quota.shares import divide

FRESH = 5.0
"""Seconds after the last successful write in which leases are given by a claim."""

BEAT = 2.0
"""Seconds between renewals of a claim that does not change."""

PATIENCE = 6.0
"""Seconds without a beat after which a replica is taken to want nothing; its claim still counts."""

_HARDLY = 0.005


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """`share` of the whole and what its replica's clients `want` of it; `keep`: seconds that their shares outlive leases;
    `clients`: how many there are.
    """

    share: float
    want: float
    beat: int
    keep: float
    clients: int = 1


class Claims(msgspec.Struct, frozen=True):
    """Of all buckets of one limit: bucket → replica → claim."""

    buckets: dict[str, dict[str, Claim]] = {}  # msgspec copies it


def encoded(claims: Claims) -> bytes:
    return msgspec.json.encode(claims)


def decoded(value: bytes) -> Claims:
    """Raises msgspec.DecodeError for what is none of ours."""
    return msgspec.json.decode(value, type=Claims)


@dataclass(slots=True)
class Sightings:
    """When each claim's beat was first seen by this replica, monotonic seconds."""

    seen: dict[tuple[str, str], tuple[int, float, bool]] = field(default_factory=dict)  # beat, when, and was there one before

    def age(self, bucket: str, replica: str, claim: Claim, now: float) -> float:
        known = self.seen.get((bucket, replica))
        if known is None or known[0] != claim.beat:
            self.seen[bucket, replica] = known = (claim.beat, now, known is not None)
        return now - known[1]

    def is_silent(self, bucket: str, replica: str, claim: Claim, now: float) -> bool:
        """Whether there is no sign that a replica still wants what it wanted: its last beat is long ago, or before our time."""
        return self.age(bucket, replica, claim, now) >= PATIENCE or not self.seen[bucket, replica][2]

    def is_over(self, bucket: str, replica: str, claim: Claim, now: float) -> bool:
        """Whether no lease by this claim can be out any more."""
        return self.age(bucket, replica, claim, now) >= FRESH + TTL + claim.keep + 2 * MARGIN

    def retain(self, claims: Claims) -> None:
        self.seen = {key: value for key, value in self.seen.items() if key[1] in claims.buckets.get(key[0], {})}


@dataclass(frozen=True, slots=True)
class Wish:
    """What a replica would have of one bucket: what its clients want, and have out; `moved`: shares that they brought along."""

    want: float
    outstanding: float
    keep: float
    moved: float = 0.0
    clients: int = 1


class Settled(NamedTuple):
    """The claims on one bucket after this replica has taken its part, and how much of `moved` it got from others.

    `aim`: its fair part, where that is less than it has claimed: what its clients have in use it can only take back from them.
    """

    claims: dict[str, Claim]
    moved: float
    aim: float


def settled(bucket: str, claims: Mapping[str, Claim], me: str, wish: Wish, sightings: Sightings, now: float) -> Settled:
    """What this replica may claim of a bucket, by what all of them have claimed and want."""
    alive: dict[str, Claim] = {}
    silent: set[str] = set()
    for replica, claim in claims.items():
        if replica == me or not sightings.is_over(bucket, replica, claim, now):
            alive[replica] = claim
            if replica != me and sightings.is_silent(bucket, replica, claim, now):
                silent.add(replica)
    mine = alive.pop(me, Claim(0.0, 0.0, 0, wish.keep))
    moved = 0.0
    for replica in sorted(alive, key=lambda name: name not in silent):
        part = min(wish.moved - moved, alive[replica].share)
        if part > 0:
            alive[replica] = msgspec.structs.replace(alive[replica], share=alive[replica].share - part)
            moved += part
    share = mine.share + moved
    wants = {replica: claim.want for replica, claim in alive.items() if replica not in silent}
    clients = {replica: claim.clients for replica, claim in alive.items()}
    target = divide(1.0, {**wants, me: wish.want}, {**clients, me: wish.clients})[me]
    free = max(1.0 - sum(claim.share for claim in alive.values()), 0.0)
    share = min(max(target, min(wish.outstanding + moved, share)) if target < share else target, free)
    return Settled({**alive, me: Claim(share, wish.want, mine.beat, wish.keep, wish.clients)}, moved, min(target, share))


def differs(before: Claim | None, after: Claim) -> bool:
    """Whether a change is worth a write before the next beat."""
    if before is None:
        return True
    return (
        abs(before.share - after.share) > 1e-9
        or abs(before.want - after.want) > max(_HARDLY, 0.1 * before.want)
        or before.clients != after.clients
    )
