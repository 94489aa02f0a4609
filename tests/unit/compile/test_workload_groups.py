"""WorkloadGroups and ServiceEntries that select registered processes."""

from __future__ import annotations

from dataclasses import replace

from meshlib.xds.proto import endpoint_pb2, registry_pb2
from meshlib.xds.types import ENDPOINTS
from meshlib_control.catalog.model import Instance, InstanceHealth, Port, Service
from meshlib_control.compile import Node, World, affected, generate, scope_of
from meshlib_control.compile.probes import probe_message
from meshlib_control.compile.workload_groups import Template
from meshlib_control.config.kinds import WorkloadGroup
from meshlib_control.config.schema import Reading, read
from tests.support.configuring import catalog, config_set, world

GROUP = """
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: vms, namespace: shop}
spec:
  metadata: {labels: {app: meta, version: v2}}
  template:
    labels: {app: legacy}
    ports: {http: 8089}
    locality: us-east/a
    weight: 7
    serviceAccount: vm
"""
SELECTING = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: legacy, namespace: shop}
spec:
  workloadSelector: {labels: {app: legacy}}
  egress: [{hosts: ["~/*"]}]
"""
ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: legacy, namespace: shop}
spec:
  hosts: [legacy.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {labels: {app: legacy}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: written, namespace: shop}
spec: {address: 10.0.0.9, labels: {app: legacy}}
"""
HOST = "old.shop.svc.cluster.local"
CLUSTER = "outbound|80||legacy.example.com"


def test_the_template_goes_before_the_labels_of_the_metadata() -> None:
    built = world(GROUP)
    template = built.workload_groups.find("shop", "vms")
    assert template == Template(
        labels={"app": "legacy", "version": "v2"},
        ports={"http": 8089},
        locality="us-east/a",
        weight=7,
        service_account="vm",
    )
    assert built.workload_groups.find("default", "vms") is None


def test_policies_select_a_workload_by_the_labels_of_its_group() -> None:
    """Whatever it says of itself: a claim does not get it around the operator's template."""
    built = world(GROUP, SELECTING)

    def labels(group: str) -> tuple[tuple[str, str], ...]:
        return scope_of(built, Node(namespace="shop", labels={"app": "mine"}, group=group)).labels

    assert labels("") == labels("unknown") == (("app", "mine"),)
    assert labels("vms") == (("app", "legacy"),)


def registered(*instances: Instance, previous: World | None = None) -> World:
    services = [Service(HOST, "shop", (Port(80),)), Service("new.other.svc.cluster.local", "other", (Port(80),))]
    elsewhere = {"new.other.svc.cluster.local": (Instance("o", "10.0.1.1", 80, labels={"app": "legacy"}),)}
    config = previous.routing.config if previous else config_set(ENTRY)
    return World.of(config, catalog(services, {HOST: instances, **elsewhere}), previous=previous)


def addresses(built: World) -> list[tuple[str, int]]:
    found = generate(built, scope_of(built, Node(namespace="shop")), ENDPOINTS, [CLUSTER])[CLUSTER]
    assert isinstance(found, endpoint_pb2.ClusterLoadAssignment)
    sockets = [item.endpoint.address.socket_address for group in found.endpoints for item in group.lb_endpoints]
    return sorted((socket.address, socket.port_value) for socket in sockets)


LEGACY = Instance("l", "10.0.0.1", 9999, labels={"app": "legacy", "x": "y"}, ports={"http": 8089})
OTHER = Instance("m", "10.0.0.2", 9999, labels={"app": "other"})


def test_a_service_entry_selects_registered_processes_of_its_namespace_too() -> None:
    """By the port that their group names as the ServiceEntry does."""
    assert addresses(registered(LEGACY, OTHER)) == [("10.0.0.1", 8089), ("10.0.0.9", 80)]


def test_what_changes_in_a_process_concerns_the_service_entries_that_select_it() -> None:
    before = registered(LEGACY, OTHER)
    assert addresses(before) == [("10.0.0.1", 8089), ("10.0.0.9", 80)]
    draining = registered(replace(LEGACY, health=InstanceHealth.DRAINING), OTHER, previous=before)
    assert affected(before, draining).endpoint_clusters == {CLUSTER, f"outbound|80||{HOST}"}
    gone = registered(OTHER, previous=before)
    assert CLUSTER in affected(before, gone).endpoint_clusters
    assert addresses(gone) == [("10.0.0.9", 80)]
    elsewhere = registered(LEGACY, replace(OTHER, weight=3), previous=before)
    assert affected(before, elsewhere).endpoint_clusters == {f"outbound|80||{HOST}"}


def probe(text: object) -> registry_pb2.Probe:
    reading = Reading()
    group = read(WorkloadGroup, {"template": {}, "probe": text}, reading)
    assert not reading.problems
    assert group.probe is not None
    return probe_message(group.probe)


def test_a_probe_has_the_defaults_of_kubernetes() -> None:
    found = probe({"tcpSocket": {"port": 81}})
    check = found.check
    assert (found.port, found.address, found.initial_delay.ToSeconds()) == (81, "", 0)
    assert (check.timeout.ToSeconds(), check.interval.ToSeconds()) == (1, 10)
    assert (check.healthy_threshold.value, check.unhealthy_threshold.value) == (1, 3)
    assert check.WhichOneof("health_checker") == "tcp_health_check"


def test_a_probe_is_what_the_group_says() -> None:
    http = {"port": 81, "path": "/up", "httpHeaders": [{"name": "a", "value": "50%"}]}
    found = probe({"initialDelaySeconds": 2, "periodSeconds": 3, "failureThreshold": 4, "httpGet": http})
    check = found.check
    assert (found.initial_delay.ToSeconds(), check.interval.ToSeconds(), check.unhealthy_threshold.value) == (2, 3, 4)
    assert check.http_health_check.path == "/up"
    (statuses,) = check.http_health_check.expected_statuses
    assert (statuses.start, statuses.end) == (200, 400)
    (header,) = check.http_health_check.request_headers_to_add
    assert (header.header.key, header.header.value) == ("a", "50%%")
    assert probe({"grpc": {"port": 81, "service": "s"}}).check.grpc_health_check.service_name == "s"
