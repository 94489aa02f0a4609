"""How much a process lets in at once on one of its ports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InboundLimits:
    """Numbers of requests; None: no limit.  A request that finds no place is answered 503 (Envoy's ``UO``)."""

    max_requests: int | None = None  # in the application and waiting for it
    max_active: int | None = None  # in the application
    max_pending: int | None = None  # waiting for the application
