"""An endpoint as this process knows it: what is in flight, how healthy it is."""

from __future__ import annotations

from typing import Any

from meshlib.model.endpoint import Endpoint, Health


class Host:
    """The mutable side of an endpoint, kept as long as the endpoint stays in its cluster.

    `shells` belongs to the runtime: the connection pools to this endpoint, by event loop; policies do not look into it.
    `detection` belongs to outlier detection, `checking` to active health checks: their own state of this host.
    """

    __slots__ = (
        "active",
        "checking",
        "detection",
        "ejected",
        "endpoint",
        "failed_check",
        "key",
        "recovered",
        "shells",
        "total",
        "weight",
    )

    def __init__(self, endpoint: Endpoint, now: float = 0.0) -> None:
        """`now`: when it joined its cluster, in seconds on the flow's clock."""
        self.endpoint = endpoint
        self.key = endpoint.key
        self.weight = endpoint.weight
        self.active = 0  # requests in flight
        self.total = 0
        self.ejected = False  # by outlier detection
        self.failed_check = False  # by active health checks
        self.recovered = now  # since when it has been in use: it joined, or passed health checks again (slow start)
        self.detection: Any = None
        self.checking: Any = None
        self.shells: dict[Any, Any] = {}

    @property
    def health(self) -> Health:
        """What the control service says, unless this process knows worse."""
        return Health.UNHEALTHY if self.ejected or self.failed_check else self.endpoint.health

    def __repr__(self) -> str:
        return f"<Host {self.key} active={self.active}>"
