"""The documents of the REST API.  The service encodes these, meshctl decodes them: one definition for both.

Only ever add fields, with defaults: an older meshctl ignores what it does not know, a newer one fills in what is missing.
Times are RFC 3339 in UTC; durations are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

Document = dict[str, Any]
"""A resource as its author wrote it."""

Action = Literal["created", "configured", "unchanged", "deleted"]
SyncState = Literal["SYNCED", "STALE", "NACK", "NOT SENT"]


class File(Struct, frozen=True):
    name: str
    text: str


class Files(Struct, frozen=True):
    """The body of apply, diff and analyze."""

    files: list[File]
    namespace: str = "default"  # of resources that name none
    message: str = ""  # for the history
    author: str = ""


class FindingView(Struct, frozen=True):
    code: str
    severity: str
    resource: str
    field: str
    file: str
    line: int
    message: str


class Change(Struct, frozen=True):
    resource: str  # "VirtualService/default/reviews"
    action: Action
    before: Document | None = None
    after: Document | None = None


class Applied(Struct, frozen=True):
    """`revision`: the head afterwards; the same as before when nothing changed or `dry_run`."""

    revision: int
    dry_run: bool
    changes: list[Change]
    findings: list[FindingView]


class Item(Struct, frozen=True):
    resource: str
    document: Document
    source: Literal["store", "file"] = "store"
    file: str = ""  # of source "file"


class Listing(Struct, frozen=True):
    revision: int
    items: list[Item]


class RevisionView(Struct, frozen=True):
    """`rolled_back_to`: the revision whose content this one has again; 0 for others."""

    revision: int
    time: str
    author: str
    message: str
    resources: int
    added: int
    changed: int
    removed: int
    rolled_back_to: int = 0


class History(Struct, frozen=True):
    head: int
    items: list[RevisionView]


class Difference(Struct, frozen=True):
    """`to` 0: the files that were sent."""

    since: int
    to: int
    changes: list[Change]
    findings: list[FindingView] = []


class Findings(Struct, frozen=True):
    findings: list[FindingView]


class TypeSync(Struct, frozen=True):
    """What one client has of one type of resources."""

    state: SyncState
    sent: str = ""  # version
    acked: str = ""
    error: str = ""  # the client's own words when it refused


class ClientView(Struct, frozen=True):
    id: str
    flavour: str
    service: str
    namespace: str
    connected_since: str
    types: dict[str, TypeSync]  # LDS, RDS, CDS, EDS
    address: str = ""


class ControlView(Struct, frozen=True):
    version: str
    started: str
    xds: str
    admin: str
    store: str
    revision: int  # that is being served
    mesh_domain: str
    insecure_dev: bool = False
    ca: str = ""  # empty: a service without identities
    trust_domain: str = ""


class SharedLimitView(Struct, frozen=True):
    """A global rate limit or quota that processes report on to this replica."""

    policy: str  # "default/reviews"
    limit: str
    buckets: int
    processes: int


class Status(Struct, frozen=True):
    """`problems`: what an operator should look at, in words; empty when all is well."""

    control: ControlView
    clients: list[ClientView]
    problems: list[str]
    suspicious: dict[str, str] = {}
    shared_limits: list[SharedLimitView] = []


class PortView(Struct, frozen=True):
    number: int
    protocol: str
    name: str = ""


class ServiceView(Struct, frozen=True):
    host: str
    namespace: str
    ports: list[PortView]
    resolution: str
    location: str
    source: str
    healthy: int
    instances: int
    suspicious: str = ""


class Services(Struct, frozen=True):
    services: list[ServiceView]


class EndpointView(Struct, frozen=True):
    host: str
    id: str
    address: str
    port: int
    health: str
    weight: int
    locality: str = ""
    labels: Mapping[str, str] = {}
    service_account: str = ""
    priority: int = 0  # for one caller: 0 is used as long as enough of its endpoints are healthy
    callers: int = 0  # processes that call its service, as far as this control service knows
    reported: list[EndpointStateView] = []  # what they have found out about it; empty: nothing bad


class EndpointStateView(Struct, frozen=True):
    """What some callers say of an endpoint."""

    state: str  # "ejected", "failed check", "refusing"
    reason: str
    callers: int  # how many say so
    left: float  # seconds, of the caller that it lasts longest for; 0: nobody knows
    by: list[str]  # some of them, by identity and instance


class ClusterStateView(Struct, frozen=True):
    """How those callers stand that have something to tell of a cluster.  Counts are sums over them, of all time."""

    name: str  # "outbound|80|v1|reviews.default.svc.cluster.local"
    host: str
    port: int
    subset: str
    callers: int
    reporters: int  # how many have told something
    circuit_breaker: dict[str, int] = {}  # state -> how many callers
    circuit_breaker_left: float = 0.0  # seconds until the last of them lets probes through
    circuit_breaker_rejected: int = 0
    concurrency_limits: list[int] = []  # the smallest and the largest; empty: there are none
    concurrency_rejected: int = 0
    active_requests: int = 0
    active_retries: int = 0
    allowed_retries: int = 0  # by their retry budgets, now
    retries: int = 0
    retry_overflow: int = 0
    pending_overflow: int = 0
    hedges: int = 0
    hedges_refused: int = 0


class LimitStateView(Struct, frozen=True):
    """A rate limit that has refused something lately; sums over the processes that have told of it."""

    id: str  # "namespace/policy/limit"
    side: str  # "client", "server"
    processes: int
    allowed: int
    limited: int
    would_limit: int


class Endpoints(Struct, frozen=True):
    endpoints: list[EndpointView]
    clusters: list[ClusterStateView] = []
    limits: list[LimitStateView] = []
    notes: list[str] = []  # what the document does not show


class RouteView(Struct, frozen=True):
    service: str  # "reviews.default.svc.cluster.local:9080"
    virtual_host: str
    name: str
    match: str
    action: str  # "v1 90 %, v2 10 %"
    timeout: str = ""
    retries: str = ""


class Routes(Struct, frozen=True):
    routes: list[RouteView]


class NodeView(Struct, frozen=True, forbid_unknown_fields=True):
    """A client, as `--node NODE.json` has it."""

    id: str = ""
    flavour: Literal["meshlib", "envoy", "grpc"] = "meshlib"
    service: str = ""
    namespace: str = "default"
    service_account: str = "default"
    labels: dict[str, str] = {}
    locality: str = ""
    # What it serves: 9080; for Envoy, which stands before the application, "9080:8080" with the application's port.
    ports: tuple[int | str, ...] = ()
    identity_file: str = ""  # of Envoy: its SDS file with the certificate and key
    group: str = ""  # the WorkloadGroup that it has joined

    def __post_init__(self) -> None:
        if self.ports:
            from meshlib_control.compile.node import ServedPort

            for port in self.ports:
                ServedPort.parse(str(port))


class RoutesRequest(Struct, frozen=True):
    """`service` "": every service that the node may call."""

    service: str = ""
    node: NodeView = NodeView()


class CompileRequest(Struct, frozen=True):
    node: NodeView


class Compiled(Struct, frozen=True):
    resources: list[Document]


class ExplainRequest(Struct, frozen=True):
    url: str
    method: str = "GET"
    headers: list[tuple[str, str]] = []
    node: NodeView = NodeView()


class RouteTried(Struct, frozen=True):
    name: str
    matched: bool
    reason: str


class ClusterShare(Struct, frozen=True):
    """A cluster that the route may choose; `error`: why it cannot be used.

    `placed`: ``address:port`` that the hash of the request leads to; empty: it has none, or it is for dice to decide.
    """

    name: str
    percent: float
    endpoints: list[EndpointView]
    error: str = ""
    placed: str = ""


class ExplanationView(Struct, frozen=True):
    """What a request would go through; `outside`: left to the caller's own client library, `blocked`: refused by policy."""

    authority: str
    outcome: Literal["forward", "direct_response", "no_route", "outside", "blocked", "unknown"]
    detail: str = ""
    virtual_host: str = ""
    route: str = ""
    routes: list[RouteTried] = []
    clusters: list[ClusterShare] = []
    timeout: float = 0.0
    retries: int = 0
    retry_on: list[str] = []
    per_try_timeout: float = 0.0
    status: int = 0  # of a direct response


class AuthorizeRequest(Struct, frozen=True):
    """May this request be served?  `source`: the caller's SPIFFE ID; empty: it proves none, the connection is plaintext.

    `claims`: of a token that is taken for verified.  `labels`: of the workload, instead of those that its instances have.
    """

    service: str
    port: int = 0  # of the service; 0: its only one
    namespace: str = "default"  # that short names of services are of
    method: str = "GET"
    path: str = "/"
    headers: list[tuple[str, str]] = []
    source: str = ""
    source_address: str = ""
    server_name: str = ""
    claims: dict[str, Any] | None = None
    labels: dict[str, str] | None = None


class RuleTried(Struct, frozen=True):
    """A rule of a policy.  `reason`: what it asks for that the request does not have, or what made it match."""

    policy: str  # "AuthorizationPolicy/foo/httpbin"
    rule: int
    matched: bool
    reason: str
    dry_run: bool = False


class AuthorizationStep(Struct, frozen=True):
    action: str  # CUSTOM, JWT, AUDIT, DENY, ALLOW
    outcome: Literal["passed", "allowed", "denied", "asked"]
    detail: str = ""
    rules: list[RuleTried] = []


class WorkloadVerdict(Struct, frozen=True):
    """For instances of a service that all the same policies hold for.

    `asked`: an external authorizer decides.  `not_for_it`: policies that could have been about it, and select others.
    """

    port: int
    mtls: str
    outcome: Literal["allowed", "denied", "asked"]
    reason: str
    policy: str = ""  # that decided
    rule: int = -1
    status: int = 0  # of the refusal
    labels: dict[str, str] = {}
    instances: list[str] = []  # "10.0.0.1:9080"
    steps: list[AuthorizationStep] = []
    not_for_it: list[str] = []
    notes: list[str] = []


class AuthorizationView(Struct, frozen=True):
    """`outcome`: the worst of those of the workloads.  `path` and `host` as policies see them."""

    service: str
    outcome: Literal["allowed", "denied", "asked"]
    workloads: list[WorkloadVerdict]
    path: str = ""
    host: str = ""


class DeleteRequest(Struct, frozen=True):
    """`force`: even if what refers to these becomes invalid."""

    resources: list[str]
    message: str = ""
    author: str = ""
    force: bool = False


class RollbackRequest(Struct, frozen=True):
    revision: int
    message: str = ""
    author: str = ""


class CodeView(Struct, frozen=True):
    """A finding's code: what it means and what to do.  `refuses`: a resource with such an error is not stored."""

    code: str
    severity: str
    title: str
    meaning: str
    action: str
    refuses: bool
