"""What MeshConfig says of connections, where nothing else does."""

from __future__ import annotations

from meshlib.xds.proto import cluster_pb2
from meshlib.xds.types import CLUSTER
from meshlib_control.compile import Node, World, generate, scope_of
from tests.support.configuring import world

MESH = """
apiVersion: meshlib.io/v1
kind: MeshConfig
metadata: {name: mesh}
spec: {tcpKeepalive: {probes: 3, time: 7s, interval: 2s}, dnsRefreshRate: 5s, connectTimeout: 3s}
"""
OUTSIDE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside}
spec:
  hosts: ["%s"]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: %s
"""
RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: outside}
spec: {host: outside.test, trafficPolicy: {connectionPool: {tcp: {tcpKeepalive: {time: 60s}}}}}
"""


def cluster(built: World, host: str = "outside.test") -> cluster_pb2.Cluster:
    name = f"outbound|80||{host}"
    found = generate(built, scope_of(built, Node()), CLUSTER, [name])[name]
    assert isinstance(found, cluster_pb2.Cluster)
    return found


def test_connections_and_names_by_the_settings_of_the_mesh() -> None:
    found = cluster(world(MESH, OUTSIDE % ("outside.test", "DNS")))
    keepalive = found.upstream_connection_options.tcp_keepalive
    times = (keepalive.keepalive_probes.value, keepalive.keepalive_time.value, keepalive.keepalive_interval.value)
    assert times == (3, 7, 2)
    assert (found.dns_refresh_rate.ToSeconds(), found.connect_timeout.ToSeconds()) == (5, 3)


def test_a_destination_rule_goes_before_the_mesh() -> None:
    keepalive = cluster(world(MESH, RULE, OUTSIDE % ("outside.test", "DNS"))).upstream_connection_options.tcp_keepalive
    assert (keepalive.keepalive_time.value, keepalive.HasField("keepalive_probes")) == (60, False)


def test_without_settings_connections_have_no_keepalive() -> None:
    found = cluster(world(OUTSIDE % ("outside.test", "DNS")))
    assert not found.HasField("upstream_connection_options")
    assert found.dns_refresh_rate.ToSeconds() == 60


def test_names_of_dynamic_dns_are_resolved_by_whoever_makes_the_connection() -> None:
    found = cluster(world(OUTSIDE % ("*.outside.test", "DYNAMIC_DNS")), "*.outside.test")
    assert found.type == cluster_pb2.Cluster.ORIGINAL_DST
    assert not found.HasField("load_assignment")
