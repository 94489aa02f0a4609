"""Sidecars and WorkloadGroups between a control service, processes that call and processes that serve."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from meshlib import Mesh
from meshlib.errors import CallError, OutboundBlocked
from meshlib.lowlevel import Connection, ServerRequest
from meshlib.runtime.native import build_request
from tests.support.backends import running
from tests.support.control import Control
from tests.support.control_plane import ControlPlane, shop, until

SCOPED = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: web}
spec:
  workloadSelector: {labels: {app: web}}
  egress: [{hosts: ["./ratings.default.svc.cluster.local"]}]
"""
BLOCKING = SCOPED + "  outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n"


@contextmanager
def mesh(control: ControlPlane, service: str, **settings: object) -> Iterator[Mesh]:
    made = Mesh(control=control.address, insecure_dev=True, service=service, **settings)  # type: ignore[arg-type]
    try:
        made.start()
        made.wait_ready()
        yield made
    finally:
        made.close()


def is_part_of_the_mesh(caller: Mesh, url: str) -> bool:
    """False: the application's own client is left to call it."""
    exchange = caller.exchange(build_request("GET", url, None, None, None, None))
    if exchange is None:
        return False
    exchange.read()
    return True


def test_what_a_sidecar_does_not_name_does_not_exist_for_its_workloads() -> None:
    with running(["reviews", "ratings"]) as backends:
        ports = {name: [backend.port] for name, backend in backends.items()}
        with ControlPlane(shop(SCOPED, **ports)) as control, mesh(control, "web") as web, mesh(control, "other") as other:
            assert is_part_of_the_mesh(other, "http://reviews/")
            assert is_part_of_the_mesh(web, "http://ratings/")
            assert not is_part_of_the_mesh(web, "http://reviews/")
            assert not is_part_of_the_mesh(web, "http://reviews.default.svc.cluster.local/")


def test_registry_only_of_a_sidecar_blocks_what_it_does_not_name() -> None:
    with running(["reviews", "ratings"]) as backends:
        ports = {name: [backend.port] for name, backend in backends.items()}
        with ControlPlane(shop(BLOCKING, **ports)) as control, mesh(control, "web") as web, mesh(control, "other") as other:
            assert web.request("GET", "http://ratings/").status_code == 200
            for url in ("http://reviews/", "http://outside.test/"):
                with pytest.raises(OutboundBlocked, match="REGISTRY_ONLY"):
                    web.request("GET", url)
            assert other.request("GET", "http://reviews/").status_code == 200
            assert not is_part_of_the_mesh(other, "http://outside.test/")


def test_a_sidecar_that_comes_and_goes_is_followed() -> None:
    """What is already called stops being part of the mesh, and becomes it again."""
    with running(["reviews"]) as backends:
        ports = {"reviews": [backends["reviews"].port]}
        with ControlPlane(shop(**ports)) as control, mesh(control, "web") as web:
            assert web.request("GET", "http://reviews/").status_code == 200
            control.publish(shop(BLOCKING, **ports))
            until(lambda: blocked(web, "http://reviews/"), "the Sidecar holds")
            control.publish(shop(**ports))
            until(lambda: not blocked(web, "http://reviews/"), "it is gone")


def blocked(caller: Mesh, url: str) -> bool:
    try:
        caller.request("GET", url)
    except OutboundBlocked:
        return True
    return False


LIMITS = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default}
spec:
  inboundConnectionPool: {http: {http2MaxRequests: 1}}
"""


def test_a_process_lets_in_as_much_as_its_sidecar_says() -> None:
    with ControlPlane(shop(LIMITS)) as control, mesh(control, "reviews", port=18080) as served:
        served.serve_started()

        def serve() -> bool:
            request = ServerRequest("GET", b"/", [(b"host", b"reviews")], connection=Connection(local_port=18080))
            return served.serve(request).refusal is None

        held: list[object] = []

        def one_is_let_in() -> bool:
            held[:] = [served.serve(ServerRequest("GET", b"/", [(b"host", b"a")], connection=Connection(local_port=18080)))]
            return not serve()

        until(one_is_let_in, "the limit holds")
        held.clear()
        assert serve()
        control.publish(shop())
        until(lambda: len([None for _ in range(3) if serve()]) == 3, "there is no limit any more")


GROUP = """
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: vms}
spec:
  metadata: {labels: {version: v2}}
  template:
    labels: {app: legacy}
    ports: {http: 8089}
    locality: us-east/a
    weight: 7
    serviceAccount: vm
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: legacy}
spec:
  hosts: [legacy.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {labels: {app: legacy}}
"""


def test_a_process_that_joins_a_group_has_what_its_template_says() -> None:
    with open_port() as port, ControlPlane(shop(GROUP)) as control, mesh(control, "old", port=port, group="vms") as process:
        process.serve_started()
        (found,) = until(lambda: list(control.registrations.known.values()), "it is registered")
        assert (found.labels["app"], found.labels["version"]) == ("legacy", "v2")
        assert (found.locality, found.weight, found.service_account) == ("us-east/a", 7, "vm")
        assert found.ports == {"http": 8089}


def test_a_group_that_does_not_exist_is_not_joined() -> None:
    """It is tried again: the group may come."""
    with open_port() as port, ControlPlane(shop()) as control, mesh(control, "old", port=port, group="vms") as process:
        process.serve_started()
        until(lambda: not control.registrations.known, "nothing is registered")
        control.publish(shop(GROUP))
        until(lambda: control.registrations.known, "it is registered")


PROBED = """
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: vms}
spec:
  template: {labels: {app: legacy}}
  probe:
    periodSeconds: 1
    failureThreshold: 1
    httpGet: {port: %d, path: /healthz, httpHeaders: [{name: x-probe, value: "1"}]}
"""


class Health(ThreadingHTTPServer):
    """Answers probes with `status`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.status = 503
        self.asked: list[tuple[str, str | None]] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Health

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["x-probe"]))
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        pass


@contextmanager
def open_port() -> Iterator[int]:
    """A port that accepts connections."""
    with health() as server:
        yield server.port


@contextmanager
def health() -> Iterator[Health]:
    server = Health()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_process_asks_itself_whether_it_is_ready() -> None:
    with (
        health() as server,
        ControlPlane(shop(PROBED % server.port)) as control,
        mesh(control, "old", port=server.port, group="vms") as process,
    ):
        process.serve_started()
        until(lambda: server.asked, "it is probed")
        assert server.asked[0] == ("/healthz", "1")
        assert list(control.registrations.ready.values()) == [False]
        server.status = 204
        until(lambda: list(control.registrations.ready.values()) == [True], "it is ready")
        server.status = 500
        until(lambda: list(control.registrations.ready.values()) == [False], "it is not ready any more")


WHOLE = (
    GROUP.replace("ports: {http: 8089}", "ports: {http: %(port)d}")
    + """
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: shut}
spec:
  workloadSelector: {labels: {app: shut}}
  egress: [{hosts: ["~/*"]}]
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
"""
)


def test_a_real_control_service_with_a_group_a_service_entry_that_selects_it_and_a_sidecar(tmp_path: Path) -> None:
    with health() as server, Control(tmp_path) as control:
        server.status = 200
        control.apply(WHOLE % {"port": server.port})
        process = Mesh(control=control.xds, insecure_dev=True, service="old", port=server.port, group="vms")
        with closing(process), meshes(control.xds, "open") as caller, meshes(control.xds, "shut") as shut:
            process.serve_started()
            until(lambda: reaches(caller, "http://legacy.example.com/"), "the ServiceEntry has the process")
            with pytest.raises(OutboundBlocked):
                shut.request("GET", "http://legacy.example.com/")


@contextmanager
def meshes(address: str, service: str) -> Iterator[Mesh]:
    with closing(Mesh(control=address, insecure_dev=True, service=service)) as made:
        made.wait_ready()
        yield made


def reaches(caller: Mesh, url: str) -> bool:
    try:
        return caller.request("GET", url).status_code == 200
    except CallError:
        return False
