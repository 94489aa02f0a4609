"""Where calls enter: API listeners by authority, or Envoy's HTTP proxy; and the ports that a workload serves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from meshlib.xds.proto import listener_pb2, route_pb2
from meshlib.xds.types import pack
from meshlib_control.compile.clusters import ads
from meshlib_control.compile.cors import CORS
from meshlib_control.compile.hosts import split_authority, with_port
from meshlib_control.compile.http_actions import FAULT
from meshlib_control.compile.inbound import inbound_listener, inbound_listener_names, set_normalization
from meshlib_control.compile.names import HTTP_PROXY, INBOUND_PREFIX, VIRTUAL_OUTBOUND
from meshlib_control.compile.node import Scope
from meshlib_control.compile.retry_policy import duration
from meshlib_control.compile.routes import outside_host, route_names, virtual_host
from meshlib_control.compile.services import port_of
from meshlib_control.compile.view import called, egress_of, seen
from meshlib_control.compile.world import World

PROXY_ADDRESS: Final = "127.0.0.1"
PROXY_PORT: Final = 15001
"""Where an application sends its requests when Envoy stands beside it (`http_proxy=http://127.0.0.1:15001`)."""

PROXY_LISTENER: Final = f"{PROXY_ADDRESS}_{PROXY_PORT}"

DEFAULT_NORMALIZATION: Final = "BASE"
"""What clients do unless a listener says otherwise."""

_DEFAULT_PORT = 80
_ROUTER = "envoy.filters.http.router"
_MANAGER = "envoy.filters.network.http_connection_manager"


def listener_names(world: World, scope: Scope) -> Iterator[str]:
    """Names of all listeners; for names that callers use, only the fully qualified one of each."""
    if scope.flavour == "envoy":
        yield PROXY_LISTENER
        yield from inbound_listener_names(scope)
        return
    if scope.flavour == "meshlib":
        yield VIRTUAL_OUTBOUND
    yield from route_names(world, scope)


def listener(world: World, scope: Scope, name: str) -> listener_pb2.Listener | None:
    """The listener of this name, which is an authority as called (any alias); None: there is none."""
    if scope.flavour == "envoy":
        return _proxy(world) if name == PROXY_LISTENER else inbound_listener(world, scope, name)
    if name.startswith(INBOUND_PREFIX):
        return inbound_listener(world, scope, name)
    if scope.flavour == "meshlib" and name == VIRTUAL_OUTBOUND:
        return _outside(world, scope)
    routes = _route_name(world, scope, name)
    if routes is None:
        return _hidden(world, scope, name) if scope.flavour == "meshlib" else None
    manager = _manager(name, faults=scope.flavour == "grpc")
    if scope.flavour == "meshlib" and world.settings.path_normalization != DEFAULT_NORMALIZATION:
        set_normalization(manager, world.settings.path_normalization)
    manager.rds.route_config_name = routes
    manager.rds.config_source.CopyFrom(ads())
    if scope.flavour == "meshlib":
        set_normalization(manager, world.settings.path_normalization)
    return _api_listener(name, manager)


def shortest_alias(world: World, scope: Scope, host: str, port: int) -> str:
    """The shortest authority by which the scope's namespace may call a host: ``reviews:80`` from its own."""
    service = world.services.find(host, scope.namespace)
    names = world.services.host_aliases(host, service.namespace if service else None, scope.namespace)
    return with_port(min(names, key=lambda name: (len(name), name)), port)


def _route_name(world: World, scope: Scope, authority: str) -> str | None:
    asked = split_authority(authority, _DEFAULT_PORT)
    if asked is None:
        return None
    name, port = asked
    service = called(world, scope, name)
    # A host that only a VirtualService knows may be called by its short forms as well.
    hosts = (service.host,) if service else (name, *world.services.completions(name, scope.namespace))
    # A wildcard holds for the ports that the narrower host does not have.
    wider = (pattern for pattern in world.services.wildcards(name) if seen(world, scope, pattern, port) is not None)
    for host in (*hosts, *wider):
        if virtual_host(world, scope, host, port) is not None:
            return with_port(host, port)
    return None


def _hidden(world: World, scope: Scope, authority: str) -> listener_pb2.Listener | None:
    """Of a host that exists, and that a Sidecar keeps from the scope: what holds for outside hosts holds for it.

    Said, and not left out: what once was there and is left out may be missing by accident, so clients keep it.
    """
    asked = split_authority(authority, _DEFAULT_PORT)
    if asked is None or egress_of(world, scope) is None:
        return None
    service = world.services.called(asked[0], scope.namespace)
    if service is None or port_of(service, asked[1]) is None:
        return None
    result = _outside(world, scope)
    result.name = authority
    return result


def _outside(world: World, scope: Scope) -> listener_pb2.Listener:
    manager = _manager(VIRTUAL_OUTBOUND)
    manager.route_config.name = VIRTUAL_OUTBOUND
    manager.route_config.validate_clusters.value = False
    manager.route_config.virtual_hosts.append(outside_host(world, scope))
    return _api_listener(VIRTUAL_OUTBOUND, manager)


def _manager(stat_prefix: str, *, faults: bool = False, cors: bool = False) -> listener_pb2.HttpConnectionManager:
    """`faults`, `cors`: with the filters that do what routes say of it; meshlib's clients need none for faults."""
    manager = listener_pb2.HttpConnectionManager(stat_prefix=stat_prefix)
    if faults:
        manager.http_filters.add(name=FAULT).typed_config.CopyFrom(pack(route_pb2.HTTPFault()))
    if cors:
        manager.http_filters.add(name=CORS).typed_config.CopyFrom(pack(route_pb2.Cors()))
    manager.http_filters.add(name=_ROUTER).typed_config.CopyFrom(pack(listener_pb2.Router()))
    return manager


def _api_listener(name: str, manager: listener_pb2.HttpConnectionManager) -> listener_pb2.Listener:
    result = listener_pb2.Listener(name=name)
    result.api_listener.api_listener.CopyFrom(pack(manager))
    return result


def _proxy(world: World) -> listener_pb2.Listener:
    """Istio's outbound connection manager: no idle timeout of streams, paths in canonical form."""
    result = listener_pb2.Listener(name=PROXY_LISTENER, traffic_direction=listener_pb2.OUTBOUND)
    result.address.socket_address.address = PROXY_ADDRESS
    result.address.socket_address.port_value = PROXY_PORT
    manager = _manager("http_proxy", faults=True, cors=True)
    manager.rds.route_config_name = HTTP_PROXY
    manager.rds.config_source.CopyFrom(ads())
    manager.stream_idle_timeout.CopyFrom(duration(0.0))
    manager.use_remote_address.value = False
    set_normalization(manager, world.settings.path_normalization)
    filters = result.filter_chains.add().filters
    filters.add(name=_MANAGER).typed_config.CopyFrom(pack(manager))
    return result
