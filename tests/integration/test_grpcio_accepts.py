"""grpcio's own xds:/// client takes the grpc flavour without a NACK and routes by it.

In a child process: the bootstrap is read from the environment once per process, and its threads outlive the channels.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from concurrent import futures
from contextlib import ExitStack, contextmanager

import grpc
import pytest
from google.protobuf.message import Message

from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE
from meshlib_control.catalog.model import Instance, InstanceHealth, Port
from meshlib_control.compile import Node, World, generate, scope_of
from tests.support import ads
from tests.support.configuring import registered, world

CONFIG = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: greeter}
spec:
  host: greeter
  trafficPolicy:
    loadBalancer: {simple: LEAST_REQUEST}
    connectionPool: {http: {http2MaxRequests: 3000}}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: greeter}
spec:
  hosts: [greeter]
  http:
  - name: query
    match: [{queryParams: {lang: {exact: de}}}]
    route: [{destination: {host: greeter, subset: v2}}]
  - name: jason
    match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: greeter, subset: v2}}]
  - name: method
    match: [{uri: {exact: /test.Greeter/Second}}]
    route: [{destination: {host: greeter, subset: v2}}]
  - route:
    - {destination: {host: greeter, subset: v1}, weight: 80}
    - {destination: {host: greeter, subset: v2}, weight: 20}
    timeout: 1s
    retries: {attempts: 2, retryOn: "unavailable,5xx,503", perTryTimeout: 500ms}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: by-name}
spec:
  hosts: [dns.example.com]
  resolution: DNS
  ports: [{number: 80, name: grpc, protocol: GRPC, targetPort: %(v1)d}]
  endpoints: [{address: localhost}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: sticky}
spec: {host: sticky, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user, maglev: {tableSize: 5003}}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: near}
spec: {host: near, trafficPolicy: {outlierDetection: {}}}
---
apiVersion: meshlib.io/v1
kind: ResiliencePolicy
metadata: {name: near}
spec: {host: near, failureRateEjection: {threshold: 60}, successRateEjection: {}, healthChecks: [{grpc: {}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: spread}
spec:
  host: spread
  trafficPolicy: {loadBalancer: {localityLbSetting: {distribute: [{from: here/b, to: {here/a: 10, here/b: 90}}]}}}
"""

CLIENT = """
import json, sys
import grpc

def call(target, method, count, metadata):
    with grpc.insecure_channel(target) as channel:
        ask = channel.unary_unary(method)
        answers = {}
        for _ in range(count):
            try:
                answer = ask(b"", timeout=60, metadata=metadata).decode()
            except grpc.RpcError as error:
                answer = f"{error.code().name}: {error.details()}"
            answers[answer] = answers.get(answer, 0) + 1
        return answers

print(json.dumps([call(*request) for request in json.load(sys.stdin)]))
"""


@contextmanager
def _greeter(name: str) -> Iterator[int]:
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: name.encode())
    server = grpc.server(futures.ThreadPoolExecutor(4))
    methods = {"First": handler, "Second": handler}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Greeter", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait(10)


def _world(v1: int, v2: int) -> World:
    near = Instance("v1", "127.0.0.1", v1, locality="here/a"), Instance("v2", "127.0.0.1", v2, locality="here/b")
    return world(
        CONFIG % {"v1": v1},
        services=[
            *(registered(name, *near, ports=(Port(80, "grpc"),)) for name in ("sticky", "near", "spread")),
            registered(
                "greeter",
                Instance("v1", "127.0.0.1", v1, labels={"version": "v1"}, locality="here/a"),
                Instance("v2", "127.0.0.1", v2, labels={"version": "v2"}, locality="here/b"),
                Instance("gone", "127.0.0.1", 1, labels={"version": "v1"}, health=InstanceHealth.DRAINING),
                ports=(Port(80, "grpc"), Port(9090, "grpc")),
            ),
        ],
    )


@pytest.fixture(scope="module")
def outcome() -> Iterator[tuple[list[dict[str, int]], ads.AdsServer]]:
    """One child makes all the calls; the tests look at what came of them."""
    requests: list[tuple[str, str, int, list[tuple[str, str]]]] = [
        ("xds:///greeter", "/test.Greeter/First", 400, []),
        ("xds:///greeter:9090", "/test.Greeter/First", 5, [("end-user", "jason")]),
        ("xds:///greeter.default.svc.cluster.local:80", "/test.Greeter/Second", 5, []),
        ("xds:///dns.example.com", "/test.Greeter/First", 3, []),
        *(("xds:///sticky", "/test.Greeter/First", 10, [("x-user", f"user-{number}")]) for number in range(12)),
        ("xds:///near", "/test.Greeter/First", 20, []),
        ("xds:///spread", "/test.Greeter/First", 200, []),
    ]
    with ExitStack() as stack:
        v1, v2 = stack.enter_context(_greeter("v1")), stack.enter_context(_greeter("v2"))
        current = _world(v1, v2)
        scope = scope_of(current, Node(flavour="grpc", locality="here/b"))

        def resources(type_url: str, names: Collection[str] | None) -> Mapping[str, Message]:
            return generate(current, scope, type_url, names)

        control = stack.enter_context(ads.serving(resources))
        bootstrap = {
            "xds_servers": [{"server_uri": f"127.0.0.1:{control.port}", "channel_creds": [{"type": "insecure"}]}],
            "node": {"id": "test"},
        }
        done = subprocess.run(
            [sys.executable, "-c", CLIENT],
            input=json.dumps(requests),
            env={**os.environ, "GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap)},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout), control


def test_nothing_is_refused(outcome: tuple[list[dict[str, int]], ads.AdsServer]) -> None:
    _, control = outcome
    assert control.nacks == []
    assert control.acked >= {LISTENER, ROUTE, CLUSTER, ENDPOINTS}


def test_weights_split_and_drained_instances_get_nothing(outcome: tuple[list[dict[str, int]], ads.AdsServer]) -> None:
    answers = outcome[0][0]
    assert sum(answers.values()) == answers["v1"] + answers["v2"] == 400
    assert 35 < answers["v2"] < 125, answers  # 80 expected; over five standard deviations


def test_header_match_on_another_port(outcome: tuple[list[dict[str, int]], ads.AdsServer]) -> None:
    assert outcome[0][1] == {"v2": 5}


def test_method_match_by_full_name(outcome: tuple[list[dict[str, int]], ads.AdsServer]) -> None:
    assert outcome[0][2] == {"v2": 5}


def test_dns_service(outcome: tuple[list[dict[str, int]], ads.AdsServer]) -> None:
    assert outcome[0][3] == {"v1": 3}


def test_what_is_hashed_keeps_to_its_endpoint(outcome: tuple[list[dict[str, int]], ads.AdsServer]) -> None:
    """Of twelve keys one in two thousand runs would have all at one of the two."""
    answers = outcome[0][4:16]
    assert all(sum(answer.values()) == 10 and len(answer) == 1 for answer in answers)
    assert {name for answer in answers for name in answer} == {"v1", "v2"}


def test_priorities_and_weights_of_localities_are_followed(outcome: tuple[list[dict[str, int]], ads.AdsServer]) -> None:
    near, spread = outcome[0][16:]
    assert near == {"v2": 20}
    assert 3 < spread["v1"] < 45, spread  # 20 expected
    assert spread["v1"] + spread["v2"] == 200
