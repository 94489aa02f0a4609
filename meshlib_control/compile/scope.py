"""What of a node decides its resources."""

from __future__ import annotations

from meshlib_control.catalog.model import Port, Service
from meshlib_control.compile.cors import cors_host
from meshlib_control.compile.node import Node, Scope
from meshlib_control.compile.services import is_http, is_tls
from meshlib_control.compile.world import World
from meshlib_control.config.mtls import MTLS_LABEL


def scope_of(world: World, node: Node) -> Scope:
    """Only those labels are kept that some rule asks callers for, so that most nodes of a namespace share a scope."""
    keys = (
        world.virtual_services.source_label_keys
        | world.destination_rules.selector_keys
        | world.peer_authentications.selector_keys
        | world.authorization_policies.selector_keys
        | world.request_authentications.selector_keys
        | world.sidecars.selector_keys(node.namespace)
        | world.rate_limits.selector_keys
        | world.resilience_policies.selector_keys
    )
    noticed = world.resilience_policies.notice_failures(node.namespace)
    asked = world.destination_rules.asked_traits(node.namespace, failing_over=noticed)
    keys |= asked.labels
    if node.flavour == "grpc":
        keys |= {MTLS_LABEL}  # says which kind of connection its servers listen for
    own = world.workload_groups.labels(node.namespace, node.group, node.labels)
    labels = tuple(sorted((key, own[key]) for key in keys if key in own))
    locality = world.workload_groups.locality(node.namespace, node.group, node.locality) if asked.locality else ""
    if node.flavour != "envoy":
        return Scope(node.flavour, node.namespace, labels, locality=locality, cors=cors_host(world, node))
    ports = tuple(port for port in node.ports if port.application)
    return Scope("envoy", node.namespace, labels, ports, node.identity_file, locality=locality)


def is_served(scope: Scope, service: Service, port: Port) -> bool:
    """Whether clients of this flavour can call the port through their HTTP routes.

    meshlib: every port; calls to those with TLS inside are handed to the caller's own transport.  Envoy: its outbound
    listener is an HTTP proxy.  grpcio: neither TLS of the application nor "wherever the caller wanted to go".
    """
    match scope.flavour:
        case "meshlib":
            return True
        case "envoy":
            return is_http(port)
        case "grpc":
            return not is_tls(port) and service.resolution != "NONE"
