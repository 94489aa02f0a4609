"""Rate limits: whether a request may pass, and what its sender is told.

All limits that match a request have to allow it, and none is charged for one that any of them refuses: a client that runs into
its daily quota does not use up its burst as well, nor the other way round.

The state of a limit (`Limiter`) belongs to its policy and name and outlives snapshots: other configuration, other routes or a
reconnect to the control service give nobody a full bucket.  It is forgotten with the last thing that was compiled from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol
from weakref import WeakValueDictionary

from meshlib.model.rate_limit import RateLimit, RateLimits, TokenBucket
from meshlib.model.route import NonForwarding, Route, VirtualHost
from meshlib.policy.rate_limit_fields import WINDOWS, fields, limit_member, policy_member
from meshlib.policy.rate_limit_keys import Key, KeyOf, Limited, compile_key
from meshlib.policy.routing import Router
from meshlib.policy.token_bucket import Standing, TokenBuckets

QUIET = 10.0
"""Seconds without a refusal after which the next one is an event again."""


class Counter(Protocol):
    """Who counts the requests of one limit, by key."""

    def standing(self, key: Key, now: float) -> Standing: ...

    def take(self, key: Key, now: float) -> None:
        """A request passes."""
        ...

    def refuse(self, key: Key, now: float) -> None:
        """A request does not, because of this limit."""
        ...

    def change(self, limit: RateLimit, now: float) -> None:
        """Another size from now on, of what is counted by the same keys: nobody gets a full bucket for that."""
        ...


class Shared(Protocol):
    """Makes counters for limits that hold for all processes together."""

    def counter(self, policy: str, limit: RateLimit, now: float) -> Counter: ...


class _Local:
    """Token buckets of this process alone."""

    __slots__ = ("buckets", "standing", "take")

    def __init__(self, limit: RateLimit) -> None:
        self.buckets = TokenBuckets(_size(limit), limit.max_buckets)
        self.standing = self.buckets.standing
        self.take = self.buckets.take

    def refuse(self, key: Key, now: float) -> None:
        """Nobody is told."""

    def change(self, limit: RateLimit, now: float) -> None:
        self.buckets.resize(_size(limit), limit.max_buckets, now)


def _size(limit: RateLimit) -> TokenBucket:
    """Of a quota without anybody to share it with: as much, evenly."""
    if limit.bucket is not None:
        return limit.bucket
    assert limit.quota is not None
    return TokenBucket(limit.quota.requests, float(WINDOWS[limit.quota.period]), limit.quota.requests)


class Limiter:
    """One limit at work.  The counters are for metrics, and never go down."""

    __slots__ = (
        "__weakref__",
        "allowed",
        "counter",
        "limit",
        "limited",
        "limited_at",
        "policy",
        "policy_member",
        "would_limit",
    )

    def __init__(self, policy: str, limit: RateLimit, counter: Counter) -> None:
        self.policy = policy
        self.counter = counter
        self.follow(limit)
        self.allowed = 0  # requests that matched, and that this limit let pass
        self.limited = 0  # ... that it refused
        self.would_limit = 0  # ... that it would have refused, were it no dry run
        self.limited_at = -QUIET

    def follow(self, limit: RateLimit) -> None:
        """Go by `limit` from now on."""
        self.limit = limit
        self.policy_member = policy_member(limit)

    @property
    def id(self) -> str:
        """``namespace/policy/limit``."""
        return f"{self.policy}/{self.limit.name}"

    @property
    def overflowed(self) -> int:
        """Requests that shared a bucket because there were too many keys to tell apart."""
        return self.counter.buckets.overflowed if isinstance(self.counter, _Local) else 0


class Limiters:
    """All limiters of one side of a process.  The owner's lock is around every call."""

    def __init__(self, shared: Shared | None = None) -> None:
        """`shared`: who counts limits of scope GLOBAL; None: each process for itself."""
        self._shared = shared
        self._known: WeakValueDictionary[tuple[str, str], Limiter] = WeakValueDictionary()

    @property
    def all(self) -> list[Limiter]:
        """Those in force, in the order of their names."""
        return sorted(self._known.values(), key=lambda limiter: limiter.id)

    def get(self, policy: str, limit: RateLimit, now: float) -> Limiter:
        """The limiter of this name, with what is in its buckets; it goes by `limit` from now on."""
        limiter = self._known.get((policy, limit.name))
        if limiter is None:
            limiter = Limiter(policy, limit, self._counter(policy, limit, now))
            self._known[policy, limit.name] = limiter
        elif limiter.limit != limit:
            self._change(limiter, limit, now)
        return limiter

    def _change(self, limiter: Limiter, limit: RateLimit, now: float) -> None:
        before = limiter.limit
        limiter.follow(limit)
        if before.by != limit.by or before.shared != limit.shared or before.quota != limit.quota:
            limiter.counter = self._counter(limiter.policy, limit, now)  # other keys: nothing of before means anything
        else:
            limiter.counter.change(limit, now)

    def _counter(self, policy: str, limit: RateLimit, now: float) -> Counter:
        if limit.shared and self._shared is not None:
            return self._shared.counter(policy, limit, now)
        return _Local(limit)


class Refused(NamedTuple):
    """`wait` in seconds, until the same request could pass."""

    limiter: Limiter
    wait: float


Found = list[tuple["Limiter", Key, Standing]]
"""The limits that are for a request, with its key and how that stands before the request is charged."""


class Decision(NamedTuple):
    """`refused` None: the request passes.  `found`: what it was decided by.

    `notes`: limits that would have refused it, were they no dry run.  `began`: limiters that refuse after a while without.
    """

    refused: Refused | None
    found: Found
    notes: tuple[str, ...] = ()
    began: tuple[Limiter, ...] = ()

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """How its sender stands.  Made when they are asked for: a call that passes has nobody to tell.

        Nobody is to keep to a limit that is only tried out.
        """
        spent = 0 if self.refused is not None else 1
        policies, limits = [], []
        for limiter, _, standing in self.found:
            if not limiter.limit.dry_run:
                policies.append(limiter.policy_member)
                limits.append(limit_member(limiter.limit, standing.left - spent, standing.reset))
        return fields(policies, limits)


class _NoRng:
    """Matches of limits have no fractions: nothing is drawn."""

    def random(self) -> float:
        return 0.0

    def randrange(self, stop: int, /) -> int:
        return 0


_NO_RNG = _NoRng()


class _Entry(NamedTuple):
    applies: Callable[[Limited], bool] | None  # None: to every request
    key_of: KeyOf
    limiter: Limiter


class CompiledLimits:
    """The limits of one served port or one called host."""

    __slots__ = ("_entries",)

    def __init__(self, limits: RateLimits, limiters: Limiters, now: float) -> None:
        """Raises ValueError for a regular expression that is none; decoding has refused those before."""
        self._entries = tuple(
            _Entry(_compile_match(limit), compile_key(limit.by), limiters.get(policy.name, limit, now))
            for policy in limits.policies
            for limit in policy.limits
        )

    def decide(self, request: Limited, now: float) -> Decision | None:
        """Look at all, then charge all or none.  None: no limit is for this request.

        A refusal is that of the limit that takes the longest.  Limits on dry run are charged with what passes.
        """
        found: Found = []
        longest, refusing = 0.0, None
        for applies, key_of, limiter in self._entries:
            if applies is not None and not applies(request):
                continue
            key = key_of(request)
            standing = limiter.counter.standing(key, now)
            found.append((limiter, key, standing))
            if standing.wait > longest and not limiter.limit.dry_run:
                longest, refusing = standing.wait, limiter
        if not found:
            return None
        return self._pass(found, now) if refusing is None else self._refuse(found, Refused(refusing, longest), now)

    def _refuse(self, found: Found, refused: Refused, now: float) -> Decision:
        began = []
        for limiter, key, standing in found:
            if standing.wait > 0.0 and not limiter.limit.dry_run:
                limiter.limited += 1
                limiter.counter.refuse(key, now)
                if now - limiter.limited_at >= QUIET:
                    began.append(limiter)
                limiter.limited_at = now
        return Decision(refused, found, began=tuple(began))

    def _pass(self, found: Found, now: float) -> Decision:
        notes: tuple[str, ...] = ()
        for limiter, key, standing in found:
            if standing.wait > 0.0:
                limiter.would_limit += 1
                limiter.counter.refuse(key, now)
                notes = (*notes, f"rate limit {limiter.id} would refuse (dry run)")
            else:
                limiter.allowed += 1
                limiter.counter.take(key, now)
        return Decision(None, found, notes)


def _compile_match(limit: RateLimit) -> Callable[[Limited], bool] | None:
    """A limit works against a request, so it holds if it does for any way that the request's path can be read."""
    if not limit.matches:
        return None
    routes = tuple(Route("", match, NonForwarding()) for match in limit.matches)
    matches = Router(VirtualHost(limit.name, ("*",), routes)).match

    def applies(request: Limited) -> bool:
        call = request.as_call()
        if matches(call, _NO_RNG) >= 0:
            return True
        if not request.paths:
            return False
        written = call.path
        query = written.partition("?")[2]
        try:
            for path in request.paths:
                call.path = f"{path}?{query}" if query else path
                if matches(call, _NO_RNG) >= 0:
                    return True
        finally:
            call.path = written
        return False

    return applies
