"""Names: our trimmed messages, Envoy's, and the type URLs on the wire.  One table, everything else is derived."""

from __future__ import annotations

from typing import Final

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

PREFIX: Final = "type.googleapis.com/"

ENVOY_NAMES: Final[dict[str, str]] = {
    # message in meshlib.xds.v3 -> the message of Envoy's API that it is wire-compatible with
    "AggregatedConfigSource": "envoy.config.core.v3.AggregatedConfigSource",
    "Address": "envoy.config.core.v3.Address",
    "CommonHttpProtocolOptions": "envoy.config.core.v3.HttpProtocolOptions",
    "ConfigSource": "envoy.config.core.v3.ConfigSource",
    "ControlPlane": "envoy.config.core.v3.ControlPlane",
    "DataSource": "envoy.config.core.v3.DataSource",
    "HeaderValue": "envoy.config.core.v3.HeaderValue",
    "HeaderValueOption": "envoy.config.core.v3.HeaderValueOption",
    "Http1ProtocolOptions": "envoy.config.core.v3.Http1ProtocolOptions",
    "Http2ProtocolOptions": "envoy.config.core.v3.Http2ProtocolOptions",
    "Locality": "envoy.config.core.v3.Locality",
    "Metadata": "envoy.config.core.v3.Metadata",
    "Node": "envoy.config.core.v3.Node",
    "Pipe": "envoy.config.core.v3.Pipe",
    "RuntimeFractionalPercent": "envoy.config.core.v3.RuntimeFractionalPercent",
    "SelfConfigSource": "envoy.config.core.v3.SelfConfigSource",
    "SocketAddress": "envoy.config.core.v3.SocketAddress",
    "TcpKeepalive": "envoy.config.core.v3.TcpKeepalive",
    "TransportSocket": "envoy.config.core.v3.TransportSocket",
    "TypedExtensionConfig": "envoy.config.core.v3.TypedExtensionConfig",
    "FractionalPercent": "envoy.type.v3.FractionalPercent",
    "Int64Range": "envoy.type.v3.Int64Range",
    "Percent": "envoy.type.v3.Percent",
    "RegexMatcher": "envoy.type.matcher.v3.RegexMatcher",
    "StringMatcher": "envoy.type.matcher.v3.StringMatcher",
    "Status": "google.rpc.Status",
    "DeltaDiscoveryRequest": "envoy.service.discovery.v3.DeltaDiscoveryRequest",
    "DeltaDiscoveryResponse": "envoy.service.discovery.v3.DeltaDiscoveryResponse",
    "DiscoveryRequest": "envoy.service.discovery.v3.DiscoveryRequest",
    "DiscoveryResponse": "envoy.service.discovery.v3.DiscoveryResponse",
    "Resource": "envoy.service.discovery.v3.Resource",
    "ClusterLoadAssignment": "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "Endpoint": "envoy.config.endpoint.v3.Endpoint",
    "LbEndpoint": "envoy.config.endpoint.v3.LbEndpoint",
    "LocalityLbEndpoints": "envoy.config.endpoint.v3.LocalityLbEndpoints",
    "CircuitBreakers": "envoy.config.cluster.v3.CircuitBreakers",
    "Cluster": "envoy.config.cluster.v3.Cluster",
    "UpstreamConnectionOptions": "envoy.config.cluster.v3.UpstreamConnectionOptions",
    "HttpProtocolOptions": "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "DirectResponseAction": "envoy.config.route.v3.DirectResponseAction",
    "HeaderMatcher": "envoy.config.route.v3.HeaderMatcher",
    "NonForwardingAction": "envoy.config.route.v3.NonForwardingAction",
    "QueryParameterMatcher": "envoy.config.route.v3.QueryParameterMatcher",
    "RedirectAction": "envoy.config.route.v3.RedirectAction",
    "RetryPolicy": "envoy.config.route.v3.RetryPolicy",
    "Route": "envoy.config.route.v3.Route",
    "RouteAction": "envoy.config.route.v3.RouteAction",
    "RouteConfiguration": "envoy.config.route.v3.RouteConfiguration",
    "RouteMatch": "envoy.config.route.v3.RouteMatch",
    "VirtualHost": "envoy.config.route.v3.VirtualHost",
    "WeightedCluster": "envoy.config.route.v3.WeightedCluster",
    "PreviousHostsPredicate": "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    "ApiListener": "envoy.config.listener.v3.ApiListener",
    "Filter": "envoy.config.listener.v3.Filter",
    "FilterChain": "envoy.config.listener.v3.FilterChain",
    "Listener": "envoy.config.listener.v3.Listener",
    "HttpConnectionManager": "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "HttpFilter": "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
    "Rds": "envoy.extensions.filters.network.http_connection_manager.v3.Rds",
    "Router": "envoy.extensions.filters.http.router.v3.Router",
}


def type_url(message: type[Message] | Message) -> str:
    """The `@type` that Envoy knows this message by."""
    return PREFIX + ENVOY_NAMES[message.DESCRIPTOR.name]


def pack(message: Message) -> Any:
    """An Any with Envoy's type URL.  Deterministic: equal messages give equal bytes."""
    return Any(type_url=type_url(message), value=message.SerializeToString(deterministic=True))


LISTENER: Final = PREFIX + ENVOY_NAMES["Listener"]
ROUTE: Final = PREFIX + ENVOY_NAMES["RouteConfiguration"]
CLUSTER: Final = PREFIX + ENVOY_NAMES["Cluster"]
ENDPOINTS: Final = PREFIX + ENVOY_NAMES["ClusterLoadAssignment"]

SHORT_NAMES: Final = {LISTENER: "LDS", ROUTE: "RDS", CLUSTER: "CDS", ENDPOINTS: "EDS"}
"""For people: `meshctl status`, messages, metrics."""

ADS_SERVICE: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
ADS_STREAM: Final = f"/{ADS_SERVICE}/StreamAggregatedResources"
ADS_DELTA: Final = f"/{ADS_SERVICE}/DeltaAggregatedResources"
