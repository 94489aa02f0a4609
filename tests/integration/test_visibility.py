"""From YAML to what an operator sees: a real control service, servers that fail, and everything that tells of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshlib import Mesh, Overrides, errors
from meshlib.runtime.channel import ControlChannel, ControlCredentials
from meshlib.telemetry.events import Event
from meshlib.xds.proto.registry_pb2 import ReportRequest
from meshlib.xds.reports import REPORT
from tests.support import backends
from tests.support.control import Control, eventually
from tests.support.zero_trust import SecureMesh

pytestmark = pytest.mark.timeout(240)

ONCE = Overrides(retries=0)
CLUSTER = "outbound|80||shop.default.svc.cluster.local"

SERVICE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: shop}
spec:
  hosts: [shop.default.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints:
  - {address: 127.0.0.1, ports: {http: %d}}
  - {address: 127.0.0.1, ports: {http: %d}}
"""

POLICIES = """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: shop}
spec:
  host: shop
  trafficPolicy: {outlierDetection: {consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 5s, maxEjectionPercent: 50}}
---
apiVersion: meshlib.io/v1
kind: ResiliencePolicy
metadata: {name: shop}
spec:
  host: shop
  circuitBreaker: {minRequests: 10, openDuration: 4s, halfOpenRequests: 1}
---
apiVersion: meshlib.io/v1
kind: RateLimitPolicy
metadata: {name: shop}
spec:
  host: shop
  limits: [{name: few, match: [{uri: {prefix: /few}}], tokens: 2, interval: 60s}]
"""


@pytest.fixture
def servers() -> Iterator[list[backends.Backend]]:
    with backends.running(["a", "b"]) as servers:
        yield list(servers.values())


def call(mesh: Mesh, path: str = "/") -> str:
    try:
        return str(mesh.request("GET", f"http://shop{path}", overrides=ONCE).status_code)
    except errors.CallError as error:
        return type(error).__name__


def metrics(mesh: Mesh) -> dict[str, float]:
    """Those of the cluster and of limits, by name and what else tells them apart."""
    found = {}
    for sample in mesh.metrics():
        more = [value for label, value in sample.labels.items() if label != "envoy_cluster_name"]
        found[" ".join([sample.name, *more])] = sample.value
    return found


def states(control: Control) -> dict[int, list[tuple[str, str, int, int]]]:
    """By port: what callers say, why, how many of them, of how many."""
    return {
        each["port"]: [(said["state"], said["reason"], said["callers"], each["callers"]) for said in each["reported"]]
        for each in control.get("/v1/endpoints", service="shop")["endpoints"]
    }


def breakers(control: Control) -> dict[str, int]:
    return {
        state: count
        for cluster in control.get("/v1/endpoints", service="shop")["clusters"]
        for state, count in cluster["circuit_breaker"].items()
    }


def test_a_failing_server_is_seen_by_listeners_in_metrics_and_by_the_operator(
    tmp_path: Path, servers: list[backends.Backend]
) -> None:
    """And so is the end of it: the whole way, with another caller that has nothing to complain of."""
    bad, good = servers
    with Control(tmp_path) as control:
        control.apply(SERVICE % (bad.port, good.port) + POLICIES)
        with (
            Mesh(control=control.xds, insecure_dev=True, instance="web-1") as mesh,
            Mesh(control=control.xds, insecure_dev=True, instance="web-2") as other,
        ):
            heard: list[Event] = []
            mesh.events.listen(heard.append)
            eventually(lambda: call(mesh) == call(other) == "200", what="the service")
            assert states(control) == {bad.port: [], good.port: []}

            bad.failures = 10**9
            eventually(lambda: call(mesh) and names(heard), what="the ejection")
            assert (heard[0].name, heard[0].reason) == ("outlier_detection.ejected", "consecutive_5xx")
            assert (heard[0].cluster, heard[0].endpoint) == (CLUSTER, f"127.0.0.1:{bad.port}")
            found = metrics(mesh)
            assert found["envoy_cluster_outlier_detection_ejections_active"] == 1
            assert (found["envoy_cluster_membership_total"], found["envoy_cluster_membership_healthy"]) == (2, 1)
            assert found["meshlib_circuit_breaker_state closed"] == 1
            ejected = {bad.port: [("ejected", "consecutive_5xx", 1, 2)], good.port: []}
            eventually(lambda: states(control) == ejected, what="the report of the ejection")

            good.failures = 10**9
            eventually(lambda: call(mesh) == "CircuitOpen", what="the breaker to open")
            assert metrics(mesh)["meshlib_circuit_breaker_state open"] == 1
            assert "RateLimited" in [call(mesh, "/few") for _ in range(4)]
            eventually(lambda: breakers(control) == {"open": 1}, what="the report of the breaker")
            eventually(lambda: limited(control) >= 1, what="the report of the limit")
            shown = control.meshctl("endpoints", "shop").stdout
            assert "open at 1" in shown
            assert "default/shop/few" in shown

            bad.failures = good.failures = 0
            eventually(lambda: call(mesh) == "200" and is_well(control), what="all to be well again")
            assert {"circuit_breaker.opened", "rate_limit.limited"} <= names(heard)
            eventually(lambda: names(heard) >= {"circuit_breaker.closed", "outlier_detection.unejected"}, what="the end")
            assert metrics(mesh)["envoy_cluster_outlier_detection_ejections_active"] == 0
            assert not names(other.events.recent)


def is_well(control: Control) -> bool:
    """What was refused is told of for a while longer."""
    return not any(states(control).values()) and not breakers(control).keys() - {"closed"}


def names(events: list[Event] | tuple[Event, ...]) -> set[str]:
    return {event.name for event in events}


def limited(control: Control) -> int:
    return sum(each["limited"] for each in control.get("/v1/endpoints", service="shop")["limits"])


def mentioned(control: Control) -> Any:
    found = control.get("/v1/endpoints", service="shop")
    return found["clusters"] or found["limits"] or any(each["reported"] for each in found["endpoints"])


def test_what_a_process_has_told_goes_with_it(tmp_path: Path, servers: list[backends.Backend]) -> None:
    """An endpoint that is gone without a word is refusing; who says so takes it back when it ends."""
    with Control(tmp_path) as control:
        (gone,) = [server.port for server in servers[:1]]
        servers[0].shutdown()
        servers[0].server_close()
        control.apply(SERVICE % (gone, servers[1].port))
        mesh = Mesh(control=control.xds, insecure_dev=True, instance="web-1")
        try:

            def told() -> bool:
                mesh.request("GET", "http://shop/")
                return any(state == "refusing" for state, *_ in states(control).get(gone, []))

            eventually(lambda: reaches(mesh), what="the service")
            eventually(told, what="the refusal")
        finally:
            mesh.close()
        assert not mentioned(control)


def reaches(mesh: Mesh) -> bool:
    try:
        return mesh.request("GET", "http://shop/").status_code == 200
    except errors.MeshError:
        return False


def report(town: SecureMesh, mesh: Mesh, instance: str, *, empty: bool = False) -> None:
    """A report of the process's own making, with its own certificate."""
    process = mesh._processes.current
    assert process is not None
    assert process.identity is not None
    message = ReportRequest(instance_id=instance)
    if not empty:
        cluster = message.clusters.add(name=CLUSTER)
        cluster.endpoints.add(address="127.0.0.1:9", state="ejected", reason="consecutive_5xx")
    channel: grpc.Channel
    with ControlChannel(town.control.xds, ControlCredentials(process.identity)).get() as channel:
        channel.unary_unary(REPORT)(message.SerializeToString(), timeout=30)


def test_nobody_reports_in_anothers_name(tmp_path: Path) -> None:
    """Nor takes back what another one has told; the operator sees who has said what."""
    with SecureMesh(tmp_path) as town:
        town.control.apply(SERVICE % (9, 10))
        with town.mesh("web") as web, town.mesh("evil") as evil:
            web.wait_ready(60)
            evil.wait_ready(60)
            report(town, web, "web-1")
            report(town, evil, "web-1", empty=True)
            assert said_by(town.control) == ["cluster.local/ns/default/sa/web web-1"]
            report(town, evil, "web-1")
            assert said_by(town.control) == [
                "cluster.local/ns/default/sa/evil web-1",
                "cluster.local/ns/default/sa/web web-1",
            ]
            report(town, evil, "web-1", empty=True)
            report(town, web, "web-1", empty=True)
            assert said_by(town.control) == []


def said_by(control: Control) -> list[str]:
    found = control.get("/v1/endpoints", service="shop")["endpoints"]
    return [name for each in found for said in each["reported"] for name in said["by"]]
