"""Bytes of a resource → a value of `meshlib.model`, or everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from google.protobuf.message import Message

from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Assignment
from meshlib.model.identity import TrustBundles
from meshlib.model.listener import INBOUND_PREFIX, InboundListener, Listener
from meshlib.model.route import RouteConfig
from meshlib.xds.clusters import decode_cluster
from meshlib.xds.endpoints import decode_endpoints
from meshlib.xds.fields import parse
from meshlib.xds.inbound import decode_inbound
from meshlib.xds.invalid import Problems, ResourceInvalid
from meshlib.xds.listeners import decode_listener
from meshlib.xds.proto import cluster_pb2, endpoint_pb2, listener_pb2, route_pb2, tls_pb2
from meshlib.xds.routes import decode_routes
from meshlib.xds.secrets import decode_secret
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE, SECRET

ResourceValue = Listener | InboundListener | RouteConfig | Cluster | Assignment | TrustBundles
"""What LDS, RDS, CDS, EDS and SDS resources become."""

MAX_NAME: Final = 2048
"""Longest resource name, in characters."""


def decode(type_url: str, value: bytes) -> tuple[str, ResourceValue]:
    """The resource's name and what it says.  `value` is the content of its Any.

    Raises `ResourceInvalid` with every problem: unknown fields at any depth, fields and enum values that this data plane
    does not support, values out of range.  Nothing is dropped silently.
    """
    problems = Problems()
    decoded: tuple[str, ResourceValue] | None = None
    reader = _READERS.get(type_url)
    if reader is None:
        problems.add("", type_url, "a Listener, RouteConfiguration, Cluster, ClusterLoadAssignment or Secret")
    else:
        decoded = reader(value, problems)
    name = decoded[0] if decoded else ""
    if decoded and not 0 < len(name) <= MAX_NAME:
        problems.add("cluster_name" if type_url == ENDPOINTS else "name", name, f"1 to {MAX_NAME} characters")
    if problems or decoded is None:
        raise ResourceInvalid(name[:MAX_NAME], type_url, tuple(problems.found))
    return decoded


def _listener(value: bytes, problems: Problems) -> tuple[str, ResourceValue] | None:
    message = parse(listener_pb2.Listener, value, field="", problems=problems)
    if message is None:
        return None
    is_inbound = message.name.startswith(INBOUND_PREFIX)
    return message.name, decode_inbound(message, problems) if is_inbound else decode_listener(message, problems)


def _routes(value: bytes, problems: Problems) -> tuple[str, ResourceValue] | None:
    message = parse(route_pb2.RouteConfiguration, value, field="", problems=problems)
    return None if message is None else (message.name, decode_routes(message, problems))


def _cluster(value: bytes, problems: Problems) -> tuple[str, ResourceValue] | None:
    message = parse(cluster_pb2.Cluster, value, field="", problems=problems)
    return None if message is None else (message.name, decode_cluster(message, problems))


def _endpoints(value: bytes, problems: Problems) -> tuple[str, ResourceValue] | None:
    message = parse(endpoint_pb2.ClusterLoadAssignment, value, field="", problems=problems)
    return None if message is None else (message.cluster_name, decode_endpoints(message, problems))


def _secret(value: bytes, problems: Problems) -> tuple[str, ResourceValue] | None:
    message = parse(tls_pb2.Secret, value, field="", problems=problems)
    return None if message is None else (message.name, decode_secret(message, problems))


_READERS: Final[dict[str, Callable[[bytes, Problems], tuple[str, ResourceValue] | None]]] = {
    LISTENER: _listener,
    ROUTE: _routes,
    CLUSTER: _cluster,
    ENDPOINTS: _endpoints,
    SECRET: _secret,
}


def name_of(message: Message) -> str:
    """The name by which a resource message is asked for."""
    if isinstance(message, endpoint_pb2.ClusterLoadAssignment):
        return message.cluster_name
    name = getattr(message, "name", None)
    if not isinstance(name, str):
        raise TypeError(f"{type(message).__name__} is no resource of its own")
    return name
