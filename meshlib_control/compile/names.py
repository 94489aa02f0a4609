"""Names of xDS resources, in Istio's forms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from meshlib_control.compile.hosts import with_port

VIRTUAL_OUTBOUND: Final = "virtualOutbound"
"""Listener of the meshlib flavour that says what happens to hosts outside of the mesh (meshlib.model.listener)."""

INBOUND_PREFIX: Final = "xds.istio.io/grpc/lds/inbound/"
"""Name of the listener of a served port, up to its address (gRFC A36's template, as Istio fills it)."""

TRUST_BUNDLE: Final = "ROOTCA"
"""Name of the secret with the roots of all trust domains; Istio's name."""

PASSTHROUGH: Final = "PassthroughCluster"
BLACK_HOLE: Final = "BlackHoleCluster"
ALLOW_ANY: Final = "allow_any"
BLOCK_ALL: Final = "block_all"

HTTP_PROXY: Final = "http_proxy"
"""The route configuration of Envoy's outbound listener: one for all hosts, as of Istio's HTTP_PROXY listeners."""


@dataclass(frozen=True, slots=True)
class ClusterName:
    """``outbound|80|v1|reviews.default.svc.cluster.local``; the subset may be empty."""

    port: int
    subset: str
    host: str

    def __str__(self) -> str:
        return f"outbound|{self.port}|{self.subset}|{self.host}"


def parse_cluster_name(name: str) -> ClusterName | None:
    direction, _, rest = name.partition("|")
    parts = rest.split("|")
    if direction != "outbound" or len(parts) != 3 or not parts[0].isascii() or not parts[0].isdigit():
        return None
    return ClusterName(int(parts[0]), parts[1], parts[2])


def route_name(host: str, port: int) -> str:
    """Of the route configuration that all aliases of a service's port share."""
    return with_port(host, port)
