"""Outlier detection: the same outcomes of the same endpoints, told to a real Envoy by its upstreams and to ours by hand."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket
from typing import Any

import httpx
import pytest
from google.protobuf.json_format import ParseDict

from meshlib.model.endpoint import Endpoint
from meshlib.model.outcome import Outcome, Reset
from meshlib.policy.balancing import Host
from meshlib.policy.outlier_detection import OutlierDetector
from meshlib.telemetry.events import Emit
from meshlib.xds.invalid import Problems
from meshlib.xds.outlier_detection import decode_outlier_detection
from meshlib.xds.proto import cluster_pb2
from tests.support import envoy

pytestmark = pytest.mark.envoy

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
ENDPOINTS = 5
TIMEOUT = 0.1
DEADLINE = 10.0

COMMON: dict[str, Any] = {"enforcing_success_rate": 0, "interval": "300s", "max_ejection_percent": 100}
STATUSES = ("200", "404", "500", "501", "502", "503", "504")


@dataclass(frozen=True)
class Scenario:
    """What the detector is told, and what the endpoints do."""

    detection: Mapping[str, Any]
    wishes: tuple[str, ...]
    requests: int = 60
    refusing: int = 0  # how many of the endpoints take no connections
    errors: tuple[int, ...] = ()  # statuses that count as errors in the place of all from 500


SCENARIOS = {
    "in-a-row": Scenario({**COMMON, "consecutive_5xx": 3}, ("200", "404", *["500"] * 5)),
    "gateway": Scenario(
        {**COMMON, "consecutive_5xx": 5, "consecutive_gateway_failure": 2, "enforcing_consecutive_gateway_failure": 100},
        (*STATUSES, "502", "503", "504"),
    ),
    "not-enforced": Scenario({**COMMON, "consecutive_5xx": 2, "enforcing_consecutive_5xx": 0}, ("500", "503", "200")),
    "overflow": Scenario({**COMMON, "consecutive_5xx": 2, "max_ejection_percent": 40}, ("500",)),
    "ten-percent": Scenario({**COMMON, "consecutive_5xx": 2, "max_ejection_percent": 10}, ("500",)),
    "always-one": Scenario(
        {**COMMON, "consecutive_5xx": 2, "max_ejection_percent": 10, "always_eject_one_host": True}, ("500",)
    ),
    "resets": Scenario({**COMMON, "consecutive_5xx": 3}, ("200", "reset", "reset", "reset", "500"), 50),
    "timeouts": Scenario(
        {**COMMON, "consecutive_gateway_failure": 2, "enforcing_consecutive_gateway_failure": 100}, ("hang",), 12
    ),
    "refused": Scenario({**COMMON, "consecutive_5xx": 3}, ("200", "200", "500"), 40, refusing=2),
    "apart": Scenario(
        {
            **COMMON,
            "consecutive_5xx": 3,
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 2,
            "enforcing_local_origin_success_rate": 0,
        },
        ("200", "200", "500", "reset"),
        60,
        refusing=1,
    ),
    "error-codes": Scenario(
        {**COMMON, "consecutive_5xx": 3, "consecutive_gateway_failure": 2}, ("200", "404", "500", "503"), errors=(404, 503)
    ),
    "one-error-code": Scenario({**COMMON, "consecutive_5xx": 2}, ("200", "404", "500", "reset"), errors=(404,)),
    "grpc-error-codes": Scenario({**COMMON, "consecutive_5xx": 2}, ("200", "404", "grpc-14", "grpc-0"), errors=(404,)),
    "grpc": Scenario({**COMMON, "consecutive_5xx": 2}, tuple(f"grpc-{status}" for status in range(17)), 80),
}
_PER_SECOND: dict[str, Any] = {"interval": "1s", "max_ejection_percent": 100, "enforcing_consecutive_5xx": 0}
RATES: dict[str, dict[str, Any]] = {
    "success-rate": {**_PER_SECOND, "success_rate_request_volume": 10},
    "failure-percentage": {
        **_PER_SECOND,
        "enforcing_success_rate": 0,
        "enforcing_failure_percentage": 100,
        "failure_percentage_request_volume": 10,
        "failure_percentage_threshold": 60,
    },
}
LENGTHS = {**COMMON, "consecutive_5xx": 1, "interval": "0.1s", "base_ejection_time": "0.4s", "max_ejection_time": "0.8s"}


class _Wished(BaseHTTPRequestHandler):
    """Answers as the request wishes."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one segment: two would wait for a delayed acknowledgement

    def do_GET(self) -> None:
        wish = self.headers["x-wish"]
        if wish == "reset":
            self.close_connection = True
            return
        if wish == "hang":
            threading.Event().wait(2 * TIMEOUT)
            self.close_connection = True
            return
        self.send_response(200 if wish.startswith("grpc-") else int(wish))
        if wish.startswith("grpc-"):
            self.send_header("content-type", "application/grpc")
            self.send_header("grpc-status", wish.removeprefix("grpc-"))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        pass


class Ours:
    """Our detector of a cluster with these endpoints."""

    def __init__(self, name: str, detection: Mapping[str, Any], ports: list[int], errors: tuple[int, ...] = ()) -> None:
        self.name = name
        self.hosts = {host.key: host for host in (Host(Endpoint("127.0.0.1", port)) for port in ports)}
        self.emit: Emit | None = None
        message = ParseDict({"name": name, "outlier_detection": detection}, cluster_pb2.Cluster())
        problems = Problems()
        config = decode_outlier_detection(message, frozenset(errors), problems)
        assert config is not None
        assert not problems
        self.detector = OutlierDetector(self, config)
        self.rng = random.Random(1)
        self.now = 0.0
        self.detector.tick(self.now, self.rng)

    def learn(self, address: str, wish: str, *, refused: bool) -> None:
        self.detector.learn(self.hosts[address], _outcome(wish, refused=refused), self.rng)


def _outcome(wish: str, *, refused: bool) -> Outcome:
    if refused:
        return Outcome(0.0, reset=Reset.CONNECT_FAILURE, sent=False)
    if wish == "reset":
        return Outcome(0.0, reset=Reset.CONNECTION_TERMINATION)
    if wish == "hang":
        return Outcome(0.0, reset=Reset.TIMEOUT, timeout="route")
    if wish.startswith("grpc-"):
        return Outcome(0.0, status=200, headers=((b"grpc-status", wish.removeprefix("grpc-").encode()),))
    return Outcome(0.0, status=int(wish))


class Town:
    """Envoy before the endpoints of all scenarios."""

    def __init__(self, process: envoy.Envoy, ports: list[int], refusing: list[int]) -> None:
        self.process = process
        self.ports = ports
        self.refusing = refusing
        self.client = httpx.Client(trust_env=False, timeout=20.0)
        self.url = f"http://127.0.0.1:{process.listener_port('calls')}"

    def endpoints(self, refusing: int) -> list[int]:
        return [*self.refusing[:refusing], *self.ports[: ENDPOINTS - refusing]]

    def get(self, cluster: str, wish: str) -> tuple[int, str]:
        """Status, and which endpoint gave it."""
        headers = {"x-wish": wish}
        if wish.startswith("grpc-"):
            headers["content-type"] = "application/grpc"
        found = self.client.get(f"{self.url}/{cluster}", headers=headers)
        return found.status_code, found.headers.get("x-endpoint", "")

    def stats(self, cluster: str) -> dict[str, int]:
        prefix = f"cluster.{cluster}.outlier_detection."
        path = f"/stats?filter=^cluster.{cluster}.outlier_detection"
        lines = self.client.get(self.process.admin + path).text.splitlines()
        pairs = (line.removeprefix(prefix).split(": ") for line in lines if line.startswith(prefix))
        return {name: int(value) for name, value in pairs}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with ExitStack() as stack:
        servers = []
        for _ in range(ENDPOINTS):
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), _Wished))
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            stack.callback(server.shutdown)
            servers.append(server)
        closed = []
        for _ in range(2):  # bound and not listening: connections are refused
            deaf = stack.enter_context(closing(socket()))
            deaf.bind(("127.0.0.1", 0))
            closed.append(int(deaf.getsockname()[1]))
        ports = [int(server.server_address[1]) for server in servers]
        bootstrap = _bootstrap(ports, closed)
        process = stack.enter_context(envoy.running(bootstrap, tmp_path_factory.mktemp("envoy")))
        made = Town(process, ports, closed)
        stack.enter_context(made.client)
        yield made


def _bootstrap(ports: list[int], closed: list[int]) -> dict[str, Any]:
    clusters = {name: (scenario.detection, scenario.refusing) for name, scenario in SCENARIOS.items()}
    clusters |= {name: (detection, 0) for name, detection in RATES.items()}
    clusters["lengths"] = (LENGTHS, 0)
    return {
        "static_resources": {
            "listeners": [_listener(list(clusters))],
            "clusters": [
                _cluster(name, detection, [*closed[:refusing], *ports[: ENDPOINTS - refusing]])
                for name, (detection, refusing) in clusters.items()
            ],
        }
    }


def _cluster(name: str, detection: Mapping[str, Any], ports: list[int]) -> dict[str, Any]:
    endpoints = [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}} for port in ports]
    errors = SCENARIOS[name].errors if name in SCENARIOS else ()
    return {
        **({"typed_extension_protocol_options": _options(errors)} if errors else {}),
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "outlier_detection": dict(detection),
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    }


def _options(errors: tuple[int, ...]) -> dict[str, Any]:
    rules = [
        {"http_response_headers_match": {"headers": [{"name": ":status", "string_match": {"exact": str(status)}}]}}
        for status in errors
    ]
    return {
        HTTP_OPTIONS: {
            "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
            "explicit_http_config": {"http_protocol_options": {}},
            "outlier_detection": {"error_matcher": {"or_match": {"rules": rules}} if len(rules) > 1 else rules[0]},
        }
    }


def _listener(names: list[str]) -> dict[str, Any]:
    routes = [
        {
            "match": {"prefix": f"/{name}"},
            "route": {"cluster": name, "timeout": f"{TIMEOUT}s" if name == "timeouts" else "10s"},
            "response_headers_to_add": [{"header": {"key": "x-endpoint", "value": "%UPSTREAM_HOST%"}}],
        }
        for name in names
    ]
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "calls",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    return {
        "name": "calls",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def agreed(town: Town, ours: Ours) -> Mapping[str, int]:
    """Envoy's statistics once they are ours; it ejects in another thread than the one that counts."""
    until = time.monotonic() + DEADLINE
    while True:
        theirs, own = town.stats(ours.name), ours.detector.stats
        if all(theirs.get(name) == value for name, value in own.items()):
            return theirs
        assert time.monotonic() < until, {
            name: (theirs.get(name), value) for name, value in own.items() if value != theirs.get(name)
        }
        time.sleep(0.02)


@pytest.mark.parametrize("name", SCENARIOS)
def test_ejections_are_envoys_after_each_response(town: Town, name: str) -> None:
    scenario = SCENARIOS[name]
    refusing = {f"127.0.0.1:{port}" for port in town.refusing}
    ours = Ours(name, scenario.detection, town.endpoints(scenario.refusing), scenario.errors)
    dice = random.Random(name)
    for _ in range(scenario.requests):
        wish = dice.choice(scenario.wishes)
        status, endpoint = town.get(name, wish)
        if not endpoint:
            assert status == 503
            assert all(host.ejected for host in ours.hosts.values())
            break
        ours.learn(endpoint, wish, refused=endpoint in refusing)
        agreed(town, ours)
    assert any(ours.detector.ejections_detected.values())


@pytest.mark.parametrize("name", RATES)
def test_rates_eject_whom_they_eject_in_envoy(town: Town, name: str) -> None:
    """One endpoint fails two requests of three, and each of the others one of ten."""
    ours = Ours(name, RATES[name], town.endpoints(0))
    worst = f"127.0.0.1:{town.ports[0]}"
    until = time.monotonic() + DEADLINE
    while not town.stats(name)["ejections_active"]:  # a burst that an interval's end divides may be too small for both halves
        assert time.monotonic() < until
        sent: dict[str, int] = {}
        wish = "200"
        for _ in range(ENDPOINTS * 30):
            # Round robin: who comes next is known by who came last.
            _, endpoint = town.get(name, wish)
            sent[endpoint] = sent.get(endpoint, 0) + 1
            following = f"127.0.0.1:{town.ports[(town.ports.index(int(endpoint.rpartition(':')[2])) + 1) % ENDPOINTS]}"
            wish = _wish(following == worst, sent.get(following, 0))
        time.sleep(1.1)
    for address in ours.hosts:
        for turn in range(30):
            ours.learn(address, _wish(address == worst, turn), refused=False)
    ours.now += 1.0
    ours.detector.tick(ours.now, ours.rng)
    kind = name.replace("-", "_")
    assert [address for address, host in ours.hosts.items() if host.ejected] == [worst]
    theirs = town.stats(name)
    assert theirs["ejections_active"] == ours.detector.ejections_active == 1
    assert theirs[f"ejections_enforced_{kind}"] == ours.detector.stats[f"ejections_enforced_{kind}"] == 1
    answers = {town.get(name, "200")[1] for _ in range(ENDPOINTS * 2)}
    assert answers == set(ours.hosts) - {worst}


def _wish(worst: bool, turn: int) -> str:
    return "503" if (turn % 3 < 2 if worst else turn % 10 == 0) else "200"


def test_ejections_last_as_long_as_envoys(town: Town) -> None:
    """Longer each time, up to the limit, and then to the next look: a busy machine makes Envoy's longer, never shorter."""
    ours = Ours("lengths", LENGTHS, town.ports)
    expected, lasted = [], []
    for _ in range(3):
        _, endpoint = town.get("lengths", "500")
        began = time.monotonic()
        town.process.until(lambda: town.stats("lengths")["ejections_active"] == 1, "ejection")
        town.process.until(lambda: town.stats("lengths")["ejections_active"] == 0, "end of the ejection")
        lasted.append(time.monotonic() - began)
        tally = ours.hosts[endpoint]
        ours.learn(endpoint, "500", refused=False)
        began = ours.now
        while tally.ejected:
            ours.now += 0.01
            if ours.now >= ours.detector.due:
                ours.detector.tick(ours.now, ours.rng)
        expected.append(ours.now - began)
    assert all(theirs > own - 0.11 for theirs, own in zip(lasted, expected, strict=True)), (lasted, expected)
