"""What went wrong with a cluster's requests, counted: only where something does, so that calls that go well pay nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.telemetry.events import Event, Throttle

if TYPE_CHECKING:
    from meshlib.flow.upstream import Upstream


class RequestCounts:
    """Of one cluster; they never go down (Envoy ``cluster.NAME.*``).

    `retry`: retries that were made (``upstream_rq_retry``).  `retry_overflow`: those that the budget refused
    (``upstream_rq_retry_overflow``).  `pending_overflow`: requests that maxRequests, maxConnections or the limit of pending
    requests refused (``upstream_rq_pending_overflow``).
    """

    __slots__ = ("_overflows", "_retries", "pending_overflow", "retry", "retry_overflow")

    def __init__(self) -> None:
        self.retry = 0
        self.retry_overflow = 0
        self.pending_overflow = 0
        self._retries = Throttle()
        self._overflows = Throttle()

    def no_retry(self, upstream: Upstream, now: float) -> None:
        """The budget refuses a retry."""
        self.retry_overflow += 1
        if upstream.emit is not None and self._retries.lets(now):
            reason = f"{upstream.active_retries} retries and {upstream.active} requests are under way"
            upstream.emit(Event("retry_budget.exhausted", now, upstream.name, reason=reason))

    def overflow(self, upstream: Upstream, now: float, reason: str, endpoint: str = "") -> None:
        """A limit of this process refuses a request."""
        self.pending_overflow += 1
        if upstream.emit is not None and self._overflows.lets(now):
            upstream.emit(Event("connection_pool.overflow", now, upstream.name, endpoint, reason))
