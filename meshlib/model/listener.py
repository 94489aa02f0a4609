"""The entry of a ``host:port`` (LDS)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from meshlib.model.authentication import JwtAuthentication
from meshlib.model.authorization import ExternalAuthorization, RbacFilter
from meshlib.model.cors import Cors
from meshlib.model.inbound_limits import InboundLimits
from meshlib.model.rate_limit import RateLimits
from meshlib.model.resilience import ServerResilience
from meshlib.model.route import RouteConfig

VIRTUAL_OUTBOUND = "virtualOutbound"
"""Name of the listener (Istio's word) that says what happens to a host that is not in the mesh: its inline route
configuration has one virtual host, ``allow_any`` (the caller's own transport takes the call) or ``block_all``."""


class PathNormalization(Enum):
    """Istio ``MeshConfig.pathNormalization``.  DEFAULT is BASE."""

    NONE = "NONE"
    BASE = "BASE"
    MERGE_SLASHES = "MERGE_SLASHES"
    DECODE_AND_MERGE_SLASHES = "DECODE_AND_MERGE_SLASHES"


@dataclass(frozen=True, slots=True)
class Listener:
    """An API listener.  Exactly one of `route_config` and `route_config_name` is set."""

    name: str  # "reviews:80", as called
    route_config_name: str = ""
    route_config: RouteConfig | None = None
    normalization: PathNormalization = PathNormalization.BASE  # of the paths that are called


INBOUND_PREFIX = "xds.istio.io/grpc/lds/inbound/0.0.0.0:"
"""Name of the listener of a served port, up to the port (gRFC A36's resource name template, as Istio fills it)."""

TRUST_BUNDLE = "ROOTCA"
"""Name of the secret (SDS) with the roots of all trust domains; Istio's name."""


class MtlsMode(Enum):
    """PeerAuthentication's modes for one port."""

    DISABLE = "DISABLE"  # plaintext only
    PERMISSIVE = "PERMISSIVE"  # both, told apart by the first bytes
    STRICT = "STRICT"  # mTLS only


HttpFilter = RbacFilter | JwtAuthentication | ExternalAuthorization | Cors | RateLimits


@dataclass(frozen=True, slots=True)
class InboundListener:
    """What holds for requests to one port of this process.  `filters` run in this order."""

    name: str
    port: int
    mtls: MtlsMode = MtlsMode.PERMISSIVE
    normalization: PathNormalization = PathNormalization.BASE
    filters: tuple[HttpFilter, ...] = ()
    minimum_version: str = ""  # of TLS: "TLSv1_2", "TLSv1_3"; empty: the runtime's default
    trusted_hops: int = 0  # proxies in front that are believed what they append to x-forwarded-for
    limits: InboundLimits | None = None  # None: as much as comes
    resilience: ServerResilience | None = None  # None: nothing is refused for being too much
