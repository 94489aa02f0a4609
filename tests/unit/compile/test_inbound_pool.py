"""Sidecar's inboundConnectionPool: from YAML to what a process enforces, and to an Envoy's circuit breakers."""

from __future__ import annotations

import pytest

from meshlib.model.inbound_limits import InboundLimits
from meshlib.model.listener import InboundListener
from meshlib.xds.decode import decode
from meshlib.xds.proto import cluster_pb2, listener_pb2
from meshlib.xds.types import CLUSTER, LISTENER
from meshlib_control.compile import Node, World, generate, scope_of
from meshlib_control.compile.inbound import inbound_name
from meshlib_control.compile.node import Flavour, ServedPort
from tests.support.configuring import world

WHOLE = "inboundConnectionPool: {tcp: {maxConnections: 2}, http: {http1MaxPendingRequests: 5, http2MaxRequests: 7}}"


def sidecar(spec: str) -> str:
    return f"{{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {{name: default}}, spec: {{{spec}}}}}"


def limits(built: World, port: int = 8080) -> InboundLimits | None:
    scope = scope_of(built, Node())
    found = generate(built, scope, LISTENER, [inbound_name(port)])[inbound_name(port)]
    assert isinstance(found, listener_pb2.Listener)
    _, listener = decode(LISTENER, found.SerializeToString())
    assert isinstance(listener, InboundListener)
    return listener.limits


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("egress: [{hosts: ['*/*']}]", None),
        (WHOLE, InboundLimits(max_requests=7, max_active=2, max_pending=5)),
        ("inboundConnectionPool: {http: {http2MaxRequests: 7}}", InboundLimits(max_requests=7)),
        ("inboundConnectionPool: {http: {http2MaxRequests: 0}}", None),
        (WHOLE + ", ingress: [{port: {number: 8080}}]", InboundLimits(max_requests=7, max_active=2, max_pending=5)),
        (
            WHOLE + ", ingress: [{port: {number: 8080}, connectionPool: {http: {http2MaxRequests: 3}}}]",
            InboundLimits(max_requests=3),
        ),
        (
            WHOLE + ", ingress: [{port: {number: 9090}, connectionPool: {http: {http2MaxRequests: 3}}}]",
            InboundLimits(max_requests=7, max_active=2, max_pending=5),
        ),
    ],
)
def test_limits_of_the_port_then_of_the_workload(spec: str, expected: InboundLimits | None) -> None:
    """Those of a port replace the others as a whole, as in Istio."""
    assert limits(world(sidecar(spec))) == expected


@pytest.mark.parametrize("flavour", ["grpc", "envoy"])
def test_other_data_planes_get_no_filter_of_ours(flavour: Flavour) -> None:
    built = world(sidecar(WHOLE))
    node = Node(flavour=flavour, ports=(ServedPort(8080, 8081),))
    found = generate(built, scope_of(built, node), LISTENER, [inbound_name(8080), "0.0.0.0_8080"])
    assert found
    assert "inbound_limits" not in str(found)


def test_an_envoy_has_them_as_circuit_breakers_of_its_inbound_cluster() -> None:
    scope_node = Node(flavour="envoy", ports=(ServedPort(8080, 8081),))
    built = world(sidecar(WHOLE))
    found = generate(built, scope_of(built, scope_node), CLUSTER, ["inbound|8080||"])["inbound|8080||"]
    assert isinstance(found, cluster_pb2.Cluster)
    (threshold,) = found.circuit_breakers.thresholds
    numbers = (threshold.max_connections.value, threshold.max_pending_requests.value, threshold.max_requests.value)
    assert numbers == (2, 5, 7)
