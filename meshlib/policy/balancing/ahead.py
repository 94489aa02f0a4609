"""Tables of RING_HASH and MAGLEV, filled before they are needed.

One may take a tenth of a second, and calls pick their endpoints under a lock that all calls of a process share.  Tables are
kept by what is in them: whoever takes a configuration over fills them first, without the lock, and the first call finds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Endpoint
from meshlib.policy.balancing.build import HASHING, loads_of
from meshlib.policy.balancing.hashed import ConsistentHashing
from meshlib.policy.balancing.host import Host
from meshlib.policy.balancing.levels import levels_of
from meshlib.policy.balancing.zone_aware import Place


def fill_tables(
    cluster: Cluster, endpoints: Sequence[Endpoint], known: Mapping[str, Host], *, overprovisioning: int, place: Place
) -> None:
    """`known`: the hosts of the cluster as it is now, for what is known of their health; they may change meanwhile, and then
    the first call fills the table after all.
    """
    if cluster.lb_policy not in HASHING or not endpoints:
        return
    levels = levels_of(_expected(endpoint, known.get(endpoint.key)) for endpoint in endpoints)
    ConsistentHashing(cluster, levels, loads_of(cluster, levels, overprovisioning), place.locality).fill()


def _expected(endpoint: Endpoint, known: Host | None) -> Host:
    host = Host(endpoint)
    host.weight = max(endpoint.weight, 1)
    if known is not None:
        host.ejected, host.failed_check = known.ejected, known.failed_check
    return host
