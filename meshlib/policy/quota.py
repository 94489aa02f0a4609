"""Limits that hold for all processes together: the client's side of RLQS, as a state machine.

Usage is reported, shares are assigned (Envoy's rate limit quota filter; where its version 1.40 differs from its API, the API
holds: reports come in the interval that was asked for, an assignment without a time to live never expires).  Each bucket is

    new        until the first assignment: limited as if this process were alone
    assigned   by its share, for the assignment's time to live
    kept       the time is over and there is no new one: the last share, for the time that the policy states
    left       that time is over, too: everything passes, or nothing, as the policy says

A quota of a day or month is assigned in grants: ``max_tokens`` is then how many requests may have passed in all since the
stream began, so that grants and reports may cross on their way without anything being counted twice or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import inf
from typing import NamedTuple
from weakref import WeakValueDictionary

from meshlib.model.rate_limit import Abandon, Assignment, Blanket, BucketId, RateLimit, TokenBucket, Usage, bucket_id
from meshlib.policy.rate_limit_keys import Key
from meshlib.policy.token_bucket import Standing, TokenBuckets
from meshlib.telemetry.events import Emit, Event, Throttle

REPORT_INTERVAL = 1.0
"""Seconds between reports of a bucket."""

IDLE = 60.0
"""Seconds without a request after which a bucket is let go; longer where it would not be full again by then."""

_ASK_AGAIN = 1.0  # seconds that a client is told to wait where nobody knows how long
_UNBOUNDED = 2**31
_BEFORE_GRANT = 1000  # this part of a quota may be used by a process before its first grant


class QuotaBucket:
    """One bucket of one shared limit."""

    __slots__ = (
        "abandoned", "allowed", "assigned", "begun", "denied", "due", "expires", "granted", "held", "id", "keep", "low",
        "meter", "reported", "strategy", "used", "used_at",
    )  # fmt: skip

    def __init__(self, identity: BucketId, now: float) -> None:
        self.id = identity
        self.begun = now
        self.allowed = 0  # since the last report, as `denied`
        self.denied = 0
        self.reported: float | None = None  # None: not on this stream yet
        self.used_at = now
        self.assigned = False
        self.expires = inf
        self.strategy: Blanket | TokenBucket | None = None
        self.meter: TokenBuckets | None = None
        self.held = 0.0  # tokens per second, of a share from an earlier stream; of a quota: 1, there were grants
        self.granted = 0  # of a quota: how many requests may pass in all on this stream
        self.used = 0  # ... and how many have
        self.low = 0  # when so many are left, more is asked for
        self.due = False  # to be reported at once
        self.abandoned = False  # not to be reported before the next request
        self.keep = 0.0

    def count_anew(self) -> None:
        """Of a quota: whoever grants from now on begins with what is left."""
        self.granted = max(self.granted - self.used, 0)
        self.used = 0


class Shares(NamedTuple):
    """Buckets with and without an assignment, requests a second of all shares, requests left of all grants."""

    assigned: int
    unassigned: int
    per_second: float
    granted: int


class SharedLimit:
    """All buckets of one limit: its counter (`policy.rate_limit.Counter`)."""

    def __init__(self, policy: str, limit: RateLimit, wake: Callable[[], object]) -> None:
        """`wake`: called when there is a bucket to report."""
        self.policy = policy
        self._wake = wake
        self.limit = limit
        self.buckets: dict[Key, QuotaBucket] = {}
        self.overflowed = 0
        self.told = Throttle()
        self._answered = -inf  # until when some bucket of this limit has an assignment: somebody gives them out
        self._whole = _whole(limit)
        self._others = TokenBuckets(self._whole, 0)  # one bucket for the keys beyond max_buckets
        self._idle = _idle(limit)

    def standing(self, key: Key, now: float) -> Standing:
        bucket = self.buckets.get(key)
        if bucket is None:
            if len(self.buckets) >= self.limit.max_buckets:
                return self._others.standing(key, now)
            bucket = self.buckets[key] = self._begin(key, now)
            self._wake()
        elif bucket.abandoned:
            bucket.abandoned, bucket.begun, bucket.expires = False, now, now
            self._wake()
        return self._standing(bucket, now)

    def take(self, key: Key, now: float) -> None:
        bucket = self.buckets.get(key)
        if bucket is None:
            self.overflowed += 1
            self._others.take(key, now)
            return
        bucket.allowed += 1
        bucket.used += 1
        bucket.used_at = now
        if bucket.granted and bucket.granted - bucket.used in (bucket.low, 0):
            bucket.due = True  # more is asked for before all is used up, not an interval later
            self._wake()
        if bucket.meter is not None and not self._has_left(bucket, now):
            bucket.meter.take((), now)

    def refuse(self, key: Key, now: float) -> None:
        bucket = self.buckets.get(key)
        if bucket is not None:
            bucket.denied += 1
            bucket.used_at = now

    def change(self, limit: RateLimit, now: float) -> None:
        """What each bucket has left stays with it in proportion; shares follow the whole until there are new ones."""
        before, self._whole = self._whole, _whole(limit)
        self.limit, self._idle = limit, _idle(limit)
        self._others.resize(self._whole, 0, now)
        scale, burst = self._whole.per_second / before.per_second, self._whole.burst / before.burst
        for bucket in self.buckets.values():
            bucket.keep = limit.fallback.after
            if bucket.meter is not None:
                size = bucket.meter.size
                bucket.meter.resize(TokenBucket(size.tokens, size.interval / scale, max(int(size.burst * burst), 1)), 1, now)

    def shares(self, now: float) -> Shares:
        """What this process has of the limit now."""
        held = [bucket for bucket in self.buckets.values() if bucket.assigned and now < bucket.expires + bucket.keep]
        rates = [bucket.strategy for bucket in held if isinstance(bucket.strategy, TokenBucket)]
        if self.limit.quota is not None:
            left = sum(max(bucket.granted - bucket.used, 0) for bucket in held)
            return Shares(len(held), len(self.buckets) - len(held), 0.0, left)
        return Shares(len(held), len(self.buckets) - len(held), sum(rate.per_second for rate in rates), 0)

    # --- the stream

    def reports(self, now: float, *, everything: bool) -> Iterator[Usage]:
        """What is due; counts from zero afterwards.  Buckets that nobody has used for long are let go."""
        for key, bucket in list(self.buckets.items()):
            if now - bucket.used_at > self._idle:
                del self.buckets[key]
                continue
            if bucket.abandoned:
                continue
            since = bucket.reported
            if since is not None and not bucket.due and not everything and now - since < REPORT_INTERVAL:
                continue
            yield Usage(bucket.id, now - (bucket.begun if since is None else since), bucket.allowed, bucket.denied, bucket.held)
            bucket.allowed = bucket.denied = 0
            bucket.reported = now
            bucket.held = 0.0
            bucket.due = False

    def began(self, now: float) -> None:
        """A new stream, whose other end knows nothing of what was before."""
        for bucket in self.buckets.values():
            bucket.reported = None
            bucket.begun = now
            if self.limit.quota is not None:
                bucket.held = 1.0 if bucket.assigned else 0.0
                bucket.count_anew()
            elif isinstance(bucket.strategy, TokenBucket) and not self._has_left(bucket, now):
                bucket.held = bucket.strategy.per_second

    def assign(self, bucket: QuotaBucket, assignment: Assignment, now: float) -> None:
        """What was left of the share before goes over into the new one in proportion, as in Envoy."""
        bucket.assigned = True
        bucket.expires = inf if assignment.ttl is None else now + assignment.ttl
        self._answered = max(self._answered, bucket.expires)
        bucket.strategy = strategy = assignment.strategy
        if not isinstance(strategy, TokenBucket):
            bucket.meter = None
        elif self.limit.quota is not None:
            bucket.granted = strategy.burst
            bucket.low = max(bucket.granted - bucket.used, 0) // 2
            bucket.meter = None
        elif bucket.meter is None:
            bucket.meter = TokenBuckets(strategy, 1)
        else:
            bucket.meter.resize(strategy, 1, now)

    def abandon(self, bucket: QuotaBucket) -> None:
        """Its assignment is void; it is reported again with the next request.  What it has left is all that it has until then:
        a limit that is changed is abandoned for all, and nobody is to have a full bucket for that.
        """
        bucket.assigned, bucket.abandoned, bucket.reported, bucket.strategy = False, True, None, None
        bucket.held = 0.0
        if self.limit.quota is not None:
            bucket.held = 1.0  # what it has was charged
            bucket.count_anew()
        elif bucket.meter is None:
            bucket.meter = TokenBuckets(self._whole, 1)

    # --- one bucket

    def _begin(self, key: Key, now: float) -> QuotaBucket:
        bucket = QuotaBucket(bucket_id(self.policy, self.limit, key), now)
        bucket.keep = self.limit.fallback.after
        if self.limit.quota is None:
            bucket.meter = TokenBuckets(self._whole, 1)
        else:
            bucket.granted = self._whole.burst
        bucket.expires = now  # what is before the first assignment is held like what is after the last one
        return bucket

    def _has_left(self, bucket: QuotaBucket, now: float) -> bool:
        if bucket.assigned:
            return now >= bucket.expires + bucket.keep
        # Others are answered, this one is not: there are too many.  Were it free then, made-up keys would lift the limit.
        return now >= max(bucket.expires, self._answered) + bucket.keep

    def _standing(self, bucket: QuotaBucket, now: float) -> Standing:
        if self._has_left(bucket, now):
            return _FREE if self.limit.fallback.allow else _SHUT
        if bucket.strategy == "DENY_ALL":
            return Standing(min(max(bucket.expires - now, _ASK_AGAIN), _UNBOUNDED), 0, _ASK_AGAIN)
        if self.limit.quota is not None and (not bucket.assigned or isinstance(bucket.strategy, TokenBucket)):
            return self._granted(bucket, now)
        if bucket.meter is None:
            return _FREE
        return bucket.meter.standing((), now)

    def _granted(self, bucket: QuotaBucket, now: float) -> Standing:
        left = bucket.granted - bucket.used
        return Standing(0.0, left, _ASK_AGAIN) if left > 0 else _SHUT


def _whole(limit: RateLimit) -> TokenBucket:
    """What a process has before its first share; of a quota: a small part of it, once."""
    return limit.bucket or TokenBucket(1, 1.0, max(limit.quota.requests // _BEFORE_GRANT, 1) if limit.quota else 1)


def _idle(limit: RateLimit) -> float:
    return max(IDLE, limit.bucket.burst / limit.bucket.per_second) if limit.bucket is not None else 3600.0


_FREE = Standing(0.0, _UNBOUNDED, 0.0)
_SHUT = Standing(_ASK_AGAIN, 0, _ASK_AGAIN)


class SharedLimits:
    """All shared limits of one side of a process (`policy.rate_limit.Shared`).  The owner's lock is around every call."""

    def __init__(self) -> None:
        self.wake: Callable[[], object] = bool  # called when there is a bucket to report: quick, and never waits
        self.emit: Emit | None = None
        self._limits: WeakValueDictionary[tuple[str, str], SharedLimit] = WeakValueDictionary()

    def counter(self, policy: str, limit: RateLimit, now: float) -> SharedLimit:
        made = SharedLimit(policy, limit, self._woken)
        self._limits[policy, limit.name] = made
        return made

    def _woken(self) -> None:
        self.wake()

    def __bool__(self) -> bool:
        return bool(self._limits)

    @property
    def all(self) -> list[SharedLimit]:
        return list(self._limits.values())

    @property
    def used(self) -> bool:
        """Whether there is a bucket to speak of."""
        return any(limit.buckets for limit in self.all)

    def began(self, now: float) -> None:
        """A new stream."""
        for limit in self.all:
            limit.began(now)

    def reports(self, now: float, *, everything: bool = False) -> list[Usage]:
        """`everything`: also what is not due yet."""
        return [usage for limit in self.all for usage in limit.reports(now, everything=everything)]

    def apply(self, actions: Iterable[Assignment | Abandon], now: float) -> None:
        """In their order.  What is not known here is passed over, as in Envoy."""
        known = {bucket.id: (limit, bucket) for limit in self.all for bucket in limit.buckets.values()}
        for action in actions:
            found = known.get(action.id)
            if found is None:
                continue
            limit, bucket = found
            if isinstance(action, Abandon):
                limit.abandon(bucket)
                self._tell("quota.abandoned", limit, now)
            else:
                before = bucket.strategy
                limit.assign(bucket, action, now)
                if bucket.strategy != before:
                    self._tell("quota.assigned", limit, now)

    def _tell(self, name: str, limit: SharedLimit, now: float) -> None:
        if self.emit is not None and limit.told.lets(now):
            self.emit(Event(name, now, reason=f"{limit.policy}/{limit.limit.name}"))
