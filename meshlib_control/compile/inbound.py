"""What holds for a port that a workload serves → its inbound listener.

* meshlib and grpcio ask for it by the port's address (gRFC A36); it goes nowhere, the application is the server itself.
* Envoy stands before the application: it has the port, and sends what may pass to the application's own on 127.0.0.1.
  Nothing is intercepted, so an application that listens on other addresses too can be reached around it.

mTLS and plaintext are told apart by the first bytes; both chains have the same filters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from meshlib.xds.proto import cluster_pb2, listener_pb2, route_pb2
from meshlib.xds.types import ENVOY_NAMES, pack
from meshlib_control.compile.authentication import jwt_filters
from meshlib_control.compile.authorization import authorization_filters, custom_filters, network_filters
from meshlib_control.compile.cors import CORS, cors_routes
from meshlib_control.compile.hosts import split_authority
from meshlib_control.compile.inbound_pool import pool_filters, set_pool_breakers
from meshlib_control.compile.names import INBOUND_PREFIX
from meshlib_control.compile.node import Scope, ServedPort
from meshlib_control.compile.rate_limits import inbound_limits
from meshlib_control.compile.resilience import inbound_resilience
from meshlib_control.compile.retry_policy import duration
from meshlib_control.compile.tls import downstream, tls_socket
from meshlib_control.compile.world import World
from meshlib_control.config.mtls import MTLS_LABEL, MTLS_MODE, Mode

EVERYWHERE: Final = "0.0.0.0"
APPLICATION: Final = "127.0.0.1"

_Manager = listener_pb2.HttpConnectionManager
_MANAGER = "envoy.filters.network.http_connection_manager"
_ROUTER = "envoy.filters.http.router"
_TCP_PROXY = "envoy.filters.network.tcp_proxy"
_INSPECTOR = "envoy.filters.listener.tls_inspector"
_TLS, _RAW = "tls", "raw_buffer"
_CHAINS: dict[Mode, tuple[str, ...]] = {"STRICT": (_TLS,), "PERMISSIVE": (_TLS, _RAW), "DISABLE": (_RAW,)}


def inbound_name(port: int) -> str:
    """The name by which a meshlib process asks for a port that it serves."""
    return f"{INBOUND_PREFIX}{EVERYWHERE}:{port}"


def proxy_listener_name(port: int) -> str:
    return f"{EVERYWHERE}_{port}"


def inbound_listener_names(scope: Scope) -> Iterator[str]:
    """Of Envoy's; the others ask for theirs by name."""
    for port in scope.ports:
        yield proxy_listener_name(port.number)


def inbound_listener(world: World, scope: Scope, name: str) -> listener_pb2.Listener | None:
    """The listener of this name; None: it is not the name of a served port."""
    if scope.flavour == "envoy":
        return next((_proxied(world, scope, port) for port in scope.ports if name == proxy_listener_name(port.number)), None)
    if not name.startswith(INBOUND_PREFIX):
        return None
    served = split_authority(name.removeprefix(INBOUND_PREFIX), 0)
    if served is None:
        return None
    address, port = served
    result = _listener(name, address, port)
    mode = mtls_mode(world, scope, port)
    _add_chains(result, world, scope, mode, [_http(world, scope, port)])
    return result


def mtls_mode(world: World, scope: Scope, port: int) -> Mode:
    """What PeerAuthentications say of a port, as far as clients of this flavour can do it.

    grpcio listens for either kind of connection: for PERMISSIVE the workload's label decides, as with Istio.
    """
    if not world.trust.secure:
        return "DISABLE"
    labels = dict(scope.labels)
    mode = world.peer_authentications.mode(scope.namespace, labels, port)
    if scope.flavour == "grpc" and mode == "PERMISSIVE":
        return "STRICT" if labels.get(MTLS_LABEL) == MTLS_MODE else "DISABLE"
    return mode


def inbound_cluster_names(scope: Scope) -> Iterator[str]:
    for port in scope.ports:
        yield _cluster_name(port)


def inbound_cluster(world: World, scope: Scope, name: str) -> cluster_pb2.Cluster | None:
    """Envoy's way to the application beside it."""
    port = next((port for port in scope.ports if name == _cluster_name(port)), None)
    if port is None:
        return None
    result = cluster_pb2.Cluster(name=name, type=cluster_pb2.Cluster.STATIC)
    result.connect_timeout.CopyFrom(duration(world.settings.connect_timeout))
    result.load_assignment.cluster_name = name
    endpoint = result.load_assignment.endpoints.add().lb_endpoints.add().endpoint
    endpoint.address.socket_address.address = APPLICATION
    endpoint.address.socket_address.port_value = port.application
    if port.protocol == "http2":
        options = cluster_pb2.HttpProtocolOptions()
        options.explicit_http_config.http2_protocol_options.SetInParent()
        result.typed_extension_protocol_options[ENVOY_NAMES["HttpProtocolOptions"]].CopyFrom(pack(options))
    set_pool_breakers(result, world, scope, port.number)
    return result


def set_normalization(manager: listener_pb2.HttpConnectionManager, mode: str) -> None:
    """MeshConfig.pathNormalization, as Istio writes it."""
    manager.normalize_path.value = mode != "NONE"
    manager.merge_slashes = mode in ("MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES")
    if mode == "DECODE_AND_MERGE_SLASHES":
        manager.path_with_escaped_slashes_action = _Manager.UNESCAPE_AND_FORWARD


def _cluster_name(port: ServedPort) -> str:
    return f"inbound|{port.number}||"


def _listener(name: str, address: str, port: int) -> listener_pb2.Listener:
    result = listener_pb2.Listener(name=name, traffic_direction=listener_pb2.INBOUND)
    result.address.socket_address.address = address
    result.address.socket_address.port_value = port
    return result


def _proxied(world: World, scope: Scope, port: ServedPort) -> listener_pb2.Listener:
    result = _listener(proxy_listener_name(port.number), EVERYWHERE, port.number)
    mode = mtls_mode(world, scope, port.number)
    if mode != "DISABLE":
        result.listener_filters.add(name=_INSPECTOR).typed_config.CopyFrom(pack(listener_pb2.TlsInspector()))
    if port.protocol != "tcp":
        filters = [_http(world, scope, port.number, forward_to=_cluster_name(port))]
    else:
        proxy = listener_pb2.TcpProxy(stat_prefix=_cluster_name(port), cluster=_cluster_name(port))
        last = listener_pb2.Filter(name=_TCP_PROXY, typed_config=pack(proxy))
        filters = [*network_filters(world, scope), last]
    _add_chains(result, world, scope, mode, filters)
    return result


def _add_chains(
    listener: listener_pb2.Listener, world: World, scope: Scope, mode: Mode, filters: list[listener_pb2.Filter]
) -> None:
    for protocol in _CHAINS[mode]:
        chain = listener.filter_chains.add(name=protocol)
        if scope.flavour != "grpc":  # which does not look at what comes in before it has chosen
            chain.filter_chain_match.transport_protocol = protocol
        if protocol == _TLS:
            chain.transport_socket.CopyFrom(tls_socket(downstream(world, scope)))
        chain.filters.extend(filters)


def _http(world: World, scope: Scope, port: int, *, forward_to: str = "") -> listener_pb2.Filter:
    manager = listener_pb2.HttpConnectionManager(stat_prefix=f"inbound_{EVERYWHERE}_{port}")
    browsers = cors_routes(world, scope, port)
    _set_routes(manager.route_config, port, forward_to, browsers)
    if browsers:  # a preflight has nobody's token, so it is answered before all that ask for one
        manager.http_filters.add(name=CORS).typed_config.CopyFrom(pack(route_pb2.Cors()))
    manager.http_filters.extend(_filters(world, scope, port))
    manager.http_filters.add(name=_ROUTER).typed_config.CopyFrom(pack(listener_pb2.Router()))
    if scope.flavour != "grpc":
        set_normalization(manager, world.settings.path_normalization)
        hops = world.settings.trusted_proxies
        manager.xff_num_trusted_hops = hops
        if hops or scope.flavour == "envoy":
            manager.use_remote_address.value = hops > 0
    if scope.flavour == "envoy":
        manager.stream_idle_timeout.CopyFrom(duration(0.0))
    return listener_pb2.Filter(name=_MANAGER, typed_config=pack(manager))


def _filters(world: World, scope: Scope, port: int) -> list[listener_pb2.HttpFilter]:
    """In Istio's order: CUSTOM, tokens, AUDIT, DENY, ALLOW; then limits, which count who may come in, by what he has proved."""
    return [
        *custom_filters(world, scope),
        *jwt_filters(world, scope),
        *authorization_filters(world, scope),
        *inbound_limits(world.rate_limits, scope),
        *inbound_resilience(world, scope),
        *pool_filters(world, scope, port),
    ]


def _set_routes(config: route_pb2.RouteConfiguration, port: int, forward_to: str, browsers: list[route_pb2.Route]) -> None:
    """`browsers`: what comes before the route that takes everything."""
    config.name = f"inbound|{port}||"
    config.validate_clusters.value = False
    host = config.virtual_hosts.add(name=f"inbound|http|{port}", domains=["*"])
    host.routes.extend(browsers)
    route = host.routes.add(name="default", match=route_pb2.RouteMatch(prefix="/"))
    if forward_to:
        route.route.cluster = forward_to
        route.route.timeout.CopyFrom(duration(0.0))
    else:
        route.non_forwarding_action.SetInParent()
