"""Real Envoy takes the envoy flavour without a NACK and routes by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from google.protobuf.message import Message

from meshlib.xds.proto import listener_pb2
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE
from meshlib_control.catalog.model import Instance, Port
from meshlib_control.compile import Node, World, generate, scope_of
from meshlib_control.compile.listeners import PROXY_LISTENER
from tests.support import ads, backends, envoy
from tests.support.configuring import registered, world

pytestmark = pytest.mark.envoy

CONFIG = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy:
    connectionPool:
      tcp: {maxConnections: 64, connectTimeout: 2s, tcpKeepalive: {probes: 3, time: 60s, interval: 5s}}
      http: {http1MaxPendingRequests: 64, http2MaxRequests: 64, maxRequestsPerConnection: 1000, maxRetries: 5, idleTimeout: 30s}
    loadBalancer: {simple: ROUND_ROBIN}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - name: jason
    match:
    - headers: {end-user: {exact: jason}}
      withoutHeaders: {x-internal: {}}
    route: [{destination: {host: reviews, subset: v2}}]
  - name: search
    match:
    - uri: {regex: "/search/[0-9]+"}
      queryParams: {lang: {exact: de}}
      method: {exact: GET}
    route: [{destination: {host: reviews, subset: v2}}]
  - name: teapot
    match: [{uri: {prefix: /TEA}, ignoreUriCase: true}]
    directResponse: {status: 418, body: {string: short and stout}}
  - name: nowhere
    match: [{uri: {exact: /nowhere}}]
    route: [{destination: {host: reviews, subset: v9}}]
  - name: split
    route:
    - {destination: {host: reviews, subset: v1}, weight: 90}
    - {destination: {host: reviews, subset: v2}, weight: 10}
    timeout: 5s
    retries: {attempts: 2, perTryTimeout: 2s, retryOn: "connect-failure,503", backoff: 25ms}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: external}
spec:
  hosts: [static.example.com]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1, ports: {http: %(ratings)d}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: by-name}
spec:
  hosts: [dns.example.com]
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: %(ratings)d}]
  endpoints: [{address: localhost}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: anywhere}
spec:
  hosts: ["*.example.org"]
  resolution: NONE
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}]
---
apiVersion: meshlib.io/v1
kind: MeshConfig
metadata: {name: mesh}
spec: {outboundTrafficPolicy: {mode: %(policy)s}}
"""


@dataclass
class Sidecar:
    """Envoy beside an application in namespace `default`, and the servers of the mesh."""

    port: int
    envoy: envoy.Envoy
    servers: dict[str, backends.Backend]
    control: ads.AdsServer

    def get(self, host: str, path: str = "/", **headers: str) -> httpx.Response:
        sent = {"host": host} | {name.replace("_", "-"): value for name, value in headers.items()}
        with httpx.Client(trust_env=False, timeout=20.0) as client:
            return client.get(f"http://127.0.0.1:{self.port}{path}", headers=sent)


def _world(servers: Mapping[str, backends.Backend], policy: str) -> World:
    def instance(name: str, version: str) -> Instance:
        return Instance(f"{name}-{version}", "127.0.0.1", servers[f"{name}-{version}"].port, labels={"version": version})

    text = CONFIG % {"ratings": servers["ratings-v1"].port, "policy": policy}
    http, grpc = Port(9080, "http"), Port(9081, "grpc")
    return world(
        text,
        services=[
            registered("reviews", instance("reviews", "v1"), instance("reviews", "v2"), ports=(http, grpc)),
            registered("ratings", instance("ratings", "v1")),
            registered("empty"),
        ],
    )


@contextmanager
def _running(current: World, folder: Path) -> Iterator[tuple[envoy.Envoy, ads.AdsServer]]:
    """Envoy in namespace `default` of this world, once it has taken resources of every type."""
    scope = scope_of(current, Node(flavour="envoy", labels={"app": "web", "version": "v1"}, locality="us-east/a/1"))

    def resources(type_url: str, names: Collection[str] | None) -> Mapping[str, Message]:
        found = generate(current, scope, type_url, names)
        for message in found.values():
            if isinstance(message, listener_pb2.Listener):
                message.address.socket_address.port_value = 0  # the fixed one may be taken here
        return found

    with ads.serving(resources) as control, envoy.running(envoy.ads_bootstrap(control.port), folder) as process:
        process.until(lambda: control.nacks or control.acked >= {LISTENER, ROUTE, CLUSTER, ENDPOINTS}, "answer to every type")
        yield process, control


@pytest.fixture(scope="module", params=["ALLOW_ANY", "REGISTRY_ONLY"])
def sidecar(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    folder: Path = tmp_path_factory.mktemp("envoy")
    with (
        backends.running(["reviews-v1", "reviews-v2", "ratings-v1"]) as servers,
        _running(_world(servers, request.param), folder) as (process, control),
    ):
        yield Sidecar(process.listener_port(PROXY_LISTENER), process, servers, control)


def test_nothing_is_refused(sidecar: Sidecar) -> None:
    sidecar.get("ratings")
    assert sidecar.control.nacks == []
    assert sidecar.envoy.stat("cluster_manager.cds.update_rejected") == 0
    assert sidecar.envoy.stat("listener_manager.lds.update_rejected") == 0


def test_default_routes_by_every_alias(sidecar: Sidecar) -> None:
    for host in ("ratings", "ratings:80", "ratings.default", "ratings.default.svc:80", "ratings.default.svc.cluster.local"):
        assert sidecar.get(host).text == "ratings-v1", host


def test_header_match_decides(sidecar: Sidecar) -> None:
    answers = Counter(sidecar.get("reviews:9080", end_user="jason").text for _ in range(20))
    assert answers == {"reviews-v2": 20}


def test_without_headers_is_the_inverse(sidecar: Sidecar) -> None:
    """With the excluded header present the rule does not hold, and the split sends most to v1."""
    answers = Counter(sidecar.get("reviews:9080", end_user="jason", x_internal="1").text for _ in range(60))
    assert answers["reviews-v1"] > 30


def test_weights_split(sidecar: Sidecar) -> None:
    with httpx.Client(trust_env=False, timeout=20.0, headers={"host": "reviews:9080"}) as client:
        answers = Counter(client.get(f"http://127.0.0.1:{sidecar.port}/").text for _ in range(600))
    assert 20 < answers["reviews-v2"] < 120, answers  # 60 expected; six standard deviations
    assert answers["reviews-v1"] + answers["reviews-v2"] == 600


def test_regex_query_and_method(sidecar: Sidecar) -> None:
    assert {sidecar.get("reviews:9080", "/search/12?lang=de").text for _ in range(10)} == {"reviews-v2"}
    answers = Counter(sidecar.get("reviews:9080", "/search/12?lang=fr").text for _ in range(30))
    assert answers["reviews-v1"] > 10


def test_direct_response_without_regard_to_case(sidecar: Sidecar) -> None:
    response = sidecar.get("reviews:9080", "/tea/pot")
    assert (response.status_code, response.text) == (418, "short and stout")


def test_missing_subset_fails_its_own_route_only(sidecar: Sidecar) -> None:
    assert sidecar.get("reviews:9080", "/nowhere").status_code == 503
    assert sidecar.get("reviews:9080").status_code == 200


def test_failed_attempts_are_repeated_and_counted(sidecar: Sidecar) -> None:
    server = sidecar.servers["reviews-v1"]
    with server.lock:
        server.failures, server.requests[:] = 1, []
    statuses = [sidecar.get("reviews:9080").status_code for _ in range(20)]
    assert set(statuses) == {200}
    counts = [headers.get("x-envoy-attempt-count") for _, _, headers in server.requests]
    assert "2" in counts
    assert "1" in counts


def test_service_entries_static_and_dns(sidecar: Sidecar) -> None:
    assert sidecar.get("static.example.com").text == "ratings-v1"
    assert sidecar.get("dns.example.com").text == "ratings-v1"


def test_known_host_without_instances(sidecar: Sidecar) -> None:
    response = sidecar.get("empty")
    assert (response.status_code, response.text) == (503, "no healthy upstream")


def test_outside_hosts_follow_the_outbound_policy(sidecar: Sidecar, request: pytest.FixtureRequest) -> None:
    """ALLOW_ANY hands them to PassthroughCluster, which cannot go anywhere without interception; REGISTRY_ONLY: 502."""
    allowed = "ALLOW_ANY" in request.node.name
    assert sidecar.get("nowhere.test").status_code == (503 if allowed else 502)


def test_limits_arrive(sidecar: Sidecar) -> None:
    text = sidecar.envoy.get("/clusters").text
    name = "outbound|9080|v1|reviews.default.svc.cluster.local"
    assert f"{name}::default_priority::max_connections::64" in text
    assert f"{name}::default_priority::max_requests::64" in text
    assert "outbound|80||ratings.default.svc.cluster.local::default_priority::max_connections::4294967295" in text


GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.yaml"))
SAMPLES = Path(__file__).parents[3] / "shared" / "corpora" / "bookinfo"
IN_SCOPE = ("destination-rule-all", "destination-rule-reviews", "virtual-service-reviews-test-v2", "virtual-service-details-v2")


@pytest.mark.parametrize("case", GOLDEN, ids=lambda path: path.stem)
def test_golden_configuration_is_taken(case: Path, tmp_path: Path) -> None:
    with _running(world(case.read_text()), tmp_path) as (process, control):
        assert control.nacks == []
        assert process.listener_port(PROXY_LISTENER)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="Istio's samples are not beside this checkout")
def test_bookinfo_is_taken(tmp_path: Path) -> None:
    def instances(subnet: int) -> list[Instance]:
        return [Instance(v, f"127.0.{subnet}.{i}", 9080, labels={"version": v}) for i, v in enumerate(("v1", "v2"))]

    names = ("productpage", "details", "reviews", "ratings")
    services = [registered(name, *instances(subnet), ports=(Port(9080),)) for subnet, name in enumerate(names)]
    built = world(*((SAMPLES / f"{name}.yaml").read_text() for name in IN_SCOPE), services=services)
    with _running(built, tmp_path) as (process, control):
        assert control.nacks == []
        assert "outbound|9080|v2|details.default.svc.cluster.local" in process.get("/clusters").text


def test_what_envoy_refuses_is_noticed(tmp_path: Path) -> None:
    """The positive control: a NACK reaches `nacks`."""
    broken = world(
        CONFIG.replace('uri: {regex: "/search/[0-9]+"}', 'uri: {regex: "("}') % {"ratings": 1, "policy": "ALLOW_ANY"},
        services=[registered("reviews", ports=(Port(9080),))],
    )
    with _running(broken, tmp_path) as (process, control):
        process.until(lambda: control.nacks, "NACK")
        assert control.nacks[0][0] == "RouteConfiguration"
