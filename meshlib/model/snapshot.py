"""Everything a call may need, joined and immutable.

A call takes one reference to a snapshot and keeps it to its end.  Each target in it is complete: its routes never name a
cluster whose endpoints are still on their way (gRFC A74's XdsConfig).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import OVERPROVISIONING, Endpoint
from meshlib.model.identity import TrustBundles
from meshlib.model.listener import InboundListener, PathNormalization
from meshlib.model.route import RouteConfig, VirtualHost


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """A cluster and its endpoints.  `error` is set instead when the cluster cannot be used (it does not exist, say)."""

    name: str
    cluster: Cluster | None = None
    endpoints: tuple[Endpoint, ...] = ()
    error: str = ""
    overprovisioning_factor: int = OVERPROVISIONING  # percent


@dataclass(frozen=True, slots=True)
class Target:
    """One authority that the process calls: its virtual host and all clusters that it names.

    Parts that did not change are the same objects as in the snapshot before, so what is compiled from them can be kept.
    """

    authority: str  # "reviews:80"
    virtual_host: VirtualHost
    clusters: Mapping[str, ClusterConfig]
    route_config: RouteConfig | None = None
    normalization: PathNormalization = PathNormalization.BASE


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`generation` grows by one with each publication."""

    generation: int = 0
    targets: Mapping[str, Target] = field(default_factory=dict)
    # Authorities that the control service says are not part of the mesh: why.
    absent: Mapping[str, str] = field(default_factory=dict)
    # Authorities that could not be joined (refused, silent, incomplete): why.  They may be part of the mesh, so calls to them
    # fail; nothing here ever leaves the mesh by another way.
    broken: Mapping[str, str] = field(default_factory=dict)
    # True: outside hosts are the caller's own business (ALLOW_ANY). False: refused. None: not known yet.
    allow_any: bool | None = None
    # What holds for the ports that this process serves, by port.  A port that was asked for and is missing has no policy yet.
    inbound: Mapping[int, InboundListener] = field(default_factory=dict)
    # None: not known yet (the roots that came with this process's own certificate hold until then).
    trust: TrustBundles | None = None
