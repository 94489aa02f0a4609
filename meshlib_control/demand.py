"""Which services somebody needs, so that only these are watched in catalogs that cost something to watch.

Needed is what a client asked for since the control service started, and what configuration names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from google.protobuf.message import Message

from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER
from meshlib_control import compile as compiler
from meshlib_control.compile import Affected, Node, Scope, World
from meshlib_control.compile.hosts import split_authority
from meshlib_control.compile.names import parse_cluster_name
from meshlib_control.compile.view import reached_services
from meshlib_control.config.kinds import DestinationRule, VirtualService
from meshlib_control.config.model import ConfigSet


class DemandingCompiler:
    """The compile package, taking note of the services whose resources are asked for.

    `want` is called with the hosts whenever there are more of them.
    """

    def __init__(self, want: Callable[[frozenset[str]], None]) -> None:
        self._want = want
        self._asked: frozenset[str] = frozenset()
        self._configured: frozenset[str] = frozenset()

    def scope_of(self, world: World, node: Node, /) -> Scope:
        return compiler.scope_of(world, node)

    def affected(self, old_world: World, new_world: World, /) -> Affected:
        return compiler.affected(old_world, new_world)

    def is_pending(self, world: World, scope: Scope, name: str, /) -> bool:
        return compiler.is_pending(world, scope, name)

    def generate(self, world: World, scope: Scope, type_url: str, names: frozenset[str] | None, /) -> Mapping[str, Message]:
        asked = self._asked.union(_asked_hosts(world, scope, type_url, names))
        if asked != self._asked:
            self._asked = asked
            self._tell()
        return compiler.generate(world, scope, type_url, names)

    def configured(self, world: World) -> None:
        """A new world: note what its configuration names."""
        hosts = frozenset(configured_hosts(world))
        if hosts != self._configured:
            self._configured = hosts
            self._tell()

    def _tell(self) -> None:
        self._want(self._asked | self._configured)


def _asked_hosts(world: World, scope: Scope, type_url: str, names: Iterable[str] | None) -> Iterator[str]:
    if names is None:
        yield from (service.host for service in reached_services(world, scope))
        return
    for name in names:
        if type_url == LISTENER:
            called = split_authority(name, 0)
            if called is not None:
                yield from _meant_hosts(world, called[0], scope.namespace)
        elif type_url in (CLUSTER, ENDPOINTS) and (parsed := parse_cluster_name(name)) is not None:
            yield parsed.host


def _meant_hosts(world: World, name: str, namespace: str) -> Iterator[str]:
    """The service that is called so; if there is none, those that it may turn out to be once the catalog is asked."""
    service = world.services.called(name, namespace)
    if service is not None:
        yield service.host
    else:
        yield from (host for host, _ in world.services.namesakes(name, namespace))


def configured_hosts(world: World) -> Iterator[str]:
    """Fully qualified hosts of the services that routes and policies name."""
    for namespace, host in _named(world.routing.config):
        resolved = world.resolve(host, namespace)
        if resolved in world.services.hosts:
            yield resolved
        else:
            yield from (host for host, _ in world.services.namesakes(resolved, namespace))


def _named(config: ConfigSet) -> Iterator[tuple[str, str]]:
    for resource in config.of("VirtualService"):
        if isinstance(resource.spec, VirtualService):
            hosts = [*resource.spec.hosts, *_destinations(resource.spec)]
            yield from ((resource.key.namespace, host) for host in hosts)
    for resource in config.of("DestinationRule"):
        if isinstance(resource.spec, DestinationRule):
            yield resource.key.namespace, resource.spec.host


def _destinations(spec: VirtualService) -> Iterator[str]:
    for route in spec.http:
        yield from (share.destination.host for share in route.route)
        yield from (mirror.destination.host for mirror in route.mirrors)
        if route.mirror is not None:
            yield route.mirror.host
