"""What a process has found out about those that it calls, for the control service to show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EndpointState = Literal["ejected", "failed check", "refusing"]


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """An endpoint that this process knows worse of than the control service.  `left`: seconds, as far as it is known."""

    address: str
    state: EndpointState
    reason: str = ""
    left: float = 0.0


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """Counts are of all time.  `circuit_breaker` empty, `concurrency_limit` 0: there is none."""

    name: str
    endpoints: tuple[EndpointReport, ...] = ()
    circuit_breaker: str = ""
    circuit_breaker_left: float = 0.0  # seconds until probes are let through
    circuit_breaker_rejected: int = 0
    concurrency_limit: int = 0
    concurrency_rejected: int = 0
    active_requests: int = 0
    active_retries: int = 0
    allowed_retries: int = 0
    retries: int = 0
    retry_overflow: int = 0
    pending_overflow: int = 0
    hedges: int = 0
    hedges_refused: int = 0


@dataclass(frozen=True, slots=True)
class LimitReport:
    """A rate limit (``namespace/policy/limit``) of one side of the process: ``client`` or ``server``."""

    id: str
    side: str
    allowed: int
    limited: int
    would_limit: int


@dataclass(frozen=True, slots=True)
class Report:
    """`truncated`: there was more than is sent at once."""

    clusters: tuple[ClusterReport, ...] = ()
    limits: tuple[LimitReport, ...] = ()
    truncated: bool = False

    def __bool__(self) -> bool:
        return bool(self.clusters or self.limits)
