"""Rate limits: how many requests of which kind may pass, counted by what.

Envoy has no API that says all of this in one place; the parts are those of its local rate limit filter (token bucket,
descriptors) and of its rate limit quota filter (shares of a whole, assigned by a service).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from meshlib.model.route import RouteMatch

DEFAULT_MAX_BUCKETS = 10_000
"""Distinct values that one limit counts apart in one process."""


class Attribute(Enum):
    """What a request can be counted by, beside headers and claims."""

    SERVICE = "SERVICE"  # the host that is called; calls only
    ROUTE = "ROUTE"  # the route that the call takes; calls only
    METHOD = "METHOD"
    PATH = "PATH"  # canonical, without query
    CALLER = "CALLER"  # the SPIFFE ID that the connection's other end has proved; served requests only
    CALLER_NAMESPACE = "CALLER_NAMESPACE"
    REMOTE_ADDRESS = "REMOTE_ADDRESS"  # the client, as trusted hops have forwarded it; IPv6 by its /64


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One part of the key that requests are counted by.  `value`: header name (lower case), path of the claim, or the text."""

    kind: Literal["attribute", "header", "claim", "constant"]
    attribute: Attribute | None = None
    value: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the part is called where buckets have names: ``caller``, ``header:x-tenant``, ``claim:realm.role``."""
        if self.attribute is not None:
            return self.attribute.value.lower()
        return self.kind if self.kind == "constant" else f"{self.kind}:{'.'.join(self.value)}"


class Period(Enum):
    """Of a quota: calendar days or months in UTC."""

    DAY = "DAY"
    MONTH = "MONTH"


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """At most `burst` requests at once, and `tokens` in each `interval` (seconds) on average."""

    tokens: int
    interval: float
    burst: int

    @property
    def per_second(self) -> float:
        return self.tokens / self.interval


@dataclass(frozen=True, slots=True)
class Quota:
    """So many requests in each period."""

    requests: int
    period: Period


@dataclass(frozen=True, slots=True)
class Fallback:
    """A shared limit without a control service: the last share holds for `after` seconds, then everything or nothing passes."""

    after: float = 60.0
    allow: bool = True


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One limit.  Exactly one of `bucket` and `quota` is set; a quota is always `shared`."""

    name: str
    matches: tuple[RouteMatch, ...] = ()  # any of them; none: every request
    by: tuple[Descriptor, ...] = ()
    bucket: TokenBucket | None = None
    quota: Quota | None = None
    shared: bool = False  # one limit for all processes, by shares that the control service assigns
    fallback: Fallback = Fallback()
    dry_run: bool = False  # counted and told, never enforced
    max_buckets: int = DEFAULT_MAX_BUCKETS


@dataclass(frozen=True, slots=True)
class LimitPolicy:
    """The limits of one RateLimitPolicy.  `name`: ``namespace/name``."""

    name: str
    limits: tuple[RateLimit, ...]


@dataclass(frozen=True, slots=True)
class RateLimits:
    """All limits of one served port, or of one host that is called.  Each that matches has to allow a request."""

    policies: tuple[LimitPolicy, ...] = ()


BucketId = tuple[tuple[str, str], ...]
"""Names and values of a shared bucket (RLQS ``BucketId``), in order of the names."""

POLICY_NAME = "meshlib.policy"
LIMIT_NAME = "meshlib.limit"
"""Names in a `BucketId` that say whose limit it is; the others are those of its descriptors."""


def bucket_id(policy: str, limit: RateLimit, key: tuple[str, ...]) -> BucketId:
    """What all processes call the bucket of one key of a shared limit."""
    parts = {POLICY_NAME: policy, LIMIT_NAME: limit.name}
    for index, (descriptor, value) in enumerate(zip(limit.by, key, strict=True)):
        parts[f"{index}:{descriptor.name}"] = value
    return tuple(sorted(parts.items()))


@dataclass(frozen=True, slots=True)
class Usage:
    """What became of the requests of one bucket in the last `elapsed` seconds.  `held`: tokens per second that hold from before
    the stream that it is reported on.
    """

    id: BucketId
    elapsed: float
    allowed: int
    denied: int
    held: float = 0.0


Blanket = Literal["ALLOW_ALL", "DENY_ALL"]


@dataclass(frozen=True, slots=True)
class Assignment:
    """A share: what holds for a bucket for `ttl` seconds; None: until something else is said.

    `strategy` None: everything is allowed (the API's default).
    """

    id: BucketId
    ttl: float | None
    strategy: Blanket | TokenBucket | None = None


@dataclass(frozen=True, slots=True)
class Abandon:
    """Nobody counts this bucket any more; the next request begins it anew."""

    id: BucketId
