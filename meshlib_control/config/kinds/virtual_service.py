"""VirtualService: which requests to a host go where, and how."""
# ruff: noqa: RUF012 - msgspec copies an empty default for every instance

from __future__ import annotations

from typing import ClassVar, Literal

from msgspec import field

from meshlib_control.config.kinds.common import (
    Bytes,
    Destination,
    Duration,
    Element,
    Int32,
    Percent,
    StringMatch,
    UInt32,
)


class HTTPMatchRequest(Element, frozen=True):
    """Conditions on a request. All that are given must hold."""

    name: str | None = None
    """Appended to the route's name."""
    uri: StringMatch | None = None
    """The path, without the query."""
    scheme: StringMatch | None = None
    """`http` or `https`."""
    method: StringMatch | None = None
    """The HTTP method."""
    authority: StringMatch | None = None
    """The Host header or `:authority`."""
    headers: dict[str, StringMatch] = {}
    """Header name, in lower case, to condition; `{}` asks only for its presence."""
    port: UInt32 | None = None
    """The port that the caller addressed."""
    source_labels: dict[str, str] = {}
    """Labels that the calling workload must have."""
    gateways: tuple[str, ...] = ()
    """Where this rule applies, instead of the resource's own `gateways`."""
    query_params: dict[str, StringMatch] = {}
    """Query parameter to condition; the first value of a parameter counts, as it is written in the URL."""
    ignore_uri_case: bool = False
    """Compare `uri.exact` and `uri.prefix` without regard to case."""
    without_headers: dict[str, StringMatch] = {}
    """Headers that must not match: the opposite of `headers`."""
    source_namespace: str | None = None
    """Namespace that the calling workload must be in."""
    stat_prefix: str | None = None
    """A prefix of Envoy's statistics for the route."""


class HeaderOperations(Element, frozen=True):
    """Changes of headers."""

    set: dict[str, str] = {}
    """Overwrite."""
    add: dict[str, str] = {}
    """Append."""
    remove: tuple[str, ...] = ()
    """Drop."""


class Headers(Element, frozen=True):
    """Changes of headers on the way there and back."""

    request: HeaderOperations | None = None
    """On the way to the destination."""
    response: HeaderOperations | None = None
    """On the way back."""


class HTTPRouteDestination(Element, frozen=True):
    """One share of a split."""

    destination: Destination
    """Where this share goes."""
    weight: Int32 = 0
    """Relative to the sum of the weights; a single destination gets everything, 0 among several gets nothing."""
    headers: Headers | None = None
    """Header changes for this destination only."""


class HTTPRedirect(Element, frozen=True):
    """Answer with a redirection instead of forwarding."""

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("port", "derivePort"),)

    uri: str | None = None
    """The new path."""
    prefix_rewrite: str | None = None
    """Replaces the matched prefix of the path."""
    authority: str | None = None
    """The new host."""
    port: UInt32 | None = None
    """The new port."""
    derive_port: Literal["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"] | None = None
    """Where the new port comes from."""
    scheme: str | None = None
    """The new scheme."""
    redirect_code: UInt32 | None = None
    """The status: 301 unless given."""


class HTTPBody(Element, frozen=True):
    """A response body."""

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("string", "bytes"),)

    string: str | None = None
    """As text."""
    bytes: Bytes | None = None
    """As base64."""


class HTTPDirectResponse(Element, frozen=True):
    """Answer with a fixed response instead of forwarding."""

    status: UInt32
    """The status."""
    body: HTTPBody | None = None
    """The body."""


class Delegate(Element, frozen=True):
    """Names the VirtualService that holds the routes."""

    name: str | None = None
    """Its name."""
    namespace: str | None = None
    """Its namespace; this resource's own unless given."""


class RegexRewrite(Element, frozen=True):
    """Replacement of the path by an expression."""

    match: str | None = None
    """An RE2 expression."""
    rewrite: str | None = None
    """The replacement; `\\1` is the first group."""


class HTTPRewrite(Element, frozen=True):
    """Changes of the request line."""

    uri: str | None = None
    """Replaces the matched part of the path."""
    authority: str | None = None
    """Replaces the Host header."""
    uri_regex_rewrite: RegexRewrite | None = None
    """Replaces what an expression matches."""


class HTTPRetry(Element, frozen=True):
    """When and how often a failed attempt is made again. Without it the mesh's default policy holds."""

    attempts: Int32 = 0
    """Retries after the first attempt; 0 switches retries off."""
    per_try_timeout: Duration | None = None
    """Time for each attempt, the first one counted; the route's `timeout` unless given."""
    retry_on: str | None = None
    """Envoy's conditions and HTTP statuses, separated by commas: `5xx`, `connect-failure`, `unavailable`, `503` ..."""
    retry_remote_localities: bool | None = None
    """Whether a retry may leave the locality of the first attempt."""
    retry_ignore_previous_hosts: bool | None = None
    """Whether a retry avoids the endpoints already tried: true unless given."""
    backoff: Duration | None = None
    """The base of the wait between attempts: 25ms unless given; it grows to ten times as much."""


class FaultDelay(Element, frozen=True):
    """Delay requests."""

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("fixedDelay", "exponentialDelay"),)

    percent: Int32 | None = None
    """Superseded by `percentage`."""
    fixed_delay: Duration | None = None
    """How long."""
    exponential_delay: Duration | None = None
    """Not implemented by Istio either."""
    percentage: Percent | None = None
    """Which share of the requests: none unless given."""


class FaultAbort(Element, frozen=True):
    """Answer requests with an error."""

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("httpStatus", "grpcStatus", "http2Error"),)

    http_status: Int32 | None = None
    """An HTTP status."""
    grpc_status: str | None = None
    """A gRPC status by name."""
    http2_error: str | None = field(name="http2Error", default=None)
    """Not implemented by Istio either."""
    percentage: Percent | None = None
    """Which share of the requests: none unless given."""


class HTTPFaultInjection(Element, frozen=True):
    """Failures made on purpose."""

    delay: FaultDelay | None = None
    """Delay requests."""
    abort: FaultAbort | None = None
    """Answer requests with an error."""


class HTTPMirrorPolicy(Element, frozen=True):
    """A copy of the requests to another destination."""

    destination: Destination
    """Where the copies go."""
    percentage: Percent | None = None
    """Which share of the requests: all unless given."""


class CorsPolicy(Element, frozen=True):
    """Cross-origin resource sharing."""

    allow_origin: tuple[str, ...] = ()
    """Superseded by `allowOrigins`."""
    allow_origins: tuple[StringMatch, ...] = ()
    """Origins that are allowed."""
    allow_methods: tuple[str, ...] = ()
    """Methods that are allowed."""
    allow_headers: tuple[str, ...] = ()
    """Headers that are allowed."""
    expose_headers: tuple[str, ...] = ()
    """Headers that a browser may read."""
    max_age: Duration | None = None
    """How long a preflight answer may be kept."""
    allow_credentials: bool | None = None
    """Whether credentials may be sent."""
    unmatched_preflights: Literal["UNSPECIFIED", "FORWARD", "IGNORE"] | None = None
    """What happens to a preflight request that does not match."""


class HTTPRoute(Element, frozen=True):
    """One rule. The first whose `match` holds decides; without `match` it always does."""

    name: str | None = None
    """For logs and metrics."""
    match: tuple[HTTPMatchRequest, ...] = ()
    """Any one of these must hold."""
    route: tuple[HTTPRouteDestination, ...] = ()
    """Where matching requests go, by weight."""
    redirect: HTTPRedirect | None = None
    """Answer with a redirection."""
    direct_response: HTTPDirectResponse | None = None
    """Answer with a fixed response."""
    delegate: Delegate | None = None
    """Take the rules from a VirtualService without hosts, one level deep. They hold within this rule's `match`, and for what
    they do not say this rule holds."""
    rewrite: HTTPRewrite | None = None
    """Change path or host before forwarding."""
    timeout: Duration | None = None
    """Time for the whole call, retries included; none unless given."""
    retries: HTTPRetry | None = None
    """The retry policy."""
    fault: HTTPFaultInjection | None = None
    """Failures made on purpose."""
    mirror: Destination | None = None
    """Where copies of the requests go, whose answers are thrown away."""
    mirror_percent: UInt32 | None = None
    """Superseded by `mirrorPercentage`."""
    mirror_percent_snake: UInt32 | None = field(name="mirror_percent", default=None)
    """An old spelling of `mirrorPercent`."""
    mirror_percentage: Percent | None = None
    """Which share of the requests is copied: all unless given."""
    mirrors: tuple[HTTPMirrorPolicy, ...] = ()
    """Several destinations of copies."""
    cors_policy: CorsPolicy | None = None
    """How browsers on other origins are answered. The workloads of the service do it: preflights before any policy, and never
    by the application."""
    headers: Headers | None = None
    """Header changes for all destinations of the rule."""


class RouteDestination(Element, frozen=True):
    """One share of a split of connections."""

    destination: Destination
    """Where this share goes."""
    weight: Int32 = 0
    """Relative to the sum of the weights."""


class TLSMatchAttributes(Element, frozen=True):
    """Conditions on a TLS connection."""

    sni_hosts: tuple[str, ...]
    """Server names; a wildcard prefix is allowed."""
    destination_subnets: tuple[str, ...] = ()
    """Networks of the destination address."""
    port: UInt32 | None = None
    """The port that the caller addressed."""
    source_labels: dict[str, str] = {}
    """Labels that the calling workload must have."""
    gateways: tuple[str, ...] = ()
    """Where this rule applies."""
    source_namespace: str | None = None
    """Namespace that the calling workload must be in."""


class TLSRoute(Element, frozen=True):
    """One rule for TLS connections that are passed through."""

    match: tuple[TLSMatchAttributes, ...]
    """Any one of these must hold."""
    route: tuple[RouteDestination, ...] = ()
    """Where matching connections go."""


class L4MatchAttributes(Element, frozen=True):
    """Conditions on a TCP connection."""

    destination_subnets: tuple[str, ...] = ()
    """Networks of the destination address."""
    port: UInt32 | None = None
    """The port that the caller addressed."""
    source_subnet: str | None = None
    """Network of the caller."""
    source_labels: dict[str, str] = {}
    """Labels that the calling workload must have."""
    gateways: tuple[str, ...] = ()
    """Where this rule applies."""
    source_namespace: str | None = None
    """Namespace that the calling workload must be in."""


class TCPRoute(Element, frozen=True):
    """One rule for TCP connections."""

    match: tuple[L4MatchAttributes, ...] = ()
    """Any one of these must hold."""
    route: tuple[RouteDestination, ...] = ()
    """Where matching connections go."""


class VirtualService(Element, frozen=True):
    """Which requests to a host go where, and how."""

    hosts: tuple[str, ...] = ()
    """The hosts that callers address: names of the catalog, `*.suffix` or addresses. A short name is completed with the
    namespace."""
    gateways: tuple[str, ...] = ()
    """Where the rules apply: `mesh`, which is also the default, means the calling processes."""
    http: tuple[HTTPRoute, ...] = ()
    """Rules in order; the first that matches decides."""
    tls: tuple[TLSRoute, ...] = ()
    """Rules for TLS connections that are passed through."""
    tcp: tuple[TCPRoute, ...] = ()
    """Rules for TCP connections."""
    export_to: tuple[str, ...] = ()
    """Namespaces that see the resource: `.` its own, `*` all; the mesh's default unless given."""
