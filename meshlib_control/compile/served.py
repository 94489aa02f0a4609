"""Which ports a node serves where it does not say so: what `meshctl compile` shows inbound listeners for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from meshlib_control.catalog.model import Port
from meshlib_control.compile.authorization import policies_of
from meshlib_control.compile.node import Node, ServedPort
from meshlib_control.compile.scope import scope_of
from meshlib_control.compile.services import instance_port, is_http, is_http2
from meshlib_control.compile.world import World
from meshlib_control.config.kinds import PeerAuthentication

ANY_PORT: Final = Port(80)
"""Stands for all ports of a workload of which nobody says what it serves: but for `portLevelMtls` they get the same."""

ANY_TCP_PORT: Final = Port(9000, "tcp")
"""The same where there are no requests, which only an Envoy can stand before."""


def served_ports(world: World, node: Node) -> tuple[ServedPort, ...]:
    """Those that the node names; else those of its service, if the catalog has it; else one that stands for any (of an Envoy
    one of each kind), if policies hold for the node.  None: it only calls.

    Where the application behind an Envoy listens is not known then: taken is the same number, on 127.0.0.1.
    """
    if node.ports:
        return node.ports
    found = tuple(_of_service(world, node)) or tuple(_of_policies(world, node))
    by_number = {port.number: port for port in found}
    return tuple(by_number[number] for number in sorted(by_number))


def _of_service(world: World, node: Node) -> Iterator[ServedPort]:
    service = world.services.called(node.service.lower(), node.namespace) if node.service else None
    if service is None or service.namespace != node.namespace:
        return
    instances = world.instances_of(service)
    alike = [one for one in instances if node.labels.items() <= one.labels.items()] or instances
    for port in service.ports:
        for number in {instance_port(one, port) for one in alike} or {port.target or port.number}:
            yield _served(number, port)


def _of_policies(world: World, node: Node) -> Iterator[ServedPort]:
    scope = scope_of(world, node)
    labels = dict(scope.labels)
    level = world.peer_authentications.level(scope.namespace, labels)
    levels = [resource for resource in (level.mesh, level.namespace, level.workload) if resource is not None]
    if not (levels or policies_of(world, scope) or world.request_authentications.rules_of(scope.namespace, labels)):
        return
    for port in (ANY_PORT, ANY_TCP_PORT) if node.flavour == "envoy" else (ANY_PORT,):
        yield _served(port.number, port)
    if level.workload is not None:
        spec: PeerAuthentication = level.workload.spec
        for number in map(int, spec.port_level_mtls or ()):
            yield _served(number, Port(number))


def _served(number: int, port: Port) -> ServedPort:
    if not is_http(port):
        return ServedPort(number, number, "tcp")
    return ServedPort(number, number, "http2" if is_http2(port) else "http")
