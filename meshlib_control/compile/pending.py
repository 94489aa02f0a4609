"""What cannot be answered yet, because a catalog has still to be asked."""

from __future__ import annotations

from meshlib_control.compile.hosts import split_authority
from meshlib_control.compile.names import parse_cluster_name
from meshlib_control.compile.node import Scope
from meshlib_control.compile.view import called, reached
from meshlib_control.compile.world import World

_ANY_PORT = 80


def is_pending(world: World, scope: Scope, name: str) -> bool:
    """Whether ports and instances behind `name`, a cluster or an authority, are yet to be found out.

    Its service, or one that it may turn out to mean, is known by name alone so far.
    """
    cluster = parse_cluster_name(name)
    if cluster is not None:
        host, service = cluster.host, reached(world, scope, cluster.host, cluster.port)
    else:
        authority = split_authority(name, _ANY_PORT)
        if authority is None:
            return False
        host, service = authority[0], called(world, scope, authority[0])
    if service is not None:
        return service.source != "config" and service.host not in world.instances
    namesakes = world.services.namesakes(host, scope.namespace)
    return any(listed not in world.instances for _, hosts in namesakes for listed in hosts)
