"""One request being served, as the server's flow sees it, and what travels from it to the calls made for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshlib.model.call import Headers
from meshlib.model.identity import Peer


@dataclass(frozen=True, slots=True, eq=False)
class Connection:
    """What is known of a connection that requests arrive on; made once per connection.

    `peer` is set only when the peer's SVID was verified in the handshake: a TLS connection without one has none.
    """

    remote_address: str = ""  # IP address of the socket's other end; never from a header
    local_address: str = ""
    local_port: int = 0
    tls: bool = False
    peer: Peer | None = None
    server_name: str = ""  # SNI


UNKNOWN_CONNECTION = Connection()
"""For servers that tell nothing: no peer, no addresses."""


class ServerRequest:
    """The raw request, the same from every server: nothing decoded, nothing merged.

    ``target`` is the request target as on the wire; ``headers`` are raw pairs with lower-case names, repeated ones repeated.
    ``fields`` has the last value of each name, for the headers that may be there only once.  ``joined``: the server made one
    line of repeated headers, with commas (WSGI has no other way).  ``grpc``: a call of gRPC's, with its metadata as
    headers: the server does not tell what host was named, so there is none, and names may have ``_``.
    """

    __slots__ = ("connection", "fields", "grpc", "headers", "http_version", "joined", "method", "target")

    def __init__(
        self,
        method: str,
        target: bytes,
        headers: Headers,
        *,
        http_version: str = "1.1",
        connection: Connection = UNKNOWN_CONNECTION,
        joined: bool = False,
        grpc: bool = False,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.fields = dict(headers)
        self.http_version = http_version
        self.connection = connection
        self.joined = joined
        self.grpc = grpc

    def with_headers(self, headers: Headers) -> ServerRequest:
        """The same request with other headers."""
        return ServerRequest(
            self.method,
            self.target,
            headers,
            http_version=self.http_version,
            connection=self.connection,
            joined=self.joined,
            grpc=self.grpc,
        )


@dataclass(frozen=True, slots=True)
class Readings:
    """How else somebody could read a path, for the few requests that leave room for it: a policy must not be evaded by writing
    the same path in another way.  See `meshlib.policy.readings` for who has to hold for which.
    """

    paths: tuple[str, ...]  # encoded slashes and backslashes as slashes, runs of slashes as one; dot segments resolved
    decoded: str  # the last of them with everything decoded once, byte for character (Latin-1)


@dataclass(slots=True, init=False)  # by hand, which takes two thirds of the time: one is made for every request
class Inspection:
    """A request on its way through the inbound filters: the one canonical view, which routing, policies, limits, telemetry
    and the application share, and what the filters have found out.

    `path` is canonical and without query; `authority` is the host in lower case, without port and without a trailing dot,
    `host` the same with its port, if any, as policies of Istio see it (``:authority``).  Both are empty if nobody knows.

    `request` has the headers that count: those that nobody outside may set (``x-forwarded-client-cert`` ...) are gone from it,
    and `header_changes` takes them from the application, too.
    """

    request: ServerRequest
    path: str
    query: str  # as on the wire, without "?"
    authority: str
    host: str
    target: bytes  # what the application gets: canonical path and query
    readings: Readings | None  # None: there is one way to read the path
    # The client, as trusted hops have forwarded it; empty: none is trusted, and the connection's other end is the client.
    remote_address: str
    # Envoy's dynamic metadata: "envoy.filters.http.jwt_authn" -> {"payload": {...claims}}, ...
    metadata: dict[str, dict[str, Any]]
    # Changes of the headers for the application: lower-case name -> value; None removes it.  Applied after all filters.
    header_changes: dict[bytes, bytes | None]
    # Headers for the client, whatever the application answers.
    response_headers: list[tuple[bytes, bytes]]
    # The same for headers that take the place of the application's own of that name; None: there are none.
    response_set: dict[bytes, bytes] | None
    # For the log and for `explain`: "policy ns[foo]-policy[x]-rule[0] would deny (dry run)".
    notes: list[str]

    def __init__(
        self,
        request: ServerRequest,
        path: str,
        query: str,
        authority: str,
        host: str,
        target: bytes,
        readings: Readings | None = None,
    ) -> None:
        self.request = request
        self.path = path
        self.query = query
        self.authority = authority
        self.host = host
        self.target = target
        self.readings = readings
        self.remote_address = ""
        self.metadata = {}
        self.header_changes = {}
        self.response_headers = []
        self.response_set = None
        self.notes = []

    @property
    def claims(self) -> Mapping[str, Any] | None:
        """Claims of the verified token, if there was one."""
        found: Mapping[str, Any] | None = self.metadata.get("envoy.filters.http.jwt_authn", {}).get("payload")
        return found


@dataclass(frozen=True, slots=True)
class TraceContext:
    """W3C trace context of the request being served."""

    trace_id: str  # 32 hex digits
    span_id: str  # 16 hex digits
    flags: str = "00"  # "01": sampled


class RequestContext:
    """What a request hands on to every call that is made while it is served, in tasks and threads alike.

    ``deadline`` is on the monotonic clock of this process; None: nobody set one.
    """

    __slots__ = ("attempt", "claims", "deadline", "forwarded", "path", "peer", "retried", "trace")

    def __init__(
        self,
        deadline: float | None = None,
        attempt: int = 1,
        trace: TraceContext | None = None,
        forwarded: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        self.deadline = deadline
        self.attempt = attempt  # above 1: the caller is retrying
        self.trace = trace
        self.forwarded = forwarded  # other context headers (tracestate, baggage, x-request-id, B3 ...), passed on unchanged
        self.peer: Peer | None = None  # who sent the request, proved by its certificate; None: nobody proved anything
        self.claims: Mapping[str, Any] | None = None  # of the verified token; None: there was none
        self.path = ""  # canonical: what policies have looked at
        self.retried = False  # a call made meanwhile failed, after all the retries that it may have

    def remaining(self, now: float) -> float | None:
        """Seconds left; never below zero; None without a deadline."""
        return None if self.deadline is None else max(self.deadline - now, 0.0)

    def __repr__(self) -> str:
        return f"<RequestContext deadline={self.deadline} attempt={self.attempt} trace={self.trace}>"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a request that never reaches the application."""

    status: int
    reason: str  # for logs and metrics: "missing_host_header"; spaces are underscores, as in Envoy's response code details
    body: bytes = b""
    close: bool = True  # what cannot be read safely ends its connection
    headers: tuple[tuple[bytes, bytes], ...] = ()  # beside content-type and content-length
    flag: str = ""  # Envoy's response flag: "UAEX", "RL" ...
    policy: str = ""  # which rule of which policy decided; for logs, never for the client
    denial: bool = True  # False: an answer of the mesh's own to a request that nobody has denied anything
