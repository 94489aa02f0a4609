"""What a pool and one exchange are told: limits of the operator's, timeouts of the caller's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from meshlib.errors import TimeoutName
from meshlib.model.cluster import Cluster, TcpKeepalive
from meshlib.model.request import NO_TIMEOUTS as NO_TIMEOUTS
from meshlib.model.request import Timeouts as Timeouts
from meshlib.runtime.http.limits import Limits
from meshlib.wire.connection import MAX_HEAD_BYTES, MAX_HEADERS

NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Of one cluster; `limits` is the one object that all pools of the cluster share.  Seconds; 0 means none."""

    limits: Limits
    connect_timeout: float = 10.0
    idle_timeout: float = 3600.0
    max_requests_per_connection: int = 0
    max_connection_duration: float = 0.0
    tcp_keepalive: TcpKeepalive | None = None
    max_response_headers: int = MAX_HEADERS
    max_response_head_bytes: int = MAX_HEAD_BYTES

    @classmethod
    def of(cls, cluster: Cluster, limits: Limits) -> PoolSettings:
        """The settings that `cluster` asks for."""
        return cls(
            limits,
            connect_timeout=cluster.connect_timeout,
            idle_timeout=cluster.idle_timeout,
            max_requests_per_connection=cluster.max_requests_per_connection,
            max_connection_duration=cluster.max_connection_duration,
            tcp_keepalive=cluster.tcp_keepalive,
        )


def earlier(
    deadline: float | None, which: TimeoutName, *, now: float, seconds: float | None, name: TimeoutName
) -> tuple[float, TimeoutName]:
    """The earlier end of two, and whose it is: `deadline` (absolute), and the timeout `name`, which begins `now`."""
    if seconds is not None and (deadline is None or now + seconds < deadline):
        return now + seconds, name
    return (NEVER, name) if deadline is None else (deadline, which)
