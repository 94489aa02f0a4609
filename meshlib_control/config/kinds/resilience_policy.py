"""ResiliencePolicy: what calls to a service may cost when it does badly, and what a workload does when it is asked too much."""
# ruff: noqa: RUF012 - msgspec copies an empty default for every instance

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from meshlib_control.config.kinds.common import Bytes, Duration, DurationOrZero, Element, StringMatch, UInt32
from meshlib_control.config.kinds.destination_rule import WorkloadSelector

Share = Annotated[float, Meta(ge=0, le=100)]
Threshold = Annotated[float, Meta(ge=1, le=100)]
StdevFactor = Annotated[float, Meta(ge=0, le=100)]
Positive = Annotated[int, Meta(ge=1, le=1_000_000)]
Urgency = Annotated[int, Meta(ge=0, le=7)]


class RetryConcurrencyBudget(Element, frozen=True):
    """Retries as a share of the requests under way, of one process to one cluster; replaces that of a DestinationRule."""

    percent: Share = 20.0
    """The share of the requests under way that may be retries."""
    min_retry_concurrency: UInt32 = 3
    """As many retries are always allowed at the same time."""


class Hedging(Element, frozen=True):
    """A second request when the first takes long; the first answer counts. Only idempotent requests are hedged."""

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("delay", "percentile"),)

    delay: Duration | None = None
    """How long to wait for an answer before another request is sent."""
    percentile: Threshold | None = None
    """The wait is as long as this percentage of recent answers took at most: 95."""
    max_requests: Annotated[int, Meta(ge=2, le=5)] = 2
    """Requests at the same time for one call, the first included."""
    budget_percent: Share = 10.0
    """The share of all requests that may be additional ones."""


class CircuitBreaker(Element, frozen=True):
    """Stops calling a service that fails, and tries again with a few calls; of one process to one cluster. Failures are
    statuses from 500, broken connections and timeouts.
    """

    failure_percent: Threshold = 50.0
    """Opens when at least this share of the calls in the window failed."""
    min_requests: Positive = 20
    """Fewer calls in the window decide nothing."""
    window: Duration = 10.0
    """The time that is looked at."""
    open_duration: Duration = 5.0
    """How long it stays open the first time; each time that its probes fail it is twice as long."""
    max_open_duration: Duration = 60.0
    """The longest time that it stays open."""
    half_open_requests: Annotated[int, Meta(ge=1, le=100)] = 3
    """Calls that are let through as probes; it closes when all of them succeed."""


class _Ejection(Element, frozen=True):
    """What ejections by rate share."""

    min_hosts: UInt32 = 5
    """Fewer endpoints with enough requests are not judged."""
    interval: Duration = 10.0
    """Time between judgements."""
    base_ejection_time: Duration = 30.0
    """How long an endpoint is left out, times how often it was."""
    max_ejection_percent: Annotated[int, Meta(ge=0, le=100)] = 10
    """Largest share of the endpoints that may be left out; one always may, unless this is 0."""


class FailureRateEjection(_Ejection, frozen=True):
    """Endpoints that fail a share of their requests are left out for a while (Envoy's failure percentage)."""

    threshold: Threshold = 85.0
    """The share of failed requests, in percent."""
    request_volume: UInt32 = 50
    """Requests in an interval that an endpoint needs to be judged."""


class SuccessRateEjection(_Ejection, frozen=True):
    """Endpoints that do worse than the others are left out for a while (Envoy's success rate)."""

    stdev_factor: StdevFactor = 1.9
    """Below the mean by this many standard deviations is too bad."""
    request_volume: UInt32 = 100
    """Requests in an interval that an endpoint needs to be judged."""


class ProbePayload(Element, frozen=True):
    """Bytes that a health check sends or expects."""

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("string", "bytes"),)

    string: str | None = None
    """As text."""
    bytes: Bytes | None = None
    """As base64."""


class HTTPProbe(Element, frozen=True):
    """A GET that has to be answered as expected."""

    path: str
    """The path, with a query if need be."""
    host: str | None = None
    """The Host header: the service's host unless given."""
    expected_statuses: tuple[str, ...] = ("200",)
    """Statuses that are healthy: `"204"`, or a range as `"200-399"`."""
    headers: dict[str, str] = {}
    """Headers of the request."""


class TCPProbe(Element, frozen=True):
    """A connection, and bytes over it."""

    send: ProbePayload | None = None
    """What is sent; without it a connection is enough."""
    receive: tuple[ProbePayload, ...] = ()
    """What has to come, in this order, whatever is between."""


class GRPCProbe(Element, frozen=True):
    """`grpc.health.v1.Health/Check`."""

    service: str = ""
    """The name that is asked for; empty: the server as a whole."""
    authority: str = ""
    """The `:authority`: the service's host unless given."""


class HealthCheck(Element, frozen=True):
    """Asks every endpoint how it is, from each process that calls the service. One of `http`, `tcp` and `grpc`."""

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("http", "tcp", "grpc"),)

    http: HTTPProbe | None = None
    """By HTTP/1.1."""
    tcp: TCPProbe | None = None
    """By TCP."""
    grpc: GRPCProbe | None = None
    """By gRPC; of ports whose protocol is `GRPC` or `HTTP2`, others are not checked then."""
    interval: Duration = 10.0
    """Time between checks of one endpoint."""
    timeout: Duration = 1.0
    """Time for an answer."""
    unhealthy_threshold: Positive = 3
    """Failures in a row until it is left out."""
    healthy_threshold: Positive = 2
    """Successes in a row until it is used again."""
    port: UInt32 | None = None
    """Another port of the endpoint."""
    interval_jitter: DurationOrZero = 0.0
    """A random part on top of each interval."""
    no_traffic_interval: Duration = 60.0
    """Time between checks as long as the process does not call the service."""


class MinimumRTT(Element, frozen=True):
    """The latency without a queue, which all others are compared with. It is measured from time to time."""

    interval: DurationOrZero = 60.0
    """Time between measurements."""
    fixed_value: Duration | None = None
    """Never measured, but given."""
    request_count: Positive = 50
    """Requests of one measurement."""
    jitter: Share = 15.0
    """A random part on top of the interval, in percent."""
    min_concurrency: Positive = 3
    """Requests at the same time while it is measured, and the smallest limit."""
    buffer: Share = 25.0
    """Latency above the minimum, in percent, that is still fine."""


class AdaptiveConcurrency(Element, frozen=True):
    """A limit of requests at the same time that follows the latency (Envoy's gradient controller)."""

    sample_aggregate_percentile: Threshold = 50.0
    """The percentile of the latencies that counts."""
    max_concurrency_limit: Positive = 1000
    """The largest limit."""
    concurrency_update_interval: Duration = 0.1
    """Time between changes of the limit."""
    min_rtt: MinimumRTT = MinimumRTT()
    """The latency without a queue."""


class LoadSheddingMatch(Element, frozen=True):
    """Conditions on a request. All that are given must hold."""

    uri: StringMatch | None = None
    """The path, without the query."""
    method: StringMatch | None = None
    """The HTTP method."""
    headers: dict[str, StringMatch] = {}
    """Header name to condition. Anybody can send any header: give principals or namespaces too where it matters."""
    principals: tuple[str, ...] = ()
    """Verified identities of the caller: `cluster.local/ns/default/sa/productpage`, without `spiffe://`; a `*` may be its
    start or end. Needs mutual TLS."""
    namespaces: tuple[str, ...] = ()
    """Namespaces of the caller's verified identity; a `*` may be its start or end. Needs mutual TLS."""


class PriorityRule(Element, frozen=True):
    """How urgent certain requests are."""

    urgency: Urgency
    """From 0, the most urgent, to 7 (RFC 9218)."""
    match: tuple[LoadSheddingMatch, ...] = ()
    """Any one of these must hold; none: all requests."""


class PriorityClaims(Element, frozen=True):
    """Whose word counts when the `priority` header asks for more urgency than the rules give. Anybody may ask for less."""

    principals: tuple[str, ...] = ()
    """Verified identities: `cluster.local/ns/default/sa/productpage`; a `*` may be its start or end. Needs mutual TLS."""
    namespaces: tuple[str, ...] = ()
    """Namespaces of the verified identity; a `*` may be its start or end. Needs mutual TLS."""


class LoadShedding(Element, frozen=True):
    """What a workload refuses when it has too much to do: the less urgent first, with 503 and `retry-after`."""

    max_concurrency: Positive | None = None
    """Requests at the same time. With `adaptiveConcurrency` the smaller of the two limits holds."""
    priorities: tuple[PriorityRule, ...] = ()
    """The first rule that matches decides; a request that none matches has urgency 3."""
    trusted_claims: PriorityClaims | None = None
    """Who may claim more urgency with the `priority` header: nobody unless given."""
    retry_after: Duration = 1.0
    """What refused callers are told to wait, in whole seconds."""


class ResiliencePolicy(Element, frozen=True):
    """What holds for calls to a service (`host`), or for requests that workloads serve (`selector`)."""

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("host", "selector"),)

    host: str | None = None
    """Calls to this service. A short name is completed with the namespace; no wildcards."""
    selector: WorkloadSelector | None = None
    """Requests that these workloads of the namespace serve."""
    export_to: tuple[str, ...] = ()
    """With `host`: namespaces whose calls it holds for: `.` its own, `*` all; as for
    DestinationRules unless given."""
    timeout: Duration | None = None
    """Time for a call, retries included. The route's holds where it is shorter."""
    per_try_timeout: Duration | None = None
    """Time for one try. The route's holds where it is shorter."""
    retry_budget: RetryConcurrencyBudget | None = None
    """Limits retries: 20 % and at least 3 hold without it, too."""
    hedging: Hedging | None = None
    """A second request when the first takes long."""
    circuit_breaker: CircuitBreaker | None = None
    """Stops calling a service that fails."""
    failure_rate_ejection: FailureRateEjection | None = None
    """Leaves out endpoints that fail."""
    success_rate_ejection: SuccessRateEjection | None = None
    """Leaves out endpoints that do worse than the others."""
    health_checks: Annotated[tuple[HealthCheck, ...], Meta(max_length=1)] = ()
    """Asks every endpoint how it is, and leaves out those that do badly. One check, as in Envoy."""
    adaptive_concurrency: AdaptiveConcurrency | None = None
    """A limit of requests at the same time that follows the latency."""
    load_shedding: LoadShedding | None = None
    """With `selector`: what is refused when there is too much to do."""
