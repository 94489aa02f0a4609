"""Everything that a node may get, for people: `meshctl compile`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from google.protobuf.message import Message

from meshlib.xds.json import Json, to_json
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE, SECRET
from meshlib_control.compile.generate import generate
from meshlib_control.compile.hosts import split_authority
from meshlib_control.compile.inbound import inbound_name
from meshlib_control.compile.listeners import listener_names, shortest_alias
from meshlib_control.compile.names import VIRTUAL_OUTBOUND
from meshlib_control.compile.node import Node, Scope
from meshlib_control.compile.scope import scope_of
from meshlib_control.compile.served import served_ports
from meshlib_control.compile.world import World


def compile_document(world: World, node: Node) -> list[Json]:
    """protobuf-JSON with Envoy's `@type` names: LDS, RDS, CDS, EDS, SDS, each ordered by name.

    A meshlib or grpc node may ask for a service by each of its aliases.  Shown are the listener of the fully qualified
    name and that of the shortest one that the node's namespace may use; the others differ from them in nothing but name.
    Inbound listeners are those of `served_ports`.
    """
    node = replace(node, ports=served_ports(world, node))
    scope = scope_of(world, node)
    served = [inbound_name(port.number) for port in node.ports] if scope.flavour != "envoy" else []
    listeners = generate(world, scope, LISTENER, (*_listener_names(world, scope), *served))
    found: list[Json] = _ordered(listeners)
    for type_url in (ROUTE, CLUSTER, ENDPOINTS, SECRET):
        found += _ordered(generate(world, scope, type_url))
    return found


def _listener_names(world: World, scope: Scope) -> Iterable[str]:
    for name in listener_names(world, scope):
        yield name
        called = split_authority(name, 0)
        if scope.flavour != "envoy" and name != VIRTUAL_OUTBOUND and called is not None:
            yield shortest_alias(world, scope, *called)


def _ordered(resources: dict[str, Message]) -> list[Json]:
    return [to_json(resources[name]) for name in sorted(resources)]
