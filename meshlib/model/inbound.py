"""One request being served, as the server's flow sees it, and what travels from it to the calls made for it."""

from __future__ import annotations

from dataclasses import dataclass

from meshlib.model.call import Headers


class ServerRequest:
    """The raw request, the same from every server: nothing decoded, nothing merged.

    ``target`` is the request target as on the wire; ``headers`` are raw pairs with lower-case names, repeated ones repeated.
    ``fields`` has the last value of each name, for the headers that may be there only once.
    """

    __slots__ = ("fields", "headers", "http_version", "method", "peer_address", "target")

    def __init__(
        self, method: str, target: bytes, headers: Headers, *, http_version: str = "1.1", peer_address: str = ""
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.fields = dict(headers)
        self.http_version = http_version
        self.peer_address = peer_address


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

    __slots__ = ("attempt", "deadline", "forwarded", "trace")

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

    def remaining(self, now: float) -> float | None:
        """Seconds left; never below zero; None without a deadline."""
        return None if self.deadline is None else max(self.deadline - now, 0.0)

    def __repr__(self) -> str:
        return f"<RequestContext deadline={self.deadline} attempt={self.attempt} trace={self.trace}>"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a request that never reaches the application."""

    status: int
    reason: str  # for logs and metrics: "missing_host_header"
    body: bytes = b""
    close: bool = True  # what cannot be read safely ends its connection
