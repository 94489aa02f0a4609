"""The buckets of one limit at one replica, over the store that all replicas share."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple, Protocol

import msgspec

from meshlib.xds.quota import Assignment, BucketId, TokenBucket, Usage
from meshlib_control.config.kinds.rate_limit_policy import RateLimit
from meshlib_control.errors import Conflict, StoreError
from meshlib_control.quota.claims import BEAT, FRESH, Claim, Claims, Sightings, Wish, decoded, differs, encoded, settled
from meshlib_control.quota.counts import Counts, period_left, period_of
from meshlib_control.quota.grants import Grants, Taker
from meshlib_control.quota.ledger import TTL, Ledger
from meshlib_control.store.model import Entry, Store

log = logging.getLogger(__name__)

MAX_BUCKETS = 1000
"""Of one limit at one replica: what has no room is not answered, and each process is limited as if it were alone."""

CLAIMS = "quota/claims/"
COUNTS = "quota/counts/"
_ATTEMPTS = 5
_TOKENS = 10_000  # of a share: in how long so many come says its rate exactly


class Told(NamedTuple):
    """What to tell a stream; `confirm` with the number of the response that does."""

    stream: Hashable
    assignment: Assignment
    confirm: Callable[[int], None]


class Group(Protocol):
    """All buckets of one limit.  Times are monotonic seconds."""

    limit: RateLimit

    def heard(self, stream: Hashable, usage: Usage, now: float) -> bool:
        """A report; False when there is no room for its bucket."""
        ...

    def applied(self, stream: Hashable, number: int) -> None: ...

    def left(self, stream: Hashable, *, in_order: bool, process: Hashable) -> None: ...

    def returned(self, stream: Hashable, process: Hashable) -> None:
        """A process whose stream has `left` has another one, on which nothing has been heard yet."""
        ...

    async def settle(self, now: float) -> None:
        """Agree with the other replicas.  Raises `StoreError`."""
        ...

    def assignments(self, now: float) -> Iterator[Told]: ...

    @property
    def ids(self) -> list[BucketId]: ...


def digest(*parts: object) -> str:
    """A key for any text."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


class SharedGroup:
    """Of a limit in tokens: shares by demand, within what this replica has claimed."""

    def __init__(self, policy: str, limit: RateLimit, store: Store, me: str) -> None:
        self.limit = limit
        self._store = store
        self._me = me
        self._key = CLAIMS + digest(policy, limit.name)
        self._per_second = (limit.tokens or 1) / limit.interval
        self._ledgers: dict[BucketId, Ledger] = {}
        self._names: dict[BucketId, str] = {}
        self._moves: dict[BucketId, list[tuple[Hashable, float]]] = {}
        self._sightings = Sightings()
        self._aims: dict[str, float] = {}  # by the name of a bucket
        self._written = -math.inf

    @property
    def ids(self) -> list[BucketId]:
        return list(self._ledgers)

    def heard(self, stream: Hashable, usage: Usage, now: float) -> bool:
        ledger = self._ledgers.get(usage.id)
        if ledger is None:
            if len(self._ledgers) >= MAX_BUCKETS:
                return False
            ledger = self._ledgers[usage.id] = Ledger(self._per_second, self.limit.fallback.after)
            self._names[usage.id] = digest(usage.id)
        if usage.held and stream not in ledger.holders:
            self._moves.setdefault(usage.id, []).append((stream, min(usage.held / self._per_second, 1.0)))
        ledger.heard(stream, usage.allowed + usage.denied, usage.elapsed, now)
        return True

    def applied(self, stream: Hashable, number: int) -> None:
        for ledger in self._ledgers.values():
            ledger.applied(stream, number)

    def left(self, stream: Hashable, *, in_order: bool, process: Hashable) -> None:
        for ledger in self._ledgers.values():
            ledger.left(stream, in_order=in_order, process=process)

    def returned(self, stream: Hashable, process: Hashable) -> None:
        for ledger in self._ledgers.values():
            ledger.returned(stream, process)

    async def settle(self, now: float) -> None:
        """Take part in the claims of all replicas."""
        for bucket in [bucket for bucket, ledger in self._ledgers.items() if ledger.idle]:
            self._aims.pop(self._names[bucket], None)
            del self._ledgers[bucket], self._names[bucket]
            self._moves.pop(bucket, None)
        for _ in range(_ATTEMPTS):
            entry = await self._store.get(self._key)
            before = _claims(entry)
            after, moved = self._settled(before, now)
            if now - self._written < BEAT and not any(map(self._differs, *_pairs(before, after))):
                self._adopt(before)
                return
            if not after.buckets:
                if entry is not None:
                    await self._store.delete(self._key, expect=entry.revision)
                return
            beaten = self._beaten(after)
            try:
                await self._store.put(self._key, encoded(beaten), expect=entry.revision if entry else 0)
            except Conflict:
                continue
            self._written = now
            self._adopt(beaten)
            self._take_over(moved, now)
            return
        raise StoreError(f"{self._key} is written by others all the time")

    def assignments(self, now: float) -> Iterator[Told]:
        """Nothing by claims that could not be renewed for a while: others may have counted them out by then."""
        if now - self._written >= FRESH:
            return
        for bucket, ledger in self._ledgers.items():
            for stream, share in ledger.assign(now).items():

                def confirm(number: int, stream: Hashable = stream, share: float = share, ledger: Ledger = ledger) -> None:
                    ledger.told(stream, share, number, now)

                yield Told(stream, Assignment(bucket, TTL, self._strategy(share)), confirm)

    def _strategy(self, share: float) -> TokenBucket:
        """Rounded so that it is never more than the share; but one request at a time it has to be."""
        burst = max(int((self.limit.burst or self.limit.tokens or 1) * share), 1)
        interval = math.ceil(_TOKENS / (self._per_second * share) * 1e6) / 1e6
        return TokenBucket(_TOKENS, interval, burst)

    def _settled(self, before: Claims, now: float) -> tuple[Claims, dict[BucketId, float]]:
        """The claims on all buckets, and what of the shares that streams have brought along could be moved here."""
        self._sightings.retain(before)
        mine = set(self._names.values())
        buckets = {
            name: {
                replica: claim
                for replica, claim in claims.items()
                if replica != self._me and not self._sightings.is_over(name, replica, claim, now)
            }
            for name, claims in before.buckets.items()
            if name not in mine
        }
        moved: dict[BucketId, float] = {}
        for bucket, ledger in self._ledgers.items():
            name = self._names[bucket]
            brought = sum(share for _, share in self._moves.get(bucket, ()))
            wish = Wish(ledger.want, ledger.outstanding, self.limit.fallback.after, brought, len(ledger.holders))
            known = before.buckets.get(name, {})
            buckets[name], moved[bucket], self._aims[name] = settled(name, known, self._me, wish, self._sightings, now)
        return Claims({name: claims for name, claims in buckets.items() if claims}), moved

    def _differs(self, before: dict[str, Claim], after: dict[str, Claim]) -> bool:
        if before.keys() != after.keys():
            return True
        return any(differs(before[replica], claim) for replica, claim in after.items())

    def _beaten(self, claims: Claims) -> Claims:
        """With a beat of this replica in each of its claims."""
        buckets = {
            name: {
                replica: msgspec.structs.replace(claim, beat=claim.beat + 1) if replica == self._me else claim
                for replica, claim in of.items()
            }
            for name, of in claims.buckets.items()
        }
        return Claims(buckets)

    def _adopt(self, claims: Claims) -> None:
        for bucket, ledger in self._ledgers.items():
            name = self._names[bucket]
            mine = claims.buckets.get(name, {}).get(self._me)
            ledger.claim = mine.share if mine is not None else 0.0
            ledger.aim = self._aims.get(name, ledger.claim)

    def _take_over(self, moved: dict[BucketId, float], now: float) -> None:
        """Streams keep the shares that they came with, as far as these were somebody's to give."""
        for bucket, ledger in self._ledgers.items():
            left = moved.get(bucket, 0.0)
            for stream, share in self._moves.pop(bucket, ()):
                part = min(share, left)
                left -= part
                if part > 0 and stream in ledger.holders:
                    ledger.holds(stream, part, now)


class QuotaGroup:
    """Of a quota of a day or month: grants, charged to the count in the store before they are told."""

    def __init__(self, policy: str, limit: RateLimit, store: Store, wall: Callable[[], float]) -> None:
        """`wall`: Unix seconds."""
        assert limit.quota is not None
        self.limit = limit
        self._quota = limit.quota
        self._policy = policy
        self._counts = Counts(store)
        self._wall = wall
        self._grants: dict[BucketId, Grants] = {}
        self._refunds: dict[BucketId, int] = {}

    @property
    def ids(self) -> list[BucketId]:
        return list(self._grants)

    def heard(self, stream: Hashable, usage: Usage, now: float) -> bool:
        grants = self._grants.get(usage.id)
        if grants is None:
            if len(self._grants) >= MAX_BUCKETS:
                return False
            grants = self._grants[usage.id] = Grants()
        grants.heard(stream, usage.allowed, usage.denied, usage.elapsed, known=usage.held > 0)
        return True

    def applied(self, stream: Hashable, number: int) -> None:
        """Grants only grow: nothing is free to be given away before."""

    def returned(self, stream: Hashable, process: Hashable) -> None:
        """What it was granted and has not reported as used may have been used: it is granted anew."""

    def left(self, stream: Hashable, *, in_order: bool, process: Hashable) -> None:
        for bucket, grants in self._grants.items():
            unused = grants.left(stream)
            if in_order and unused:
                self._refunds[bucket] = self._refunds.get(bucket, 0) + unused

    async def settle(self, now: float) -> None:
        """Charge what has passed before any grant, give back what was not used, and charge what is to be granted."""
        period = period_of(self._quota.period, self._wall())
        for bucket, grants in list(self._grants.items()):
            key = self._key(bucket)
            if grants.begin(period):
                self._refunds.pop(bucket, None)  # they were granted of the period before
            passed = sum(taker.uncharged for taker in grants.takers.values()) - self._refunds.get(bucket, 0)
            if passed:
                await self._counts.add(key, period, passed)
                self._refunds.pop(bucket, None)
                for taker in grants.takers.values():
                    taker.uncharged = 0
            if not grants.takers:
                del self._grants[bucket]
                continue
            wanted = grants.wanted(self._quota.requests)
            if wanted:
                remaining = self._quota.requests - await self._counts.used(key, period)
                wanted = grants.wanted(max(remaining, 0))
                charged = await self._counts.charge(key, period, sum(wanted.values()), self._quota.requests)
                grants.grant(wanted, charged)
                grants.exhausted = remaining <= 0

    def assignments(self, now: float) -> Iterator[Told]:
        """Renewed like shares; who has nothing left, and can get nothing, is told until when."""
        until = period_left(self._quota.period, self._wall())
        for bucket, grants in self._grants.items():
            for stream, taker in grants.takers.items():
                if now - taker.told < TTL / 2 or not grants.period:
                    continue

                def confirm(number: int, taker: Taker = taker) -> None:
                    taker.told = now

                if grants.exhausted and not taker.left:
                    yield Told(stream, Assignment(bucket, until, "DENY_ALL"), confirm)
                elif taker.granted:
                    bound = TokenBucket(1, _LONG, min(taker.granted, _MOST))
                    yield Told(stream, Assignment(bucket, min(TTL, until), bound), confirm)

    def _key(self, bucket: BucketId) -> str:
        return COUNTS + digest(self._policy, self.limit.name, bucket)


_LONG = 86_400.0 * 365
_MOST = 2**32 - 1


def _claims(entry: Entry | None) -> Claims:
    """Raises `StoreError` for what is none of ours: nothing is given away then."""
    if entry is None:
        return Claims()
    try:
        return decoded(entry.value)
    except msgspec.DecodeError as error:
        raise StoreError(f"{entry.key} is damaged: {error}") from error


def _pairs(before: Claims, after: Claims) -> tuple[list[dict[str, Claim]], list[dict[str, Claim]]]:
    """The claims on each bucket, as they were and as they are."""
    names = sorted(before.buckets.keys() | after.buckets.keys())
    return [before.buckets.get(name, {}) for name in names], [after.buckets.get(name, {}) for name in names]
