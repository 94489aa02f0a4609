"""MeshConfig: what holds for the whole mesh.  Istio's field names, as a resource of our own."""

from __future__ import annotations

from typing import Literal

from meshlib_control.config.kinds.common import Duration, Element
from meshlib_control.config.kinds.virtual_service import HTTPRetry


class OutboundTrafficPolicy(Element, frozen=True):
    """Calls to hosts that are not part of the mesh."""

    mode: Literal["ALLOW_ANY", "REGISTRY_ONLY"] = "ALLOW_ANY"
    """`ALLOW_ANY`: the application's own client makes the call; `REGISTRY_ONLY`: it is refused."""


class MeshConfig(Element, frozen=True):
    """What holds for the whole mesh. There is one, named `mesh`."""

    outbound_traffic_policy: OutboundTrafficPolicy = OutboundTrafficPolicy()
    """Calls to hosts that are not part of the mesh."""
    root_namespace: str = "istio-system"
    """Resources in this namespace hold for all others."""
    default_http_retry_policy: HTTPRetry | None = None
    """For routes without `retries`. Unless given: 2 attempts on
    `connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes`."""
    default_virtual_service_export_to: tuple[str, ...] = ("*",)
    """`exportTo` of VirtualServices that have none."""
    default_destination_rule_export_to: tuple[str, ...] = ("*",)
    """`exportTo` of DestinationRules that have none."""
    default_service_export_to: tuple[str, ...] = ("*",)
    """`exportTo` of services and ServiceEntries that have none."""
    connect_timeout: Duration = 10.0
    """Time to open a connection where no DestinationRule says otherwise."""
