"""A ResiliencePolicy's health checks: the same YAML makes a real Envoy and a mesh leave out the same endpoints."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Collection, Iterator, Mapping
from concurrent import futures
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message

from meshlib import Mesh
from meshlib.xds.proto import listener_pb2
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE
from meshlib_control.catalog.model import Instance, Port
from meshlib_control.compile import Node, generate, scope_of
from tests.support import ads, backends, envoy
from tests.support.checked import left_out
from tests.support.configuring import registered, world
from tests.support.control_plane import ControlPlane, until

pytestmark = pytest.mark.envoy

CHECKS = {
    "web": "{http: {path: /healthz, expectedStatuses: ['200-204'], headers: {x-probe: '5%'}}}",
    "raw": "{tcp: {send: {string: PING}, receive: [{string: PO}, {bytes: Tkc=}]}}",
    "open": "{tcp: {}}",
    "rpc": "{grpc: {service: shop}}",
}
POLICY = """
apiVersion: meshlib.io/v1
kind: ResiliencePolicy
metadata: {name: %(host)s}
spec:
  host: %(host)s
  failureRateEjection: {threshold: 50}
  successRateEjection: {stdevFactor: 1.5}
  healthChecks: [%(check)s]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: %(host)s}
spec:
  host: %(host)s
  trafficPolicy:
    outlierDetection:
      splitExternalLocalOriginErrors: true
      consecutiveLocalOriginFailures: 4
      minHealthPercent: 10
      outlierDetectionHttpErrorCodes: [429, 503]
---
"""
OFTEN = "interval: 100ms, timeout: 10s, noTrafficInterval: 100ms"


class _Speaker(socketserver.BaseRequestHandler):
    answer = b""

    def handle(self) -> None:
        if self.request.recv(100) == b"PING":
            self.request.sendall(self.answer)


class _Good(_Speaker):
    answer = b"+PO NG"


class _Bad(_Speaker):
    answer = b"+NG PO"


@contextmanager
def speaking(handler: type[_Speaker]) -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def healthy_rpc(answer: bytes) -> Iterator[int]:
    method = grpc.unary_unary_rpc_method_handler(lambda request, context: answer if request == b"\x0a\x04shop" else b"")
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": method}),))
    port: int = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait(10)


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, tuple[int, int]]]:
    """For each service an endpoint that is well and one that is not."""
    with ExitStack() as stack:
        web = stack.enter_context(backends.running(["good", "bad"]))
        web["bad"].failures = 10**9
        well = stack.enter_context(speaking(_Good))
        with backends.running(["gone"]) as gone:
            closed = gone["gone"].port
        yield {
            "web": (web["good"].port, web["bad"].port),
            "raw": (well, stack.enter_context(speaking(_Bad))),
            "open": (well, closed),
            "rpc": (stack.enter_context(healthy_rpc(b"\x08\x01")), stack.enter_context(healthy_rpc(b"\x08\x02"))),
        }


def test_both_leave_out_the_same_endpoints(ports: dict[str, tuple[int, int]], tmp_path: Path) -> None:
    rules = "".join(POLICY % {"host": host, "check": f"{check[:-1]}, {OFTEN}}}"} for host, check in CHECKS.items())
    services = [
        registered(
            host,
            *(Instance(f"{host}-{port}", "127.0.0.1", port) for port in both),
            ports=(Port(80, "grpc" if host == "rpc" else "http"),),
        )
        for host, both in ports.items()
    ]
    current = world(rules, services=services)
    scope = scope_of(current, Node(flavour="envoy"))

    def resources(type_url: str, names: Collection[str] | None) -> Mapping[str, Message]:
        found = generate(current, scope, type_url, names)
        for message in found.values():
            if isinstance(message, listener_pb2.Listener):
                message.address.socket_address.port_value = 0
        return found

    with ads.serving(resources) as server, envoy.running(envoy.ads_bootstrap(server.port), tmp_path) as process:
        process.until(lambda: server.nacks or server.acked >= {LISTENER, ROUTE, CLUSTER, ENDPOINTS}, "answers")
        assert server.nacks == []
        process.until(lambda: all(len(_flags(process, host)) == 2 for host in CHECKS), "endpoints")
        for host, (good, bad) in ports.items():
            process.until(lambda: _flags(process, host) == {good: "healthy", bad: "/failed_active_hc"}, host)  # noqa: B023
    with ControlPlane() as control:
        control.publish(current)
        for host, (_, bad) in ports.items():
            with Mesh(control=control.address, insecure_dev=True) as mesh:
                mesh.prefetch(host)
                until(lambda: left_out(mesh) == {bad}, host)  # noqa: B023


def _flags(process: envoy.Envoy, host: str) -> dict[int, str]:
    """What Envoy says of each endpoint's health, by port."""
    found = {}
    for line in process.get("/clusters").text.splitlines():
        cluster, _, rest = line.partition("::")
        address, _, state = rest.partition("::health_flags::")
        if state and f"||{host}." in cluster:
            found[int(address.rpartition(":")[2])] = state
    return found
