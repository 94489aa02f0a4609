"""Ports of nodes that do not name them: those of their service, or one that stands for any where policies hold."""

from __future__ import annotations

import pytest

from meshlib_control.compile import Flavour, Node, compile_document
from meshlib_control.compile.node import ServedPort
from meshlib_control.compile.served import served_ports
from meshlib_control.compile.trust import Trust
from tests.support.configuring import world

SERVICE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: httpbin, namespace: foo}
spec:
  hosts: [httpbin.foo.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
  - {number: 80, name: http, protocol: HTTP, targetPort: 8080}
  - {number: 90, name: grpc, protocol: GRPC}
  - {number: 3306, name: mysql, protocol: MYSQL}
  endpoints:
  - {address: 10.0.0.1, labels: {app: httpbin, version: v1}, ports: {grpc: 9090}}
  - {address: 10.0.0.2, labels: {app: httpbin, version: v2}, ports: {grpc: 9999}}
"""
POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: httpbin, namespace: foo}
spec: {selector: {matchLabels: {app: httpbin}}, rules: [{to: [{operation: {ports: ["80"]}}]}]}
"""
TOKENS = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: httpbin, namespace: istio-system}
spec: {jwtRules: [{issuer: a, jwksUri: "https://a/keys"}]}
"""
PORTS = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: httpbin, namespace: foo}
spec: {selector: {matchLabels: {app: httpbin}}, portLevelMtls: {8443: {mode: STRICT}}}
"""
LABELS = {"app": "httpbin", "version": "v1"}


def served(*texts: str, flavour: Flavour = "meshlib", ports: tuple[ServedPort, ...] = (), **node: str) -> list[str]:
    known = Node(flavour=flavour, namespace="foo", labels=LABELS, ports=ports, service=node.get("service", "httpbin"))
    return [f"{port.number}/{port.protocol}" for port in served_ports(world(*texts), known)]


def test_the_nodes_own_ports_come_first() -> None:
    assert served(SERVICE, POLICY, ports=(ServedPort(1, 2),)) == ["1/http"]


def test_ports_of_the_service_where_instances_like_the_node_listen() -> None:
    assert served(SERVICE) == ["3306/tcp", "8080/http", "9090/http2"]
    assert served(SERVICE, service="httpbin.foo.svc.cluster.local") == served(SERVICE)


@pytest.mark.parametrize(
    ("texts", "ports"), [([POLICY], ["80/http"]), ([TOKENS], ["80/http"]), ([PORTS], ["80/http", "8443/http"])]
)
def test_any_port_where_policies_hold(texts: list[str], ports: list[str]) -> None:
    assert served(*texts) == ports
    assert served(*texts, service="") == ports


def test_a_node_that_nothing_is_said_about_serves_nothing() -> None:
    assert served() == []
    assert served(POLICY.replace("namespace: foo", "namespace: bar")) == []
    assert served(SERVICE.replace("foo", "bar"), service="httpbin.bar") == []


def filters_of(document: object, kind: str) -> int:
    """How many configurations of a filter there are, anywhere."""
    if isinstance(document, dict):
        here = int(str(document.get("@type", "")).endswith(kind))
        return here + sum(filters_of(item, kind) for item in document.values())
    return sum(filters_of(item, kind) for item in document) if isinstance(document, list) else 0


@pytest.mark.parametrize(("flavour", "http", "tcp"), [("meshlib", 2, 0), ("grpc", 1, 0), ("envoy", 2, 2)])
def test_policies_show_their_filters_whatever_is_known_of_the_workload(flavour: Flavour, http: int, tcp: int) -> None:
    """In the chain of mTLS and in that of plaintext; of an Envoy, which may stand before anything, on a TCP port too."""
    node = Node(flavour=flavour, service="httpbin", namespace="foo", service_account="httpbin", labels=LABELS)
    document = compile_document(world(POLICY, trust=Trust()), node)
    assert filters_of(document, "filters.http.rbac.v3.RBAC") == http
    assert filters_of(document, "filters.network.rbac.v3.RBAC") == tcp
    assert filters_of(compile_document(world(trust=Trust()), node), "rbac.v3.RBAC") == 0
