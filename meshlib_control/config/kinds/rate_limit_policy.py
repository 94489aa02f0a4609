"""RateLimitPolicy: how many requests may pass, and what they are counted by."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from meshlib_control.config.kinds.common import Duration, DurationOrZero, Element
from meshlib_control.config.kinds.destination_rule import WorkloadSelector
from meshlib_control.config.kinds.virtual_service import HTTPMatchRequest

Count = Annotated[int, Meta(ge=1, le=4_294_967_295)]
Text = Annotated[str, Meta(max_length=128)]


class RateLimitDescriptor(Element, frozen=True):
    """What requests are counted by: exactly one of the fields. A request that lacks it is counted with all others that do."""

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("attribute", "header", "claim", "constant"),)

    attribute: Literal["SERVICE", "ROUTE", "METHOD", "PATH", "CALLER", "CALLER_NAMESPACE", "REMOTE_ADDRESS"] | None = None
    """`SERVICE` and `ROUTE` that are called; `METHOD`; `PATH` in canonical form, without query; `CALLER` and
    `CALLER_NAMESPACE`, the verified identity of who sends a request; `REMOTE_ADDRESS` of the client, IPv6 by its /64."""
    header: Text | None = None
    """A header, by name. Whoever sends a request chooses it: values are compared without regard to case, and requests with
    several values are counted together."""
    claim: Text | None = None
    """A claim of the verified token: `sub`; `[realm][role]` for one within another."""
    constant: Text | None = None
    """The same text for all requests."""


class RequestQuota(Element, frozen=True):
    """So many requests in each calendar day or month, in UTC. Counts are kept in the store and survive restarts."""

    requests: Annotated[int, Meta(ge=1, le=4_294_967_295)]
    """How many requests may pass in a period."""
    period: Literal["DAY", "MONTH"]
    """When counting begins anew."""


class RateLimitFallback(Element, frozen=True):
    """What holds when the control service cannot be asked. Each process keeps its last share for a while."""

    after: DurationOrZero = 60.0
    """How long the last share holds."""
    action: Literal["ALLOW", "DENY"] = "ALLOW"
    """What happens to requests after that."""


class RateLimit(Element, frozen=True):
    """One limit: `tokens`, or a `quota`."""

    name: Annotated[str, Meta(max_length=63)]
    """How responses, metrics and logs call it; unique in the policy."""
    match: tuple[HTTPMatchRequest, ...] = ()
    """Which requests it is for: those that any of these conditions holds for, all unless given."""
    by: Annotated[tuple[RateLimitDescriptor, ...], Meta(max_length=8)] = ()
    """What requests are counted by: each combination of values has the whole limit for itself. All together unless given."""
    tokens: Count | None = None
    """How many requests may pass in each `interval`."""
    interval: Duration = 1.0
    """The time in which `tokens` come; evenly, not all at once."""
    burst: Count | None = None
    """How many requests may pass at once: `tokens` unless given."""
    scope: Literal["LOCAL", "GLOBAL"] = "LOCAL"
    """`LOCAL`: each process counts for itself. `GLOBAL`: one limit for all processes together, of which the control service
    gives each a share by what it needs."""
    quota: RequestQuota | None = None
    """Instead of `tokens`: a quota of a day or month, for all processes together."""
    fallback: RateLimitFallback = RateLimitFallback()
    """Of `GLOBAL` limits and quotas: what holds without the control service."""
    dry_run: bool = False
    """Count and log what would be refused, and refuse nothing."""


class RateLimitPolicy(Element, frozen=True):
    """How many requests may pass: calls to `host`, limited where they are made, or requests that the selected workloads serve.

    All limits that match have to allow a request, and none is charged for one that any of them refuses. A refused request is
    answered with 429 (gRPC: RESOURCE_EXHAUSTED), `retry-after`, `ratelimit` and `ratelimit-policy`.
    """

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("host", "selector"),)

    limits: Annotated[tuple[RateLimit, ...], Meta(min_length=1, max_length=32)]
    """The limits."""
    host: str | None = None
    """Calls to this host, as in a DestinationRule; `*.suffix` is allowed."""
    export_to: tuple[str, ...] = ()
    """With `host`: the namespaces whose calls are limited: `.` the policy's own, `*` all, as unless given."""
    selector: WorkloadSelector | None = None
    """Requests to workloads with these labels, of the policy's namespace; in the root namespace, of all."""
