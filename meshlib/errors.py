"""Every error that meshlib raises.  Blame is in the type.

::

    MeshError
    ├── ConfigError                  the code or environment that built a Mesh gave something wrong
    ├── ControlError                 the control service: unreachable, or it refused what we asked
    │   └── NotReady                 nothing usable has come from it in the time that the caller waits
    ├── CallError                    one call failed; carries authority, route, cluster, endpoint, attempts, flag
    │   ├── RouteError               the mesh's configuration gives this call no destination
    │   │   ├── RouteNotFound            NR   no route matches the request
    │   │   ├── ClusterNotFound          NC   the route names a cluster that does not exist
    │   │   ├── OutboundBlocked          BH   the host is outside of the mesh, and policy is REGISTRY_ONLY
    │   │   └── TargetUnknown            NC   never resolved: control service gone or silent, and no cached answer
    │   ├── UpstreamError            the other side, or the way to it
    │   │   ├── NoHealthyUpstream        UH   no endpoint to send to
    │   │   ├── ConnectFailed            UF   no connection was made: the request was never sent
    │   │   │   ├── ConnectTimeout       UF   ... in time
    │   │   │   └── TlsFailed            UF   ... that both sides trust
    │   │   ├── ConnectionTerminated     UC   the connection ended before the response did
    │   │   └── UpstreamProtocolError    UPE  bytes that are not HTTP/1.1, or a body cut short
    │   ├── RateLimited              RL   a rate limit of the destination is reached; nothing was sent
    │   ├── TimeoutExceeded          UT   a timeout or deadline passed; `which` names it
    │   └── Overflow                 UO   a limit of this process: connections, pending or concurrent requests
    │       ├── PoolTimeout          UO   ... and no connection became free in time
    │       ├── CircuitOpen          UO   too much of what was sent there lately has failed
    │       └── ConcurrencyLimited   UO   as many requests as the destination can take are under way
    └── RequestError                 what the caller asked for cannot be sent (bad header, method, URL, body length)

``flag`` is Envoy's response flag (access log ``%RESPONSE_FLAGS%``).
"""

from __future__ import annotations

from typing import Any, Literal

__all__ = [
    "CallError",
    "CircuitOpen",
    "ClusterNotFound",
    "ConcurrencyLimited",
    "ConfigError",
    "ConnectFailed",
    "ConnectTimeout",
    "ConnectionTerminated",
    "ControlError",
    "MeshError",
    "NoHealthyUpstream",
    "NotReady",
    "OutboundBlocked",
    "Overflow",
    "PoolTimeout",
    "RateLimited",
    "RequestError",
    "RouteError",
    "RouteNotFound",
    "TargetUnknown",
    "TimeoutExceeded",
    "TimeoutName",
    "TlsFailed",
    "UpstreamError",
    "UpstreamProtocolError",
]

TimeoutName = Literal["connect", "read", "write", "pool", "total", "route", "per_try", "deadline"]
"""Which timeout passed.  connect, read, write, pool and total are the caller's own; route and per_try are the operator's
(VirtualService ``timeout``, ``retries.perTryTimeout``); deadline came with the request that is being served."""


class MeshError(Exception):
    """Root of everything that meshlib raises on purpose."""


class ConfigError(MeshError):
    """A wrong argument or environment variable; says which, and what was expected."""


class ControlError(MeshError):
    """The control service cannot be reached, or refused."""


class NotReady(ControlError):
    """No usable configuration arrived in the time that the caller was ready to wait."""


class RequestError(MeshError):
    """The caller's request cannot be put on the wire as it is.  Nothing was sent."""


class CallError(MeshError):
    """One call failed.

    Every field but ``flag`` may be empty: a call can fail before it has a route or an endpoint.
    """

    flag = "-"

    def __init__(
        self,
        message: str,
        *,
        authority: str = "",
        route: str = "",
        cluster: str = "",
        endpoint: str = "",
        attempts: int = 0,
        flags: tuple[str, ...] = (),
        **more: Any,
    ) -> None:
        # `more` lets an integration mix this class with its client's own error: httpx errors take `request=`.
        super().__init__(message, **more)
        self.message = message
        self.authority = authority  # "reviews:80", as called
        self.route = route  # name of the route that matched
        self.cluster = cluster  # "outbound|80|v1|reviews.default.svc.cluster.local"
        self.endpoint = endpoint  # "10.0.0.7:9080", the last one tried
        self.attempts = attempts  # requests that were started, the first one counted
        self.flags = flags or (self.flag,)  # Envoy's response flags in the order they were set

    def __str__(self) -> str:
        where = [
            f"{name}={value}"
            for name, value in (
                ("authority", self.authority),
                ("route", self.route),
                ("cluster", self.cluster),
                ("endpoint", self.endpoint),
                ("attempts", self.attempts),
                ("flags", ",".join(self.flags)),
            )
            if value
        ]
        return f"{self.message} [{' '.join(where)}]"


class RouteError(CallError):
    """The configuration gives this call no destination."""


class RouteNotFound(RouteError):
    """No virtual host or route matches."""

    flag = "NR"


class ClusterNotFound(RouteError):
    """The route's cluster does not exist."""

    flag = "NC"


class OutboundBlocked(RouteError):
    """The host is not part of the mesh, and ``outboundTrafficPolicy`` is REGISTRY_ONLY."""

    flag = "BH"


class TargetUnknown(RouteError):
    """Nothing is known of this host, and the control service cannot be asked."""

    flag = "NC"


class UpstreamError(CallError):
    """The destination, or the way to it, failed."""


class NoHealthyUpstream(UpstreamError):
    """There is no endpoint to send to."""

    flag = "UH"


class ConnectFailed(UpstreamError):
    """No connection could be made.  The request was not sent."""

    flag = "UF"


class ConnectTimeout(ConnectFailed):
    """No connection could be made in time.  The request was not sent."""


class TlsFailed(ConnectFailed):
    """No connection that both sides trust could be made: who was there, or who we are, was not proved.

    The request was not processed.
    """


class ConnectionTerminated(UpstreamError):
    """The connection ended before the response was complete."""

    flag = "UC"


class UpstreamProtocolError(UpstreamError):
    """What came back is not HTTP/1.1, or ended before its announced length."""

    flag = "UPE"


class TimeoutExceeded(CallError):
    """A timeout passed; `which` says whose, `seconds` how long it was."""

    flag = "UT"

    # A default for `which`, because pickle makes the copy from the message alone and fills the rest in later.
    def __init__(self, message: str, *, which: TimeoutName = "total", seconds: float = 0.0, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.which = which
        self.seconds = seconds


class Overflow(CallError):
    """A connection or request limit of this process (DestinationRule ``connectionPool``) is reached."""

    flag = "UO"


class PoolTimeout(Overflow):
    """No connection became free within the caller's pool timeout."""


class RateLimited(CallError):
    """A rate limit of the destination (RateLimitPolicy) is reached.  Nothing was sent.

    `limit`: ``namespace/policy/limit``; `retry_after`: seconds until there is room again; `headers`: what a response with
    status 429 would tell (``retry-after``, ``ratelimit``, ``ratelimit-policy``).
    """

    flag = "RL"

    def __init__(
        self,
        message: str,
        *,
        limit: str = "",
        retry_after: float = 0.0,
        headers: tuple[tuple[str, str], ...] = (),
        **fields: Any,
    ) -> None:
        super().__init__(message, **fields)
        self.limit = limit
        self.retry_after = retry_after
        self.headers = headers


class CircuitOpen(Overflow):
    """The circuit breaker of the destination is open (ResiliencePolicy ``circuitBreaker``).  Nothing was sent.

    `retry_after`: seconds until it lets somebody through again.
    """

    def __init__(self, message: str, *, retry_after: float = 0.0, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.retry_after = retry_after


class ConcurrencyLimited(Overflow):
    """As many requests are under way as the destination answers in good time (``adaptiveConcurrency``).  Nothing was sent."""
