"""World and scope → the resources of one type.  The one door for whoever serves or prints resources."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message

from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE, SECRET
from meshlib_control.compile.clusters import cluster, cluster_names
from meshlib_control.compile.endpoints import load_assignment
from meshlib_control.compile.listeners import listener, listener_names
from meshlib_control.compile.node import Scope
from meshlib_control.compile.routes import route_configuration, route_names
from meshlib_control.compile.secrets import secret, secret_names
from meshlib_control.compile.world import World


@dataclass(frozen=True, slots=True)
class _Generator:
    """`one` says None where the scope has no such resource; `names` may name more than exist."""

    one: Callable[[World, Scope, str], Message | None]
    names: Callable[[World, Scope], Iterator[str]]


_GENERATORS: Final = {
    LISTENER: _Generator(listener, listener_names),
    ROUTE: _Generator(route_configuration, route_names),
    CLUSTER: _Generator(cluster, cluster_names),
    ENDPOINTS: _Generator(load_assignment, cluster_names),
    SECRET: _Generator(secret, secret_names),
}


def generate(world: World, scope: Scope, type_url: str, names: Collection[str] | None = None) -> dict[str, Message]:
    """Resources by name.  A name that is absent from the result does not exist for this scope.

    `names` None is a wildcard subscription: everything that the scope sees.  Listeners of the meshlib and grpc flavours
    are then those of fully qualified names, since every alias of them is a listener too; what they serve is asked for by name.
    Unknown types have no resources.
    """
    generator = _GENERATORS.get(type_url)
    if generator is None:
        return {}
    wanted = generator.names(world, scope) if names is None else names
    found = ((name, generator.one(world, scope, name)) for name in dict.fromkeys(wanted))
    return {name: message for name, message in found if message is not None}
