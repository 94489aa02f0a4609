"""What a call went through: written by the flow, read by telemetry, errors and `response.extensions["meshlib"]`."""

from __future__ import annotations

from meshlib.flow.upstream import Upstream
from meshlib.policy.balancing import Host
from meshlib.policy.header_mutation import HeaderEdit


class CallRecord:
    """One per call; plain and slotted because one is made for every request."""

    __slots__ = ("_host", "_upstream", "attempts", "authority", "flags", "response_edit", "route", "started", "status")

    def __init__(self, authority: str, started: float) -> None:
        self.authority = authority
        self.started = started  # seconds on the flow's clock
        self.route = ""
        self.attempts = 0
        self.status = 0
        self.response_edit: HeaderEdit | None = None  # for those whose response is not in the outcome (gRPC's streams)
        self.flags: tuple[str, ...] = ()  # Envoy's response flags in the order they were set
        self._host: Host | None = None
        self._upstream: Upstream | None = None

    @property
    def cluster(self) -> str:
        """Name of the cluster, e.g. ``outbound|80|v1|reviews.default.svc.cluster.local``."""
        return self._upstream.name if self._upstream is not None else ""

    @property
    def subset(self) -> str:
        return self._upstream.cluster.subset if self._upstream is not None else ""

    @property
    def service(self) -> str:
        """Fully qualified host of the service that was chosen."""
        return self._upstream.cluster.host if self._upstream is not None else ""

    @property
    def endpoint(self) -> str:
        """``address:port`` of the last endpoint tried, or of that which answered first."""
        return self._host.key if self._host is not None else ""

    def flag(self, name: str) -> None:
        if name not in self.flags:
            self.flags = (*self.flags, name)

    def use(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def tried(self, host: Host) -> None:
        self._host = host
        self.attempts += 1

    def answered_by(self, host: Host) -> None:
        """Of several endpoints tried at the same time, this one's outcome counts."""
        self._host = host

    def __repr__(self) -> str:
        return (
            f"<CallRecord {self.authority} route={self.route!r} cluster={self.cluster!r} endpoint={self.endpoint!r} "
            f"attempts={self.attempts} status={self.status} flags={','.join(self.flags) or '-'}>"
        )
