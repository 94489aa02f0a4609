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
    "PathConfigSource": "envoy.config.core.v3.PathConfigSource",
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
    "RegexMatchAndSubstitute": "envoy.type.matcher.v3.RegexMatchAndSubstitute",
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
    "HTTPFault": "envoy.extensions.filters.http.fault.v3.HTTPFault",
    "FaultAbort": "envoy.extensions.filters.http.fault.v3.FaultAbort",
    "FaultDelay": "envoy.extensions.filters.common.fault.v3.FaultDelay",
    "PreviousHostsPredicate": "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    "ApiListener": "envoy.config.listener.v3.ApiListener",
    "Filter": "envoy.config.listener.v3.Filter",
    "FilterChain": "envoy.config.listener.v3.FilterChain",
    "Listener": "envoy.config.listener.v3.Listener",
    "HttpConnectionManager": "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "HttpFilter": "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
    "Rds": "envoy.extensions.filters.network.http_connection_manager.v3.Rds",
    "Router": "envoy.extensions.filters.http.router.v3.Router",
    "CidrRange": "envoy.config.core.v3.CidrRange",
    "HttpUri": "envoy.config.core.v3.HttpUri",
    "GrpcService": "envoy.config.core.v3.GrpcService",
    "HttpStatus": "envoy.type.v3.HttpStatus",
    "CertificateProviderPluginInstance": "envoy.extensions.transport_sockets.tls.v3.CertificateProviderPluginInstance",
    "CertificateValidationContext": "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext",
    "CommonTlsContext": "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext",
    "DownstreamTlsContext": "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
    "SPIFFECertValidatorConfig": "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig",
    "SdsSecretConfig": "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig",
    "Secret": "envoy.extensions.transport_sockets.tls.v3.Secret",
    "SubjectAltNameMatcher": "envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher",
    "TlsCertificate": "envoy.extensions.transport_sockets.tls.v3.TlsCertificate",
    "TlsParameters": "envoy.extensions.transport_sockets.tls.v3.TlsParameters",
    "UpstreamTlsContext": "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    "RawBuffer": "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    "FilterChainMatch": "envoy.config.listener.v3.FilterChainMatch",
    "ListenerFilter": "envoy.config.listener.v3.ListenerFilter",
    "TlsInspector": "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    "TcpProxy": "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    "FilterStateMatcher": "envoy.type.matcher.v3.FilterStateMatcher",
    "ListMatcher": "envoy.type.matcher.v3.ListMatcher",
    "ListStringMatcher": "envoy.type.matcher.v3.ListStringMatcher",
    "MetadataMatcher": "envoy.type.matcher.v3.MetadataMatcher",
    "OrMatcher": "envoy.type.matcher.v3.OrMatcher",
    "PathMatcher": "envoy.type.matcher.v3.PathMatcher",
    "ValueMatcher": "envoy.type.matcher.v3.ValueMatcher",
    "DoubleMatcher": "envoy.type.matcher.v3.DoubleMatcher",
    "UriTemplateMatchConfig": "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
    "Permission": "envoy.config.rbac.v3.Permission",
    "Principal": "envoy.config.rbac.v3.Principal",
    "Policy": "envoy.config.rbac.v3.Policy",
    "RBAC": "envoy.config.rbac.v3.RBAC",
    "HttpRBAC": "envoy.extensions.filters.http.rbac.v3.RBAC",
    "HttpRBACPerRoute": "envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
    "NetworkRBAC": "envoy.extensions.filters.network.rbac.v3.RBAC",
    "JwtAuthentication": "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
    "JwtProvider": "envoy.extensions.filters.http.jwt_authn.v3.JwtProvider",
    "JwtHeader": "envoy.extensions.filters.http.jwt_authn.v3.JwtHeader",
    "JwtClaimToHeader": "envoy.extensions.filters.http.jwt_authn.v3.JwtClaimToHeader",
    "JwtRequirement": "envoy.extensions.filters.http.jwt_authn.v3.JwtRequirement",
    "JwtRequirementOrList": "envoy.extensions.filters.http.jwt_authn.v3.JwtRequirementOrList",
    "JwtRequirementAndList": "envoy.extensions.filters.http.jwt_authn.v3.JwtRequirementAndList",
    "ProviderWithAudiences": "envoy.extensions.filters.http.jwt_authn.v3.ProviderWithAudiences",
    "RequirementRule": "envoy.extensions.filters.http.jwt_authn.v3.RequirementRule",
    "RemoteJwks": "envoy.extensions.filters.http.jwt_authn.v3.RemoteJwks",
    "JwksAsyncFetch": "envoy.extensions.filters.http.jwt_authn.v3.JwksAsyncFetch",
    "ExtAuthz": "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
    "BufferSettings": "envoy.extensions.filters.http.ext_authz.v3.BufferSettings",
    "HttpService": "envoy.extensions.filters.http.ext_authz.v3.HttpService",
    "AuthorizationRequest": "envoy.extensions.filters.http.ext_authz.v3.AuthorizationRequest",
    "AuthorizationResponse": "envoy.extensions.filters.http.ext_authz.v3.AuthorizationResponse",
    "NetworkExtAuthz": "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz",
    "AttributeContext": "envoy.service.auth.v3.AttributeContext",
    "CheckRequest": "envoy.service.auth.v3.CheckRequest",
    "CheckResponse": "envoy.service.auth.v3.CheckResponse",
    "DeniedHttpResponse": "envoy.service.auth.v3.DeniedHttpResponse",
    "OkHttpResponse": "envoy.service.auth.v3.OkHttpResponse",
    "QueryParameter": "envoy.config.core.v3.QueryParameter",
    "RuntimeDouble": "envoy.config.core.v3.RuntimeDouble",
    "HealthCheck": "envoy.config.core.v3.HealthCheck",
    "HttpHeadersMatch": "envoy.config.common.matcher.v3.HttpHeadersMatch",
    "MatchPredicate": "envoy.config.common.matcher.v3.MatchPredicate",
    "OutlierDetection": "envoy.config.cluster.v3.OutlierDetection",
    "PreviousPrioritiesConfig": "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
    "CorsPolicy": "envoy.extensions.filters.http.cors.v3.CorsPolicy",
    "Cors": "envoy.extensions.filters.http.cors.v3.Cors",
    "TokenBucket": "envoy.type.v3.TokenBucket",
    "RateLimitStrategy": "envoy.type.v3.RateLimitStrategy",
    "BucketId": "envoy.service.rate_limit_quota.v3.BucketId",
    "RateLimitQuotaUsageReports": "envoy.service.rate_limit_quota.v3.RateLimitQuotaUsageReports",
    "RateLimitQuotaResponse": "envoy.service.rate_limit_quota.v3.RateLimitQuotaResponse",
}


OWN_PACKAGE: Final = "meshlib.policy.v1"
"""Proto package of what only meshlib's own data plane executes; it has no counterpart in Envoy's API."""


def type_url(message: type[Message] | Message) -> str:
    """The `@type` that Envoy knows this message by; our own messages go by their own names."""
    descriptor = message.DESCRIPTOR
    if descriptor.file.package == OWN_PACKAGE:
        return PREFIX + str(descriptor.full_name)
    return PREFIX + ENVOY_NAMES[descriptor.name]


def pack(message: Message) -> Any:
    """An Any with Envoy's type URL.  Deterministic: equal messages give equal bytes."""
    return Any(type_url=type_url(message), value=message.SerializeToString(deterministic=True))


LISTENER: Final = PREFIX + ENVOY_NAMES["Listener"]
ROUTE: Final = PREFIX + ENVOY_NAMES["RouteConfiguration"]
CLUSTER: Final = PREFIX + ENVOY_NAMES["Cluster"]
ENDPOINTS: Final = PREFIX + ENVOY_NAMES["ClusterLoadAssignment"]
SECRET: Final = PREFIX + ENVOY_NAMES["Secret"]

SHORT_NAMES: Final = {LISTENER: "LDS", ROUTE: "RDS", CLUSTER: "CDS", ENDPOINTS: "EDS", SECRET: "SDS"}
"""For people: `meshctl status`, messages, metrics."""

ADS_SERVICE: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
ADS_DELTA: Final = f"/{ADS_SERVICE}/DeltaAggregatedResources"
