"""Inbound listener → model: what a process enforces on a port that it serves (gRFC A36, A41).

Nothing in it may be passed over: a filter that is left out is a policy that is left out.  There is one kind of chain for
connections with mTLS and one for those without, and both must say the same about requests.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from google.protobuf.any_pb2 import Any

from meshlib.model.inbound_limits import InboundLimits
from meshlib.model.listener import INBOUND_PREFIX, HttpFilter, InboundListener, MtlsMode, PathNormalization
from meshlib.model.resilience import ServerResilience
from meshlib.xds.cors import decode_cors
from meshlib.xds.ext_authz import decode_ext_authz
from meshlib.xds.fields import allow_only, join_path, parse, seconds, unpack
from meshlib.xds.inbound_limits import decode_inbound_limits
from meshlib.xds.invalid import Problems
from meshlib.xds.jwt import decode_jwt
from meshlib.xds.proto import (
    ext_authz_pb2,
    inbound_limits_pb2,
    jwt_pb2,
    listener_pb2,
    rate_limit_pb2,
    rbac_pb2,
    resilience_pb2,
    route_pb2,
)
from meshlib.xds.rate_limit import decode_rate_limits
from meshlib.xds.rbac import decode_rbac
from meshlib.xds.resilience import decode_server_resilience
from meshlib.xds.tls import decode_downstream, is_raw
from meshlib.xds.types import type_url

_Manager = listener_pb2.HttpConnectionManager
_FIELDS = frozenset({"name", "address", "filter_chains", "traffic_direction"})
_CHAIN_FIELDS = frozenset({"filter_chain_match", "filters", "transport_socket", "name"})
_MATCH_FIELDS = frozenset({"transport_protocol"})
_MANAGER_FIELDS = frozenset(
    {
        "route_config",
        "http_filters",
        "normalize_path",
        "merge_slashes",
        "path_with_escaped_slashes_action",
        "use_remote_address",
        "xff_num_trusted_hops",
        # Not acted on: a prefix of statistics, the codec of a socket that the application's server has, and an idle timeout
        # that is looked at below.
        "stat_prefix",
        "codec_type",
        "stream_idle_timeout",
    }
)
_ROUTE_CONFIG_FIELDS = frozenset({"name", "virtual_hosts", "validate_clusters"})
_HOST_FIELDS = frozenset({"name", "domains", "routes"})
_ROUTE_FIELDS = frozenset({"name", "match", "non_forwarding_action"})
_PREFIX_FIELDS = frozenset({"prefix"})
_TLS, _RAW = "tls", "raw_buffer"

_NORMALIZATIONS: Final = {
    # normalize_path, merge_slashes, path_with_escaped_slashes_action, as Istio sets them
    (False, False, _Manager.IMPLEMENTATION_SPECIFIC_DEFAULT): PathNormalization.NONE,
    (True, False, _Manager.IMPLEMENTATION_SPECIFIC_DEFAULT): PathNormalization.BASE,
    (True, True, _Manager.IMPLEMENTATION_SPECIFIC_DEFAULT): PathNormalization.MERGE_SLASHES,
    (True, True, _Manager.UNESCAPE_AND_FORWARD): PathNormalization.DECODE_AND_MERGE_SLASHES,
}
_ROUTER = type_url(listener_pb2.Router)
_LIMITS: Final = type_url(inbound_limits_pb2.InboundLimits)
_RESILIENCE: Final = type_url(resilience_pb2.ServerResilience)
_CORS = type_url(route_pb2.Cors)


def decode_inbound(listener: listener_pb2.Listener, problems: Problems) -> InboundListener:
    allow_only(listener, _FIELDS, field="", problems=problems)
    port = _port(listener, problems)
    chains: dict[str, listener_pb2.FilterChain] = {}
    minimum_version = ""
    for index, chain in enumerate(listener.filter_chains):
        field = f"filter_chains[{index}]"
        protocol = _protocol(chain, problems, field=field)
        if protocol in chains:
            problems.describe(field, f"another chain for {protocol}", "one chain for each transport_protocol")
        chains[protocol] = chain
        if protocol == _TLS:
            minimum_version = decode_downstream(chain.transport_socket, problems, field=f"{field}.transport_socket")
    if not chains:
        problems.describe("filter_chains", "none", "a chain for tls, for raw_buffer, or for both")
        return InboundListener(listener.name, port)
    manager = _manager(listener, problems)
    if manager is None:
        return InboundListener(listener.name, port)
    field = "filter_chains[0].filters[0].typed_config"
    _check_manager(manager, problems, field=field)
    return InboundListener(
        name=listener.name,
        port=port,
        mtls=_mode(chains.keys()),
        normalization=decode_normalization(manager, problems, field=field),
        filters=_filters(manager, problems, field=f"{field}.http_filters"),
        minimum_version=minimum_version,
        trusted_hops=manager.xff_num_trusted_hops,
        limits=_limits(manager, problems, field=f"{field}.http_filters"),
        resilience=_resilience(manager, problems, field=f"{field}.http_filters"),
    )


def _port(listener: listener_pb2.Listener, problems: Problems) -> int:
    text = listener.name.removeprefix(INBOUND_PREFIX)
    address = listener.address.socket_address
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        problems.add("name", listener.name, f"{INBOUND_PREFIX}PORT")
        return 0
    if (address.address, address.port_value) != ("0.0.0.0", int(text)):  # compared, not listened on
        problems.add("address", f"{address.address}:{address.port_value}", f"0.0.0.0:{text}, as in the name")
    return int(text)


def _protocol(chain: listener_pb2.FilterChain, problems: Problems, *, field: str) -> str:
    """Which connections a chain is for.  Without a match: by the socket that it has."""
    allow_only(chain, _CHAIN_FIELDS, field=field, problems=problems)
    allow_only(chain.filter_chain_match, _MATCH_FIELDS, field=f"{field}.filter_chain_match", problems=problems)
    where = f"{field}.transport_socket"
    plain = not chain.HasField("transport_socket") or is_raw(chain.transport_socket, problems, field=where)
    found = _RAW if plain else _TLS
    wanted = chain.filter_chain_match.transport_protocol
    if wanted not in ("", found):
        problems.add(f"{field}.filter_chain_match.transport_protocol", wanted, f"{found!r}, as its transport_socket is")
    return found


def _mode(protocols: Collection[str]) -> MtlsMode:
    if len(protocols) > 1:
        return MtlsMode.PERMISSIVE
    return MtlsMode.STRICT if _TLS in protocols else MtlsMode.DISABLE


def _manager(listener: listener_pb2.Listener, problems: Problems) -> listener_pb2.HttpConnectionManager | None:
    """The one HTTP connection manager of all chains."""
    packed: list[Any] = []
    for index, chain in enumerate(listener.filter_chains):
        if len(chain.filters) != 1:
            problems.describe(f"filter_chains[{index}].filters", f"{len(chain.filters)} filters", "one: HTTP")
            return None
        packed.append(chain.filters[0].typed_config)
    if any(other != packed[0] for other in packed[1:]):
        problems.describe("filter_chains", "different filters", "the same for connections with mTLS and without")
    field = "filter_chains[0].filters[0].typed_config"
    return unpack(packed[0], listener_pb2.HttpConnectionManager, field=field, problems=problems)


def _check_manager(manager: listener_pb2.HttpConnectionManager, problems: Problems, *, field: str) -> None:
    """Every request goes to the application: there is nothing to route here, routes only tell filters what to do."""
    allow_only(manager, _MANAGER_FIELDS, field=field, problems=problems)
    if seconds(manager.stream_idle_timeout, field=f"{field}.stream_idle_timeout", problems=problems):
        problems.describe(f"{field}.stream_idle_timeout", "set", "unset or 0s")
    # The client is the connection's other end, or whom so many hops say it is; never whom it says it is itself.
    if manager.HasField("use_remote_address"):
        if not manager.use_remote_address.value or not manager.xff_num_trusted_hops:
            problems.describe(f"{field}.use_remote_address", "set", "true, with xff_num_trusted_hops; or unset")
    elif manager.xff_num_trusted_hops:
        problems.describe(f"{field}.use_remote_address", "unset", "true, since xff_num_trusted_hops is set")
    config, where = manager.route_config, f"{field}.route_config"
    allow_only(config, _ROUTE_CONFIG_FIELDS, field=where, problems=problems)
    for host in config.virtual_hosts:
        allow_only(host, _HOST_FIELDS, field=f"{where}.virtual_hosts[0]", problems=problems)
        for route in host.routes[-1:]:  # those before it are the CORS filter's
            inner = f"{where}.virtual_hosts[0].routes[{len(host.routes) - 1}]"
            allow_only(route, _ROUTE_FIELDS, field=inner, problems=problems)
            allow_only(route.match, _PREFIX_FIELDS, field=f"{inner}.match", problems=problems)
    if not _is_for_everything(config):
        problems.describe(where, "other routes", 'one virtual host "*" with non_forwarding_action, the last with prefix "/"')
    if len(config.virtual_hosts[0].routes if config.virtual_hosts else ()) > 1 and not any(
        item.typed_config.type_url == _CORS for item in manager.http_filters
    ):
        problems.describe(where, "several routes", "one route, since no filter makes a difference between them")


def _is_for_everything(config: route_pb2.RouteConfiguration) -> bool:
    if len(config.virtual_hosts) != 1 or not config.virtual_hosts[0].routes:
        return False
    host = config.virtual_hosts[0]
    forwards = not all(route.HasField("non_forwarding_action") for route in host.routes)
    return list(host.domains) == ["*"] and host.routes[-1].match.prefix == "/" and not forwards


def decode_normalization(manager: listener_pb2.HttpConnectionManager, problems: Problems, *, field: str) -> PathNormalization:
    """The mode of ``MeshConfig.pathNormalization`` that a connection manager was made for."""
    asked = manager.normalize_path.value, manager.merge_slashes, manager.path_with_escaped_slashes_action
    found = _NORMALIZATIONS.get(asked)
    if found is None:
        names = "normalize_path, merge_slashes, path_with_escaped_slashes_action"
        problems.describe(join_path(field, "normalize_path"), str(asked), f"{names} as one of Istio's modes has them")
        return PathNormalization.BASE
    return found


def _filters(manager: listener_pb2.HttpConnectionManager, problems: Problems, *, field: str) -> tuple[HttpFilter, ...]:
    """In order.  The router stands at the end, and there only."""
    found: list[HttpFilter] = []
    last = len(manager.http_filters) - 1
    if last < 0 or manager.http_filters[last].typed_config.type_url != _ROUTER:
        problems.describe(field, "no router at the end", "the router filter at the end, with its typed_config")
    for index, item in enumerate(manager.http_filters):
        where = f"{field}[{index}]"
        if item.typed_config.type_url == _ROUTER:
            parse(listener_pb2.Router, item.typed_config.value, field=f"{where}.typed_config", problems=problems)
            if index != last:
                problems.add(where, item.name, "the router filter only at the end")
            continue
        if item.typed_config.type_url == _CORS:
            parse(route_pb2.Cors, item.typed_config.value, field=f"{where}.typed_config", problems=problems)
            routes = f"{field.removesuffix('.http_filters')}.route_config"
            found.append(decode_cors(manager.route_config, problems, field=routes))
            continue
        if item.typed_config.type_url in (_LIMITS, _RESILIENCE):
            continue  # see `_limits` and `_resilience`
        decoder = _DECODERS.get(item.typed_config.type_url)
        if decoder is None:
            if not item.is_optional:
                problems.add(where, item.typed_config.type_url or item.name, "a filter that is supported, or is_optional")
            continue
        one = decoder(item, problems, f"{where}.typed_config")
        if one is not None:
            found.append(one)
    return tuple(found)


def _resilience(manager: listener_pb2.HttpConnectionManager, problems: Problems, *, field: str) -> ServerResilience | None:
    """Wherever it stands among the filters, it comes after those that refuse requests for what they are."""
    for index, item in enumerate(manager.http_filters):
        if item.typed_config.type_url == _RESILIENCE:
            where = f"{field}[{index}].typed_config"
            message = unpack(item.typed_config, resilience_pb2.ServerResilience, field=where, problems=problems)
            return decode_server_resilience(message, item.name, problems, field=where) if message is not None else None
    return None


def _limits(manager: listener_pb2.HttpConnectionManager, problems: Problems, *, field: str) -> InboundLimits | None:
    """They look at no request: wherever they stand among the filters, they come last."""
    for index, item in enumerate(manager.http_filters):
        if item.typed_config.type_url == _LIMITS:
            where = f"{field}[{index}].typed_config"
            message = unpack(item.typed_config, inbound_limits_pb2.InboundLimits, field=where, problems=problems)
            return decode_inbound_limits(message) if message is not None else None
    return None


def _rbac(item: listener_pb2.HttpFilter, problems: Problems, field: str) -> HttpFilter | None:
    message = unpack(item.typed_config, rbac_pb2.HttpRBAC, field=field, problems=problems)
    return decode_rbac(message, item.name, problems, field=field) if message is not None else None


def _jwt(item: listener_pb2.HttpFilter, problems: Problems, field: str) -> HttpFilter | None:
    message = unpack(item.typed_config, jwt_pb2.JwtAuthentication, field=field, problems=problems)
    return decode_jwt(message, item.name, problems, field=field) if message is not None else None


def _ext_authz(item: listener_pb2.HttpFilter, problems: Problems, field: str) -> HttpFilter | None:
    message = unpack(item.typed_config, ext_authz_pb2.ExtAuthz, field=field, problems=problems)
    return decode_ext_authz(message, item.name, problems, field=field) if message is not None else None


def _rate_limits(item: listener_pb2.HttpFilter, problems: Problems, field: str) -> HttpFilter | None:
    message = unpack(item.typed_config, rate_limit_pb2.RateLimits, field=field, problems=problems)
    return decode_rate_limits(message, problems, field=field) if message is not None else None


_DECODERS: Final[dict[str, Callable[[listener_pb2.HttpFilter, Problems, str], HttpFilter | None]]] = {
    type_url(rbac_pb2.HttpRBAC): _rbac,
    type_url(jwt_pb2.JwtAuthentication): _jwt,
    type_url(ext_authz_pb2.ExtAuthz): _ext_authz,
    type_url(rate_limit_pb2.RateLimits): _rate_limits,
}
