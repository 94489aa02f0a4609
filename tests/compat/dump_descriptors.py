"""Prints, as JSON, the fields of Envoy's own messages.  Run by a Python that has `xds-protos`; knows nothing of meshlib.

stdin: a list of full message names.  stdout: {name: {"fields": {number: [...]}, "nested": {...}}, ...}
"""

from __future__ import annotations

import importlib
import json
import sys

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor

FILES = (
    "envoy.config.core.v3.base_pb2",
    "envoy.config.core.v3.address_pb2",
    "envoy.config.core.v3.config_source_pb2",
    "envoy.config.core.v3.extension_pb2",
    "envoy.config.core.v3.health_check_pb2",
    "envoy.config.core.v3.protocol_pb2",
    "envoy.type.v3.percent_pb2",
    "envoy.type.v3.range_pb2",
    "envoy.type.matcher.v3.regex_pb2",
    "envoy.type.matcher.v3.string_pb2",
    "google.rpc.status_pb2",
    "envoy.service.discovery.v3.discovery_pb2",
    "envoy.config.endpoint.v3.endpoint_pb2",
    "envoy.config.endpoint.v3.endpoint_components_pb2",
    "envoy.config.cluster.v3.circuit_breaker_pb2",
    "envoy.config.common.matcher.v3.matcher_pb2",
    "envoy.config.cluster.v3.cluster_pb2",
    "envoy.config.cluster.v3.outlier_detection_pb2",
    "envoy.extensions.upstreams.http.v3.http_protocol_options_pb2",
    "envoy.config.route.v3.route_pb2",
    "envoy.config.route.v3.route_components_pb2",
    "envoy.extensions.filters.common.fault.v3.fault_pb2",
    "envoy.extensions.filters.http.fault.v3.fault_pb2",
    "envoy.extensions.filters.http.cors.v3.cors_pb2",
    "envoy.extensions.retry.priority.previous_priorities.v3.previous_priorities_config_pb2",
    "envoy.service.rate_limit_quota.v3.rlqs_pb2",
    "envoy.type.v3.ratelimit_strategy_pb2",
    "envoy.type.v3.token_bucket_pb2",
    "envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2",
    "envoy.config.listener.v3.api_listener_pb2",
    "envoy.config.listener.v3.listener_components_pb2",
    "envoy.config.listener.v3.listener_pb2",
    "envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2",
    "envoy.extensions.filters.http.router.v3.router_pb2",
    "envoy.config.core.v3.grpc_service_pb2",
    "envoy.config.core.v3.http_uri_pb2",
    "envoy.config.rbac.v3.rbac_pb2",
    "envoy.extensions.filters.http.ext_authz.v3.ext_authz_pb2",
    "envoy.extensions.filters.http.jwt_authn.v3.config_pb2",
    "envoy.extensions.filters.http.rbac.v3.rbac_pb2",
    "envoy.extensions.filters.listener.tls_inspector.v3.tls_inspector_pb2",
    "envoy.extensions.filters.network.ext_authz.v3.ext_authz_pb2",
    "envoy.extensions.filters.network.rbac.v3.rbac_pb2",
    "envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2",
    "envoy.extensions.path.match.uri_template.v3.uri_template_match_pb2",
    "envoy.extensions.transport_sockets.raw_buffer.v3.raw_buffer_pb2",
    "envoy.extensions.transport_sockets.tls.v3.tls_pb2",
    "envoy.extensions.transport_sockets.tls.v3.tls_spiffe_validator_config_pb2",
    "envoy.service.auth.v3.external_auth_pb2",
    "envoy.type.matcher.v3.filter_state_pb2",
    "envoy.type.matcher.v3.metadata_pb2",
    "envoy.type.matcher.v3.path_pb2",
    "envoy.type.matcher.v3.value_pb2",
    "envoy.type.v3.http_status_pb2",
)


def field_shape(field: FieldDescriptor) -> dict[str, object]:
    """All that decides the bytes of a field, and its meaning on the wire."""
    enum = field.enum_type
    return {
        "name": field.name,
        "type": field.type,
        "repeated": field.is_repeated,
        "presence": field.has_presence,
        "oneof": field.containing_oneof.name if field.containing_oneof is not None else None,
        "message": field.message_type.full_name if field.message_type is not None else None,
        "map": bool(field.message_type is not None and field.message_type.GetOptions().map_entry),
        "enum": {value.name: value.number for value in enum.values} if enum is not None else None,
    }


def message_shape(message: Descriptor) -> dict[str, dict[str, object]]:
    return {str(field.number): field_shape(field) for field in message.fields}


def main() -> None:
    for name in FILES:
        importlib.import_module(name)
    pool = descriptor_pool.Default()
    wanted = json.load(sys.stdin)
    json.dump({name: message_shape(pool.FindMessageTypeByName(name)) for name in wanted}, sys.stdout)


if __name__ == "__main__":
    main()
