"""Replicas over one real Consul: one configuration, one catalog, and an outage that nobody notices but the operator."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshlib.xds.types import CLUSTER, LISTENER, ROUTE
from tests.support.consul import ConsulAgent
from tests.support.control import Control, eventually
from tests.support.xds_client import XdsClient
from tests.unit.admin.support import MESH, virtual_service

pytestmark = pytest.mark.consul
ROUTES = "reviews.default.svc.cluster.local:80"


def replica(directory: Path, agent: ConsulAgent, prefix: str, *more: str) -> Control:
    directory.mkdir()
    return Control(directory, "--store", agent.url(prefix), *more)


def percents(control: Control) -> list[float]:
    return [cluster["percent"] for cluster in control.explain("http://reviews/")["clusters"]]


def test_replicas_serve_the_same_versions(tmp_path: Path, consul_agent: ConsulAgent) -> None:
    with replica(tmp_path / "a", consul_agent, "replicas") as a, replica(tmp_path / "b", consul_agent, "replicas") as b:
        first = a.apply(MESH)
        eventually(lambda: percents(b) == [90.0, 10.0], what="the other replica follows")
        assert b.apply(virtual_service(weight=40), expect=str(first)) == first + 1
        eventually(lambda: percents(a) == [40.0, 60.0], what="in both directions")
        cluster = "outbound|80|v1|reviews.default.svc.cluster.local"
        with XdsClient(a.xds, node="at-a") as at_a, XdsClient(b.xds, node="at-b") as at_b:
            for client in (at_a, at_b):
                client.subscribe(LISTENER, "reviews:80")
                client.subscribe(ROUTE, ROUTES)
                client.subscribe(CLUSTER, cluster)
            eventually(lambda: len(at_a.versions) == 3 and at_a.versions == at_b.versions, what="equal versions")


def test_services_of_consul_are_in_the_mesh_once_somebody_asks(tmp_path: Path, consul_agent: ConsulAgent) -> None:
    consul_agent.register("legacy", 9099, Tags=["version=v7"])
    with replica(tmp_path / "a", consul_agent, "catalog") as control:

        def endpoints() -> list[tuple[int, dict[str, str]]]:
            found = control.get("/v1/endpoints")["endpoints"]
            return [(e["port"], e["labels"]) for e in found if e["host"].startswith("legacy.")]

        def services() -> list[str]:
            return [service["host"] for service in control.get("/v1/services")["services"]]

        eventually(lambda: "legacy.default.svc.cluster.local" in services(), what="the name is known")
        assert endpoints() == [], "nobody needs it yet, so nobody asked"
        with XdsClient(control.xds, node="caller-1") as client:
            client.subscribe(LISTENER, "legacy:80")
            eventually(lambda: [port for port, _ in endpoints()] == [9099], what="the instance")
            assert endpoints()[0][1]["version"] == "v7"


def test_a_service_is_found_by_the_port_and_namespace_that_only_its_instances_know(
    tmp_path: Path, consul_agent: ConsulAgent
) -> None:
    consul_agent.register("elsewhere", 9098, Meta={"namespace": "shop"})
    with replica(tmp_path / "a", consul_agent, "first") as control, XdsClient(control.xds, node="caller-2") as client:
        client.subscribe(LISTENER, "elsewhere.shop:9098")
        eventually(lambda: (LISTENER, "elsewhere.shop:9098") in client.versions, what="the listener")


def test_an_outage_of_consul_shows_and_changes_nothing_else(tmp_path: Path, own_consul: ConsulAgent) -> None:
    with replica(tmp_path / "a", own_consul, "outage") as control:
        control.apply(MESH)
        eventually(lambda: percents(control) == [90.0, 10.0], what="the configuration")
        own_consul.kill()
        eventually(lambda: control.get("/v1/status")["problems"], what="the outage is noticed")
        assert percents(control) == [90.0, 10.0]
        assert control.meshctl("get").returncode == 3
        assert control.stop() == 0
