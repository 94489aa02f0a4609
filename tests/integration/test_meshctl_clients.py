"""What operators see of clients and instances: connected, confirmed, refused, registered, expired."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from meshlib.xds.proto import registry_pb2
from meshlib.xds.types import LISTENER, ROUTE
from tests.support.control import Control, eventually
from tests.support.xds_client import XdsClient
from tests.unit.admin.support import MESH, virtual_service

ROUTES = "reviews.default.svc.cluster.local:80"


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    with Control(tmp_path_factory.mktemp("control"), "--lease-ttl", "2") as running:
        running.apply(MESH)
        eventually(lambda: running.get("/v1/status")["control"]["revision"] == 1, what="the first revision")
        yield running


def states(control: Control, client: str) -> dict[str, str]:
    for found in control.get("/v1/status")["clients"]:
        if found["id"] == client:
            return {name: sync["state"] for name, sync in found["types"].items()}
    return {}


def test_a_client_is_in_sync_once_it_confirmed(control: Control) -> None:
    with XdsClient(control.xds, node="calm-1") as client:
        client.subscribe(LISTENER, "reviews:80")
        client.subscribe(ROUTE, ROUTES)
        eventually(lambda: states(control, "calm-1") == {"LDS": "SYNCED", "RDS": "SYNCED"}, what="both types in sync")
        table = control.meshctl("status").stdout
        row = next(line.split() for line in table.splitlines() if line.startswith("calm-1"))
        assert row[:4] == ["calm-1", "meshlib", "default", "web"]
        assert "No problems." in table
    eventually(lambda: not states(control, "calm-1"), what="the client is gone")


def test_a_change_reaches_clients_and_one_without_effect_does_not(control: Control) -> None:
    with XdsClient(control.xds, node="watching-1") as client:
        client.subscribe(ROUTE, ROUTES)
        eventually(lambda: (ROUTE, ROUTES) in client.versions, what="the first version")
        first = client.versions[ROUTE, ROUTES]
        control.apply(virtual_service(weight=10))
        eventually(lambda: client.versions[ROUTE, ROUTES] != first, what="the new version")
        control.apply(virtual_service(weight=90))
        eventually(lambda: client.versions[ROUTE, ROUTES] == first, what="equal content has an equal version")


def test_a_refusal_is_shown_with_the_clients_own_words(control: Control) -> None:
    def refuse(response: Any) -> str:
        return f"{ROUTES}: a route I cannot have" if response.type_url == ROUTE else ""

    with XdsClient(control.xds, node="picky-1", refuse=refuse) as client:
        client.subscribe(LISTENER, "reviews:80")
        client.subscribe(ROUTE, ROUTES)
        eventually(lambda: states(control, "picky-1") == {"LDS": "SYNCED", "RDS": "NACK"}, what="the refusal")
        shown = control.meshctl("status", "--check")
        assert shown.returncode == 1
        assert "picky-1 refused RDS" in shown.stdout
        assert "a route I cannot have" in shown.stdout
        with control.http() as http:
            assert 'meshlib_control_client_types{state="NACK",type="RDS"} 1' in http.get("/metrics").text


def test_instances_register_and_expire(control: Control) -> None:
    """Through the registry service, as workloads do."""
    request = registry_pb2.RegisterRequest(
        instance_id="ratings-1",
        service="ratings",
        namespace="default",
        address="127.0.0.1",
        port=9080,
        labels={"version": "v1"},
    )
    with grpc.insecure_channel(control.xds) as channel:
        method = "/meshlib.registry.v1.Registry/Register"
        register = channel.unary_unary(
            method,
            request_serializer=registry_pb2.RegisterRequest.SerializeToString,
            response_deserializer=registry_pb2.RegisterResponse.FromString,
        )
        assert register(request, timeout=30).ttl.ToMilliseconds() == 2000

    def endpoints() -> list[str]:
        found = control.get("/v1/endpoints")["endpoints"]
        return [f"{e['address']}:{e['port']} {e['health']}" for e in found if e["host"].startswith("ratings.")]

    eventually(lambda: endpoints() == ["127.0.0.1:9080 healthy"], what="the instance is known")
    named = control.meshctl("endpoints", "ratings", "-o", "name")
    assert named.stdout == "127.0.0.1:9080\n"
    # Nobody renews it.  It was the only one, so the guard keeps it, and says so.
    eventually(lambda: control.get("/v1/status")["suspicious"], what="the silent instance is suspicious")
    assert "ratings.default.svc.cluster.local" in control.meshctl("status").stdout
