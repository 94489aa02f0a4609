"""From YAML to ejections: a real control service, real servers that fail, calls in each way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
import pytest

from meshlib import Mesh, Overrides
from meshlib.model.cluster import OutlierDetection
from meshlib.telemetry.events import Event
from meshlib.testing import StaticControl, service, snapshot
from meshlib_integrations.grpc import channel
from tests.support import backends
from tests.support.checked import left_out, upstream_of, with_cluster
from tests.support.control import Control, eventually
from tests.support.meshcalls import WAYS

NAMES = ("a", "b", "c", "d", "e")
ONCE = Overrides(retries=0)

SERVICE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %(host)s}
spec:
  hosts: [%(host)s.default.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [%(endpoints)s]
"""
RULE = """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: %(host)s}
spec:
  host: %(host)s
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    outlierDetection: {consecutive5xxErrors: 5, interval: 100ms, baseEjectionTime: %(time)s, maxEjectionPercent: 100}
"""
POLICY = """
---
apiVersion: meshlib.io/v1
kind: ResiliencePolicy
metadata: {name: %(host)s}
spec:
  host: %(host)s
  healthChecks: [{http: {path: /healthz}, interval: 50ms, timeout: 20s, noTrafficInterval: 50ms}]
"""


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    with Control(tmp_path_factory.mktemp("control")) as running:
        yield running


@contextmanager
def calling(control: Control, host: str, servers: dict[str, backends.Backend], more: str, time: str = "300s") -> Iterator[Mesh]:
    """A mesh that can call `host`, which these servers serve; `more` is said of it."""
    endpoints = (f"{{address: 127.0.0.1, ports: {{http: {server.port}}}}}" for server in servers.values())
    revision = control.apply((SERVICE + more) % {"host": host, "endpoints": ", ".join(endpoints), "time": time})
    eventually(lambda: control.get("/v1/status")["control"]["revision"] >= revision, what="the revision is in force")
    with Mesh(control=control.xds, insecure_dev=True) as mesh:
        yield mesh


def calls(mesh: Mesh, host: str, count: int, way: str = "blocking whole") -> Counter[tuple[int, bytes]]:
    """Statuses and who gave them, each call tried once."""
    answers = (WAYS[way](mesh, "GET", f"http://{host}/", overrides=ONCE) for _ in range(count))
    return Counter((answer.status_code, answer.content) for answer in answers)


def test_an_endpoint_that_fails_is_ejected_and_comes_back(control: Control) -> None:
    with backends.running(NAMES) as servers, calling(control, "reviews", servers, RULE, "300ms") as mesh:
        servers["c"].failures = 10**9
        seen = calls(mesh, "reviews", 100)
        assert seen[503, b"c"] >= 5
        eventually(lambda: calls(mesh, "reviews", 20)[503, b"c"] == 0, what="a while without c")
        upstream = upstream_of(mesh)
        assert upstream is not None
        assert upstream.detector is not None
        assert upstream.detector.stats["ejections_enforced_consecutive_5xx"] >= 1
        servers["c"].failures = 0
        eventually(lambda: calls(mesh, "reviews", 20)[200, b"c"] == 4, what="c is used like the others")


@pytest.mark.parametrize("way", WAYS)
def test_five_errors_and_no_more_before_it_is_ejected(control: Control, way: str) -> None:
    host = f"by-{way.replace(' ', '-')}"
    with backends.running(NAMES) as servers, calling(control, host, servers, RULE) as mesh:
        servers["b"].failures = 10**9
        seen = calls(mesh, host, 60, way)
        assert seen[503, b"b"] == 5
        assert left_out(mesh) == {servers["b"].port}
        assert sum(count for (status, _), count in seen.items() if status == 200) == 55


def test_health_checks_of_a_policy_are_made(control: Control) -> None:
    with backends.running(NAMES[:2]) as servers, calling(control, "checked", servers, POLICY) as mesh:
        mesh.request("GET", "http://checked/")
        servers["a"].failures = 10**9
        eventually(lambda: left_out(mesh) == {servers["a"].port}, what="a is left out")
        assert calls(mesh, "checked", 10) == {(200, b"b"): 10}
        probes = [headers for _, path, headers in servers["a"].requests if path == "/healthz"]
        assert probes[0]["host"] == "checked.default.svc.cluster.local"


# --- gRPC


@contextmanager
def greeting(respond: Callable[[bytes, grpc.ServicerContext], bytes]) -> Iterator[int]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    method = grpc.unary_unary_rpc_method_handler(respond)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Greeter", {"Unary": method}),))
    port: int = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait(10)


@pytest.mark.parametrize(
    ("code", "ejected"),
    [(grpc.StatusCode.UNAVAILABLE, True), (grpc.StatusCode.INTERNAL, True), (grpc.StatusCode.NOT_FOUND, False)],
)
def test_statuses_of_grpc_eject_as_the_http_statuses_that_they_stand_for(code: grpc.StatusCode, ejected: bool) -> None:
    asked = Counter[str]()

    def bad(request: bytes, context: grpc.ServicerContext) -> bytes:
        asked["bad"] += 1
        context.abort(code, "no")
        raise AssertionError

    def good(request: bytes, context: grpc.ServicerContext) -> bytes:
        asked["good"] += 1
        return b"hello"

    detection = OutlierDetection(consecutive_5xx=3, max_ejection_percent=100)
    with greeting(bad) as one, greeting(good) as other:
        target = service("greeter:9080", [f"127.0.0.1:{one}", f"127.0.0.1:{other}"], retry=None)
        control = StaticControl(snapshot(with_cluster(target, outlier_detection=detection)))
        with Mesh(control=control) as mesh, channel(mesh, "greeter:9080") as opened:
            mesh.prefetch("greeter:9080")
            call = opened.unary_unary("/test.Greeter/Unary")
            events: list[Event] = []
            upstream = upstream_of(mesh)
            assert upstream is not None
            upstream.emit = events.append
            for _ in range(40):
                try:
                    call(b"x")
                except grpc.RpcError:
                    pass
            assert (left_out(mesh) == {one}) is ejected
            assert [event.reason for event in events] == (["consecutive_5xx"] if ejected else [])
            assert (asked["bad"] == 3) is ejected
            assert asked["good"] + asked["bad"] == 40
