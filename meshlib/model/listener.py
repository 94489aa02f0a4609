"""The entry of a ``host:port`` (LDS)."""

from __future__ import annotations

from dataclasses import dataclass

from meshlib.model.route import RouteConfig

VIRTUAL_OUTBOUND = "virtualOutbound"
"""Name of the listener (Istio's word) that says what happens to a host that is not in the mesh: its inline route
configuration has one virtual host, ``allow_any`` (the caller's own transport takes the call) or ``block_all``."""


@dataclass(frozen=True, slots=True)
class Listener:
    """An API listener.  Exactly one of `route_config` and `route_config_name` is set."""

    name: str  # "reviews:80", as called
    route_config_name: str = ""
    route_config: RouteConfig | None = None
