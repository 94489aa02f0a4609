"""Active health checks against real servers: HTTP, TCP and gRPC, plain and over the mesh's mTLS."""

from __future__ import annotations

import os
import pickle
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import replace

import grpc
import pytest

from meshlib import Mesh, errors
from meshlib.model.cluster import GrpcHealthCheck, HttpHealthCheck, TcpHealthCheck, UpstreamTls
from meshlib.runtime.identity.static import StaticIdentity
from meshlib.testing import StaticControl, service, snapshot
from tests.support import backends
from tests.support.certificates import TrustDomain
from tests.support.checked import all_checked, check, left_out, upstream_of, with_cluster
from tests.support.control_plane import until
from tests.support.grpcmesh import DOMAIN as GRPC_DOMAIN
from tests.support.grpcmesh import Member, odd_serving, secured
from tests.support.tls import material, member
from tests.support.tls_origin import Origin

DOMAIN = TrustDomain()
TLS = UpstreamTls(identities=frozenset({DOMAIN.id("server")}))
THREAD = "meshlib-health"


@contextmanager
def checking(
    how: HttpHealthCheck | TcpHealthCheck | GrpcHealthCheck, *ports: int, tls: UpstreamTls | None = None
) -> Iterator[Mesh]:
    """A mesh that calls ``server`` on these ports of this machine, and checks them."""
    target = with_cluster(service("server", [f"127.0.0.1:{port}" for port in ports], tls=tls), health_checks=(check(how),))
    identity = StaticIdentity(material(DOMAIN.leaf("us"), DOMAIN.bundle)) if tls is not None else None
    with Mesh(control=StaticControl(snapshot(target)), identity=identity) as mesh:
        yield mesh


# --- HTTP


def test_an_endpoint_that_answers_badly_is_left_out_until_it_is_well_again() -> None:
    with backends.running(["a", "b"]) as servers:
        one, other = servers["a"], servers["b"]
        with checking(
            HttpHealthCheck("/healthz?full", "probe.test", headers=((b"x-probe", b"1"),)), one.port, other.port
        ) as mesh:
            until(lambda: all_checked(mesh), "the first checks")
            assert left_out(mesh) == set()
            one.failures = 10**9
            until(lambda: left_out(mesh) == {one.port}, "a is left out")
            assert {mesh.request("GET", "http://server/").content for _ in range(10)} == {b"b"}
            one.failures = 0
            until(lambda: left_out(mesh) == set(), "a is back")
            until(lambda: mesh.request("GET", "http://server/").content == b"a", "a is used")
        method, path, headers = next(request for request in one.requests if request[1].startswith("/healthz"))
    assert (method, path) == ("GET", "/healthz?full")
    assert headers == {"host": "probe.test", "user-agent": "meshlib-health-check", "x-probe": "1"}


def test_an_endpoint_that_takes_no_connections_is_left_out_and_no_call_finds_out() -> None:
    with backends.running(["a", "gone"]) as servers:
        closed = servers["gone"].port
        servers["gone"].server_close()
        with checking(HttpHealthCheck("/"), servers["a"].port, closed) as mesh:
            until(lambda: left_out(mesh) == {closed}, "it is left out")
            assert [mesh.request("GET", "http://server/").content for _ in range(10)] == [b"a"] * 10
            upstream = upstream_of(mesh)
            assert upstream is not None
            assert upstream.reachability.refused_by == {}
            assert upstream.checks.network_failure == upstream.checks.failure > 0


def test_when_none_is_well_a_call_fails_at_once() -> None:
    with backends.running(["a"]) as servers:
        servers["a"].failures = 10**9
        with checking(HttpHealthCheck("/"), servers["a"].port) as mesh:
            until(lambda: left_out(mesh), "it is left out")
            with pytest.raises(errors.NoHealthyUpstream):
                mesh.request("GET", "http://server/")


def test_other_statuses_may_be_healthy() -> None:
    with backends.running(["a"]) as servers:
        servers["a"].failures = 10**9  # each a 503
        with checking(HttpHealthCheck("/", statuses=((200, 201), (500, 504))), servers["a"].port) as mesh:
            until(lambda: all_checked(mesh), "the first check")
            assert left_out(mesh) == set()


def test_another_port_may_be_asked() -> None:
    with backends.running(["service", "admin"]) as servers:
        target = service("server", [f"127.0.0.1:{servers['service'].port}"])
        asked = check(HttpHealthCheck("/ready"), port=servers["admin"].port)
        with Mesh(control=StaticControl(snapshot(with_cluster(target, health_checks=(asked,))))) as mesh:
            until(lambda: all_checked(mesh), "the first check")
        assert servers["service"].requests == []
        assert servers["admin"].requests[0][1] == "/ready"


def test_a_cluster_that_nobody_calls_is_checked_seldom_until_somebody_does() -> None:
    with backends.running(["a", "b"]) as servers:
        target = service("server", [f"127.0.0.1:{servers[name].port}" for name in "ab"])
        asked = check(HttpHealthCheck("/healthz"), no_traffic_interval=10_000.0)
        with Mesh(control=StaticControl(snapshot(with_cluster(target, health_checks=(asked,))))) as mesh:
            until(lambda: all_checked(mesh), "the first checks")
            upstream = upstream_of(mesh)
            assert upstream is not None
            until(lambda: upstream.checks.attempt == 2, "one check each")
            mesh.request("GET", "http://server/")
            until(lambda: upstream.checks.attempt >= 6, "more checks")


def test_checks_go_over_mtls_with_the_identity_of_the_process() -> None:
    with Origin(member(DOMAIN, "server").server()) as origin, checking(HttpHealthCheck("/"), origin.port, tls=TLS) as mesh:
        until(lambda: origin.requests >= 3, "checks")
        assert left_out(mesh) == set()
        assert {str(peer) for peer in origin.peers} == {DOMAIN.id("us")}
        assert len(origin.peers) == 1  # a connection is kept


@pytest.mark.parametrize("how", [HttpHealthCheck("/"), TcpHealthCheck()], ids=["http", "tcp"])
def test_somebody_else_behind_the_address_is_unhealthy(how: HttpHealthCheck | TcpHealthCheck) -> None:
    with Origin(member(DOMAIN, "other").server()) as origin, checking(how, origin.port, tls=TLS) as mesh:
        until(lambda: left_out(mesh) == {origin.port}, "it is left out")
        assert origin.requests == 0


@pytest.mark.parametrize("how", [HttpHealthCheck("/"), TcpHealthCheck(), GrpcHealthCheck()], ids=["http", "tcp", "grpc"])
def test_a_process_that_cannot_prove_who_it_is_blames_no_endpoint(
    how: HttpHealthCheck | TcpHealthCheck | GrpcHealthCheck, caplog: pytest.LogCaptureFixture
) -> None:
    with Origin(member(DOMAIN, "server").server()) as origin:
        target = with_cluster(service("server", [f"127.0.0.1:{origin.port}"], tls=TLS), health_checks=(check(how),))
        with Mesh(control=StaticControl(snapshot(target))) as mesh:
            until(lambda: "cannot be checked" in caplog.text, "a warning")
            assert left_out(mesh) == set()


# --- TCP


class _Speaker(socketserver.BaseRequestHandler):
    """Says two things to whoever says PING."""

    def handle(self) -> None:
        if self.request.recv(100) == b"PING":
            self.request.sendall(b"+PO")
            time.sleep(0.01)
            self.request.sendall(b"NG, and more\n")


@contextmanager
def speaking() -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Speaker) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("how", "healthy"),
    [
        (TcpHealthCheck(), True),
        (TcpHealthCheck(b"PING", (b"PONG",)), True),
        (TcpHealthCheck(b"PING", (b"PO", b"more")), True),
        (TcpHealthCheck(b"PING", (b"more", b"PO")), False),
        (TcpHealthCheck(b"PIN", (b"PONG",)), False),
    ],
)
def test_tcp_checks(how: TcpHealthCheck, healthy: bool) -> None:
    with speaking() as port, checking(how, port) as mesh:
        until(lambda: all_checked(mesh), "the first check")
        assert (left_out(mesh) == set()) is healthy


def test_a_tcp_check_over_mtls_needs_the_handshake() -> None:
    with Origin(member(DOMAIN, "server").server()) as origin, checking(TcpHealthCheck(), origin.port, tls=TLS) as mesh:
        until(lambda: len(origin.peers) >= 3, "checks")
        assert left_out(mesh) == set()


# --- gRPC


class Health:
    """``grpc.health.v1.Health``, whose answer can be changed."""

    def __init__(self, answer: bytes = b"\x08\x01") -> None:
        self.answer = answer
        self.asked: list[bytes] = []

    def handler(self) -> grpc.GenericRpcHandler:
        def respond(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.asked.append(request)
            if not self.answer:
                context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
            return self.answer

        return grpc.method_handlers_generic_handler(
            "grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(respond)}
        )


@contextmanager
def serving_plainly(*handlers: grpc.GenericRpcHandler) -> Iterator[int]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(handlers)
    port: int = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait(10)


def test_grpc_checks_follow_what_the_server_says() -> None:
    health = Health()
    with serving_plainly(health.handler()) as port, checking(GrpcHealthCheck("shop"), port) as mesh:
        until(lambda: all_checked(mesh), "the first check")
        assert left_out(mesh) == set()
        health.answer = b"\x08\x02"  # NOT_SERVING
        until(lambda: left_out(mesh), "it is left out")
        health.answer = b"\x08\x01"
        until(lambda: left_out(mesh) == set(), "it is back")
        health.answer = b""  # an error of gRPC's
        until(lambda: left_out(mesh), "it is left out again")
        assert set(health.asked) == {b"\x0a\x04shop"}


def test_a_server_without_the_health_service_is_unhealthy() -> None:
    with serving_plainly() as port, checking(GrpcHealthCheck(), port) as mesh:
        until(lambda: left_out(mesh), "it is left out")


def test_grpc_checks_over_mtls_are_for_the_right_server_only() -> None:
    health = Health()
    right, wrong = GRPC_DOMAIN.leaf("greeter"), GRPC_DOMAIN.leaf("somebody")
    with odd_serving(right, health.handler()) as good, odd_serving(wrong, health.handler()) as bad:
        target = secured(service("greeter:9080", [f"127.0.0.1:{good}", f"127.0.0.1:{bad}"]), GRPC_DOMAIN.id("greeter"))
        with Member("caller", with_cluster(target, health_checks=(check(GrpcHealthCheck()),))) as caller:
            until(lambda: all_checked(caller.mesh) and len(health.asked) >= 3, "checks")
            assert left_out(caller.mesh) == {bad}


# --- the thread


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == THREAD]


def test_no_thread_without_checks_and_none_after_the_end() -> None:
    with backends.running(["a"]) as servers:
        plain = service("server", [f"127.0.0.1:{servers['a'].port}"])
        control = StaticControl(snapshot(plain))
        with Mesh(control=control) as mesh:
            mesh.request("GET", "http://server/")
            assert _threads() == []
            control.publish(snapshot(with_cluster(plain, health_checks=(check(HttpHealthCheck("/")),))))
            until(lambda: all_checked(mesh), "the first check")
            assert _threads() == [THREAD]
        assert _threads() == []


def test_endpoints_and_checks_may_come_and_go() -> None:
    with backends.running(["a", "b"]) as servers:
        both = service("server", [f"127.0.0.1:{servers[name].port}" for name in "ab"])
        asked = with_cluster(both, health_checks=(check(HttpHealthCheck("/")),))
        ((name, config),) = asked.clusters.items()
        first_only = replace(asked, clusters={name: replace(config, endpoints=config.endpoints[:1])})
        control = StaticControl(snapshot(first_only))
        servers["b"].failures = 10**9
        with Mesh(control=control) as mesh:
            until(lambda: all_checked(mesh), "the first check")
            control.publish(snapshot(asked))
            assert left_out(mesh) == {servers["b"].port}  # a newcomer has to pass first
            until(lambda: all_checked(mesh), "the newcomer's check")
            assert left_out(mesh) == {servers["b"].port}
            control.publish(snapshot(both))
            assert left_out(mesh) == set()  # nobody is asked any more


def in_child(work: Callable[[], object]) -> object:
    """What `work` returns in a forked child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            result: object = work()
        except BaseException as error:
            result = repr(error)
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(result, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found: object = pickle.load(pipe)
    os.waitpid(child, 0)
    return found


def test_a_forked_child_checks_by_itself() -> None:
    with (
        backends.running(["a", "b"]) as servers,
        checking(HttpHealthCheck("/"), servers["a"].port, servers["b"].port) as mesh,
    ):
        until(lambda: all_checked(mesh), "the first checks")
        servers["a"].failures = 10**9

        def work() -> object:
            mesh.start()
            until(lambda: left_out(mesh) == {servers["a"].port}, "a is left out")
            return mesh.request("GET", "http://server/").content, _threads()

        assert in_child(work) == (b"b", [THREAD])
        until(lambda: left_out(mesh) == {servers["a"].port}, "the parent goes on")
