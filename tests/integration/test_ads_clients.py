"""Real Envoy (both protocols) and grpcio on the real discovery service: start, change, restart; no NACK at any time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import httpx
import pytest
from google.protobuf.message import Message

import meshlib_control.compile as compiler
from meshlib.xds.proto import listener_pb2
from meshlib_control.compile import Affected, Scope, World
from meshlib_control.compile.listeners import PROXY_LISTENER
from meshlib_control.compile.node import Node
from tests.support import backends, envoy
from tests.support.control_plane import DEADLINE, ControlPlane, shop, until

SPLIT = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front}
spec:
  hosts: [front]
  http: [{route: [{destination: {host: %s}}]}]
"""

TIMEOUT = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: one}
spec: {host: one, trafficPolicy: {connectionPool: {tcp: {connectTimeout: %ds}}}}
"""


class AnyPort:
    """Our compiler, but the proxy's listener is on a port that is free."""

    def scope_of(self, world: World, node: Node, /) -> Scope:
        return compiler.scope_of(world, node)

    def is_pending(self, world: World, scope: Scope, name: str, /) -> bool:
        return compiler.is_pending(world, scope, name)

    def affected(self, old_world: World, new_world: World, /) -> Affected:
        return compiler.affected(old_world, new_world)

    def generate(self, world: World, scope: Scope, type_url: str, names: frozenset[str] | None, /) -> Mapping[str, Message]:
        found = compiler.generate(world, scope, type_url, names)
        for message in found.values():
            if isinstance(message, listener_pb2.Listener) and message.HasField("address"):
                message.address.socket_address.port_value = 0
        return found


@dataclass
class Sidecar:
    control: ControlPlane
    process: envoy.Envoy
    port: int
    ports: dict[str, int]

    def get(self, host: str) -> str:
        with httpx.Client(trust_env=False, timeout=20.0) as http:
            response = http.get(f"http://127.0.0.1:{self.port}/", headers={"host": host})
        return response.text if response.status_code == 200 else str(response.status_code)

    def world(self, *texts: str) -> World:
        return shop(*texts, front=[self.ports["one"]], one=[self.ports["one"]], two=[self.ports["two"]])

    def types(self) -> dict[str, str]:
        return {name: kind.state for client in self.control.status().clients for name, kind in client.types.items()}


@pytest.fixture(params=[False, True], ids=["sotw", "delta"])
def sidecar(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    with backends.running(["one", "two"]) as servers, ControlPlane(compile_with=AnyPort()) as control:
        ports = {name: server.port for name, server in servers.items()}
        bootstrap = envoy.ads_bootstrap(control.port, delta=request.param)
        with envoy.running(bootstrap, tmp_path_factory.mktemp("envoy")) as process:
            found = Sidecar(control, process, 0, ports)
            control.publish(found.world(SPLIT % "one"))
            found.port = process.listener_port(PROXY_LISTENER)
            process.until(lambda: found.get("front") == "one", "the first answer")
            yield found


@pytest.mark.envoy
def test_envoy_follows_routes_clusters_and_endpoints(sidecar: Sidecar) -> None:
    until(lambda: set(sidecar.types().values()) == {"SYNCED"}, "everything ACKed")
    assert set(sidecar.types()) == {"LDS", "RDS", "CDS", "EDS"}
    sidecar.control.publish(sidecar.world(SPLIT % "two"))
    sidecar.process.until(lambda: sidecar.get("front") == "two", "the new route")
    # Endpoints alone.
    sidecar.control.publish(shop(SPLIT % "two", one=[sidecar.ports["two"]], two=[sidecar.ports["one"]], front=[]))
    sidecar.process.until(lambda: sidecar.get("front") == "one", "the new endpoints")
    # A changed cluster, whose endpoints did not change: Envoy would warm it for 15 s if they were not sent again.
    before = sidecar.process.stat("cluster_manager.cluster_modified")
    sidecar.control.publish(shop(SPLIT % "two", TIMEOUT % 3, one=[sidecar.ports["two"]], two=[sidecar.ports["one"]], front=[]))
    sidecar.process.until(lambda: sidecar.process.stat("cluster_manager.cluster_modified") > before, "the changed cluster")
    sidecar.process.until(lambda: sidecar.process.stat("cluster_manager.warming_clusters") == 0, "a warm cluster")
    assert sidecar.process.stat("cluster.outbound|80||one.default.svc.cluster.local.init_fetch_timeout") == 0
    # And a service that goes.
    sidecar.control.publish(shop(SPLIT % "two", two=[sidecar.ports["one"]]))
    sidecar.process.until(lambda: sidecar.get("one") != "two", "the end of a service")
    assert sidecar.get("front") == "one"
    for name in ("cluster_manager.cds.update_rejected", "listener_manager.lds.update_rejected"):
        assert sidecar.process.stat(name) == 0
    assert "NACK" not in sidecar.types().values()


@pytest.mark.envoy
def test_envoy_serves_through_a_restart_of_the_control_service(sidecar: Sidecar) -> None:
    sidecar.control.world = sidecar.world(SPLIT % "one")
    sidecar.control.stop()
    assert {sidecar.get("front") for _ in range(20)} == {"one"}
    sidecar.control.start()
    until(lambda: sidecar.control.status().clients, "Envoy is back")
    assert {sidecar.get("front") for _ in range(20)} == {"one"}
    sidecar.control.publish(sidecar.world(SPLIT % "two"))
    sidecar.process.until(lambda: sidecar.get("front") == "two", "the next change")


@pytest.mark.envoy
def test_envoy_keeps_everything_when_the_control_service_has_lost_everything(sidecar: Sidecar) -> None:
    """F03 for a data plane that does delete what it is told is gone."""
    world = sidecar.control.world
    sidecar.control.stop()
    sidecar.control.world, sidecar.control.empty, sidecar.control.settle = shop(), True, 0.1
    sidecar.control.start()
    until(lambda: sidecar.control.status().suspicious_empty, "the alarm")
    assert {sidecar.get("front") for _ in range(20)} == {"one"}
    sidecar.control.publish(world)
    until(lambda: not sidecar.control.status().suspicious_empty, "the end of the alarm")
    assert {sidecar.get("front") for _ in range(20)} == {"one"}


GRPC_CLIENT = """
import sys, grpc
with grpc.insecure_channel("xds:///front") as channel:
    ask = channel.unary_unary("/test.Greeter/Name")
    for line in sys.stdin:
        try:
            print(ask(b"", timeout=60, wait_for_ready=True).decode(), flush=True)
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}", flush=True)
"""


@contextmanager
def greeter(name: str) -> Iterator[int]:
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: name.encode())
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Greeter", {"Name": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait(DEADLINE)


@contextmanager
def grpc_client(control: ControlPlane) -> Iterator[subprocess.Popen[str]]:
    """In a process of its own: the bootstrap is read once, and its threads outlive the channels."""
    bootstrap = {
        "xds_servers": [{"server_uri": control.address, "channel_creds": [{"type": "insecure"}]}],
        "node": {"id": "grpc-1", "metadata": {"NAMESPACE": "default"}},
    }
    environment = {**os.environ, "GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap)}
    command = [sys.executable, "-c", GRPC_CLIENT]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def call(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_grpcio_follows_changes_and_survives_a_restart() -> None:
    with greeter("one") as one, greeter("two") as two:
        first, second = (
            shop(SPLIT % "one", front=[one], one=[one], two=[two]),
            shop(SPLIT % "two", front=[one], one=[one], two=[two]),
        )
        with ControlPlane(first) as control, grpc_client(control) as process:
            assert call(process) == "one"
            control.publish(second)
            until(lambda: call(process) == "two", "the new route")
            (status,) = control.status().clients
            assert (status.flavour, status.protocol) == ("grpc", "sotw")
            until(lambda: {kind.state for kind in control.status().clients[0].types.values()} == {"SYNCED"}, "no NACK")
            control.stop()
            assert call(process) == "two"
            control.start()
            until(lambda: control.status().clients, "grpcio is back")
            control.publish(first)
            until(lambda: call(process) == "one", "the change after the restart")
