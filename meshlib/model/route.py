"""Which cluster a request goes to, and how (RDS)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from meshlib.model.rate_limit import RateLimits

StringKind = Literal["exact", "prefix", "suffix", "contains", "regex"]


@dataclass(frozen=True, slots=True)
class StringMatch:
    """Envoy ``type.matcher.v3.StringMatcher``; a regex is RE2 and matches the whole value."""

    kind: StringKind
    value: str
    ignore_case: bool = False  # not for regex


@dataclass(frozen=True, slots=True)
class PathMatch:
    """On the path up to ``?``.  `separated`: ``path_separated_prefix``."""

    kind: Literal["exact", "prefix", "regex", "separated"]
    value: str
    case_sensitive: bool = True  # not for regex


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """Envoy ``HeaderMatcher``: any one value of a repeated header satisfies it.

    Exactly one of `match`, `present`, `range` is set.  `name` is lower case; pseudo headers ``:method``, ``:authority``,
    ``:path``, ``:scheme`` are allowed.
    """

    name: str
    match: StringMatch | None = None
    present: bool | None = None
    range: tuple[int, int] | None = None  # [start, end)
    invert: bool = False
    treat_missing_as_empty: bool = False


@dataclass(frozen=True, slots=True)
class QueryMatch:
    """Envoy ``QueryParameterMatcher``: the first value of the key, not percent-decoded; no `match`: presence."""

    name: str
    match: StringMatch | None = None
    present: bool = True


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """All of it must match."""

    path: PathMatch
    headers: tuple[HeaderMatch, ...] = ()
    query: tuple[QueryMatch, ...] = ()
    fraction: float | None = None  # runtime_fraction, 0..1: the share of requests that may match
    grpc: bool = False


RETRY_CONDITIONS = frozenset(
    {
        # x-envoy-retry-on
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "envoy-ratelimited",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "http3-post-connect-failure",
        # x-envoy-retry-grpc-on
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
        # meshlib's own, docs/decisions/010
        "idempotent-reset",
    }
)
"""Conditions that are understood.  `retriable-headers` is not among them: it needs a field that we do not have."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Envoy ``RetryPolicy``.  `attempts` counts retries, not the first try.  Times in seconds."""

    attempts: int = 1
    retry_on: frozenset[str] = frozenset()  # Envoy's tokens: "connect-failure", "5xx", "unavailable" ...
    status_codes: frozenset[int] = frozenset()  # for the token retriable-status-codes
    per_try_timeout: float = 0.0  # 0: none
    previous_hosts: bool = False  # hosts already tried are avoided
    host_selection_attempts: int = 1  # further picks that may be spent on avoiding them
    previous_priorities: int = 0  # after so many hosts, their priorities are left out (Istio retryRemoteLocalities); 0: never
    base_interval: float = 0.025
    max_interval: float = 0.25


HeaderAction = Literal["append", "add_if_absent", "overwrite", "overwrite_if_exists"]


@dataclass(frozen=True, slots=True)
class HeaderValue:
    """Envoy ``HeaderValueOption``; the name is in lower case.  Without `keep_empty` an empty value adds nothing."""

    name: bytes
    value: bytes
    action: HeaderAction = "append"
    keep_empty: bool = False


@dataclass(frozen=True, slots=True)
class HeaderChanges:
    """What one level (destination, route, virtual host) does to headers, each way; names to remove are in lower case."""

    request_add: tuple[HeaderValue, ...] = ()
    request_remove: tuple[bytes, ...] = ()
    response_add: tuple[HeaderValue, ...] = ()
    response_remove: tuple[bytes, ...] = ()


NO_CHANGES = HeaderChanges()


@dataclass(frozen=True, slots=True)
class WeightedCluster:
    """One share of a split; weights are relative to their sum.  `authority`: replaces the Host header, if not empty."""

    name: str
    weight: int = 1
    headers: HeaderChanges = NO_CHANGES
    authority: str = ""


@dataclass(frozen=True, slots=True)
class Substitution:
    r"""Envoy ``RegexMatchAndSubstitute``: all matches of an RE2 expression; ``\1`` in `replacement` is its first group."""

    pattern: str
    replacement: str


@dataclass(frozen=True, slots=True)
class HashPolicy:
    """One source of the hash by which a call finds its endpoint (Envoy ``RouteAction.HashPolicy``).

    `name`: of the header (lower case), cookie or query parameter.  `ttl` in seconds: a cookie that the request lacks is made,
    and set in the response (0: a session cookie); None: it is not made.  `terminal`: no more policies once there is a hash.
    """

    kind: Literal["header", "cookie", "query", "source_ip"]
    name: str = ""
    ttl: float | None = None
    path: str = ""  # of the cookie
    attributes: tuple[tuple[str, str], ...] = ()  # of the cookie, further ones; those without a value are names alone
    rewrite: Substitution | None = None  # of the header's values, before they are hashed
    terminal: bool = False


@dataclass(frozen=True, slots=True)
class Mirror:
    """Send a copy of this share (0..1) of the calls to a cluster, and forget its answer."""

    cluster: str
    fraction: float = 1.0
    keep_host: bool = False  # False: ``-shadow`` is appended to the host name


@dataclass(frozen=True, slots=True)
class Forward:
    """Send it upstream.  `timeout`: seconds for the whole call with its retries; 0: none.

    `prefix_rewrite` replaces what the route's path condition has matched (all of the path if that is no prefix);
    `regex_rewrite` works on the path without its query; at most one of them.  `authority`: replaces the Host header, if not
    empty.
    """

    clusters: tuple[WeightedCluster, ...]
    timeout: float = 0.0
    retry: RetryPolicy | None = None
    prefix_rewrite: str = ""
    regex_rewrite: Substitution | None = None
    authority: str = ""
    hash_policies: tuple[HashPolicy, ...] = ()
    mirrors: tuple[Mirror, ...] = ()


@dataclass(frozen=True, slots=True)
class DirectResponse:
    """Answer without an upstream."""

    status: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Redirect:
    """Answer with another URL (Envoy ``RedirectAction``).  Empty, and port 0: as requested.

    `path` replaces the path, `prefix_rewrite` what the route's path condition has matched; at most one of them.
    """

    status: int = 301
    scheme: str = ""
    host: str = ""
    port: int = 0
    path: str = ""
    prefix_rewrite: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """Failures made on purpose: first the delay, then the abort, each drawn by itself (Envoy ``HTTPFault``).

    Delay in seconds, fractions 0..1.  `http_status` or `grpc_status` is given if there is an abort.
    """

    delay: float = 0.0
    delay_fraction: float = 0.0
    http_status: int = 0
    grpc_status: int | None = None
    abort_fraction: float = 0.0


@dataclass(frozen=True, slots=True)
class NonForwarding:
    """Only for the server side of grpcio: a client that meets one has no destination."""


Action = Forward | DirectResponse | Redirect | NonForwarding


@dataclass(frozen=True, slots=True)
class Route:
    """First match in list order wins."""

    name: str
    match: RouteMatch
    action: Action
    headers: HeaderChanges = NO_CHANGES
    fault: Fault | None = None
    stat_prefix: str = ""  # by which the operator wants statistics of the route kept apart


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """Routes of some host names.  Domains: exact, ``*.suffix``, ``prefix.*`` or ``*``, lower case."""

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...]
    attempt_count_header: bool = False  # include_request_attempt_count: x-envoy-attempt-count on each attempt
    headers: HeaderChanges = NO_CHANGES
    limits: RateLimits | None = None  # of the calls to these hosts


@dataclass(frozen=True, slots=True)
class RouteConfig:
    """One RDS resource."""

    name: str
    virtual_hosts: tuple[VirtualHost, ...]
    ignore_port: bool = False  # ignore_port_in_host_matching
