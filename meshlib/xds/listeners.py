"""Listener → model: an API listener with an HTTP connection manager (gRFC A27)."""

from __future__ import annotations

from meshlib.model.listener import Listener, PathNormalization
from meshlib.xds.clusters import check_source
from meshlib.xds.fields import allow_only, parse, seconds, unpack
from meshlib.xds.inbound import decode_normalization
from meshlib.xds.invalid import Problems
from meshlib.xds.proto import listener_pb2
from meshlib.xds.routes import decode_routes
from meshlib.xds.types import type_url

_FIELDS = frozenset({"name", "api_listener", "traffic_direction"})
_MANAGER_FIELDS = frozenset(
    {
        "rds",
        "route_config",
        "http_filters",
        "normalize_path",
        "merge_slashes",
        "path_with_escaped_slashes_action",
        # Not acted on: a prefix of statistics, the codec of a socket that an API listener does not have, and an idle
        # timeout that is looked at below.
        "stat_prefix",
        "codec_type",
        "stream_idle_timeout",
    }
)
_ROUTER = type_url(listener_pb2.Router)


def decode_listener(listener: listener_pb2.Listener, problems: Problems) -> Listener:
    allow_only(listener, _FIELDS, field="", problems=problems)
    nothing = Listener(listener.name)
    if not listener.HasField("api_listener"):
        problems.describe("api_listener", "unset", "an API listener")
        return nothing
    field = "api_listener.api_listener"
    manager = unpack(listener.api_listener.api_listener, listener_pb2.HttpConnectionManager, field=field, problems=problems)
    if manager is None:
        return nothing
    allow_only(manager, _MANAGER_FIELDS, field=field, problems=problems)
    if seconds(manager.stream_idle_timeout, field=f"{field}.stream_idle_timeout", problems=problems):
        problems.describe(f"{field}.stream_idle_timeout", "set", "unset or 0s")
    _check_filters(manager, problems, field=f"{field}.http_filters")
    normalization = PathNormalization.BASE  # Istio's default; a control service that says nothing means it
    if manager.HasField("normalize_path") or manager.merge_slashes or manager.path_with_escaped_slashes_action:
        normalization = decode_normalization(manager, problems, field=field)
    match manager.WhichOneof("route_specifier"):
        case "rds":
            check_source(manager.rds.config_source, problems, field=f"{field}.rds.config_source")
            if not manager.rds.route_config_name:
                problems.add(f"{field}.rds.route_config_name", "", "a name")
            return Listener(listener.name, route_config_name=manager.rds.route_config_name, normalization=normalization)
        case "route_config":
            routes = decode_routes(manager.route_config, problems, field=f"{field}.route_config")
            return Listener(listener.name, route_config=routes, normalization=normalization)
        case _:
            problems.describe(field, "no route_specifier", "rds or route_config")
            return nothing


def _check_filters(manager: listener_pb2.HttpConnectionManager, problems: Problems, *, field: str) -> None:
    """The router, last; before it only what is marked optional, since leaving out a filter leaves out a policy (A39)."""
    filters = manager.http_filters
    if not filters or filters[-1].typed_config.type_url != _ROUTER:
        last = repr(filters[-1].name) if filters else "none"
        problems.describe(field, last, "the router filter at the end, with its typed_config")
    for index, item in enumerate(filters):
        where = f"{field}[{index}]"
        if item.typed_config.type_url == _ROUTER:
            parse(listener_pb2.Router, item.typed_config.value, field=f"{where}.typed_config", problems=problems)
            if index != len(filters) - 1:
                problems.add(where, item.name, "the router filter only at the end")
        elif not item.is_optional:
            problems.add(where, item.typed_config.type_url or item.name, "a filter that is supported, or is_optional")
