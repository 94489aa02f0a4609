"""Envoy's connection and pending limits of one cluster (``CircuitBreakers.Thresholds``), counted in this process."""

from __future__ import annotations

import threading

from meshlib.model.cluster import UNLIMITED


class Limits:
    """Shared by all pools of a cluster, in all loops and threads.  Touched when connections are made, not per request.

    ``max_connections`` and ``max_pending_requests`` may be set anew at any time; what is open stays open.
    """

    def __init__(self, max_connections: int = UNLIMITED, max_pending_requests: int = UNLIMITED) -> None:
        self.max_connections = max_connections
        self.max_pending_requests = max_pending_requests
        self.connections = 0
        self.pending = 0
        self.connection_overflows = 0  # upstream_cx_overflow: times that a connection was wanted and not allowed
        self.pending_overflows = 0  # upstream_rq_pending_overflow: requests that were refused
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return (
            f"<Limits connections={self.connections}/{self.max_connections} pending={self.pending}/{self.max_pending_requests}>"
        )

    def try_connection(self, *, first: bool) -> bool:
        """Take one connection.  The `first` of an endpoint is always allowed, so that no endpoint is starved by others."""
        with self._lock:
            if self.connections >= self.max_connections:
                self.connection_overflows += 1
                if not first:
                    return False
            self.connections += 1
            return True

    def connection_closed(self) -> None:
        with self._lock:
            self.connections -= 1

    def try_pending(self) -> bool:
        """Begin to wait for a connection; False: no more may wait."""
        with self._lock:
            if self.pending >= self.max_pending_requests:
                self.pending_overflows += 1
                return False
            self.pending += 1
            return True

    def pending_ended(self) -> None:
        with self._lock:
            self.pending -= 1
