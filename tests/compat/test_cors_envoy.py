"""Cross-origin requests: a real Envoy's CORS filter and the server's flow, with policies of the same YAML."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping
from itertools import product
from pathlib import Path

import httpx
import pytest
from google.protobuf.message import Message

from meshlib.flow.inbound import InboundPlan, compile_listener
from meshlib.flow.server import Handle, server_flow
from meshlib.model.inbound import Refusal, ServerRequest
from meshlib.model.listener import InboundListener
from meshlib.xds.decode import decode
from meshlib.xds.proto import listener_pb2
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE
from meshlib_control.catalog.model import Instance
from meshlib_control.compile import Node, World, generate, scope_of
from meshlib_control.compile.inbound import inbound_name
from meshlib_control.compile.listeners import PROXY_LISTENER
from tests.support import ads, backends, envoy
from tests.support.configuring import registered, world

pytestmark = pytest.mark.envoy

RULES = r"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - match: [{uri: {prefix: /full}}]
    corsPolicy:
      allowOrigins: [{exact: https://a.test}, {prefix: https://b.}, {regex: 'https://[a-z]+\.c\.test(:[0-9]+)?'}]
      allowMethods: [GET, POST]
      allowHeaders: [x-one, x-two]
      exposeHeaders: [x-seen, x-also]
      maxAge: 24h
      allowCredentials: true
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /ignore}}]
    corsPolicy:
      allowOrigins: [{exact: https://a.test}]
      allowMethods: ["*"]
      allowHeaders: ["*"]
      exposeHeaders: [x-seen]
      allowCredentials: true
      maxAge: 10s
      unmatchedPreflights: IGNORE
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /any}}]
    corsPolicy: {allowOrigins: [{exact: "*"}], allowMethods: [GET], unmatchedPreflights: FORWARD}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /regex-any}}]
    corsPolicy: {allowOrigins: [{regex: ".*"}], allowCredentials: false}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /old}}]
    corsPolicy: {allowOrigin: [https://a.test, "*.test"], allowMethods: [PUT], allowHeaders: ["*"]}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /nobody}}]
    corsPolicy: {allowMethods: [GET], unmatchedPreflights: IGNORE}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {exact: /both}, headers: {x-kind: {exact: left}}}, {uri: {exact: /both}, method: {exact: OPTIONS}}]
    corsPolicy: {allowOrigins: [{exact: https://a.test}], allowMethods: [DELETE]}
    route: [{destination: {host: reviews}}]
  - route: [{destination: {host: reviews}}]
"""

PATHS = ("/full/x?q=1", "/ignore", "/any", "/regex-any", "/old", "/nobody", "/both", "/none")
ORIGINS: tuple[tuple[str, ...], ...] = (
    *((), ("",), ("https://a.test",), ("https://a.test/",), ("HTTPS://A.TEST",), ("https://a.test.evil",)),
    *(("https://b.anything",), ("http://b.anything",), ("https://x.c.test:8443",), ("https://x.c.test.evil",), ("null",)),
    *(("*",), ("*.test",), ("https://a.test", "https://evil.test"), ("https://evil.test", "https://a.test")),
)
ASKING: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("GET", ()),
    ("POST", (("x-kind", "left"),)),
    ("OPTIONS", ()),
    ("OPTIONS", (("access-control-request-method", ""),)),
    ("OPTIONS", (("access-control-request-method", "PUT"),)),
    ("OPTIONS", (("access-control-request-method", "GET"), ("access-control-request-headers", "x-one,x-three"))),
    ("OPTIONS", (("access-control-request-method", "GET"), ("access-control-request-private-network", "true"))),
    ("GET", (("access-control-request-method", "GET"),)),
)
CASES = list(product(PATHS, ORIGINS, ASKING))
APPLICATION = (("access-control-allow-origin", "https://the-application.test"), ("access-control-max-age", "1"))
"""What the application answers by itself."""

Seen = tuple[int, list[tuple[str, str]], bool]
"""Status, headers of CORS, and whether the application was asked."""


def shown(headers: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
    return sorted((name, value) for name, value in headers if name.startswith("access-control-"))


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, backends.Backend, InboundPlan]]:
    with backends.running(["reviews"]) as servers:
        server = servers["reviews"]
        server.headers = APPLICATION
        current = world(RULES, services=[registered("reviews", Instance("reviews-1", "127.0.0.1", server.port))])
        scope = scope_of(current, Node(flavour="envoy"))

        def resources(type_url: str, names: Collection[str] | None) -> Mapping[str, Message]:
            found = generate(current, scope, type_url, names)
            for message in found.values():
                if isinstance(message, listener_pb2.Listener):
                    message.address.socket_address.port_value = 0
            return found

        folder: Path = tmp_path_factory.mktemp("envoy")
        with ads.serving(resources) as control, envoy.running(envoy.ads_bootstrap(control.port), folder) as process:
            process.until(lambda: control.nacks or control.acked >= {LISTENER, ROUTE, CLUSTER, ENDPOINTS}, "answers")
            assert control.nacks == []
            yield process.listener_port(PROXY_LISTENER), server, served(current)


def served(current: World) -> InboundPlan:
    """What a workload of the service enforces."""
    scope = scope_of(current, Node(flavour="meshlib", service="reviews"))
    name = inbound_name(8080)
    [message] = generate(current, scope, LISTENER, [name]).values()
    _, listener = decode(LISTENER, message.SerializeToString())
    assert isinstance(listener, InboundListener)
    return compile_listener(listener, now=lambda: 0.0)


def through_envoy(
    client: httpx.Client, port: int, server: backends.Backend, case: tuple[str, str, list[tuple[str, str]]]
) -> Seen:
    method, path, headers = case
    with server.lock:
        server.requests.clear()
    found = client.request(method, f"http://127.0.0.1:{port}{path}", headers=[("host", "reviews"), *headers])
    with server.lock:
        asked = bool(server.requests)
    return found.status_code, shown([(name.decode(), value.decode()) for name, value in found.headers.raw]), asked


def through_flow(plan: InboundPlan, case: tuple[str, str, list[tuple[str, str]]]) -> Seen:
    method, path, headers = case
    raw = [(name.encode(), value.encode()) for name, value in (("host", "reviews"), *headers)]
    flow = server_flow(ServerRequest(method, path.encode(), raw), 0.0, plan)
    try:
        command = next(flow)
    except StopIteration as stop:
        refusal: Refusal = stop.value
        return refusal.status, shown([(name.decode(), value.decode()) for name, value in refusal.headers]), False
    assert isinstance(command, Handle)
    flow.close()
    own = {name.decode(): value.decode() for name, value in (command.inspection.response_set or {}).items()}
    return 200, shown([*(pair for pair in APPLICATION if pair[0] not in own), *own.items()]), True


def test_browsers_are_answered_as_by_envoy(sides: tuple[int, backends.Backend, InboundPlan]) -> None:
    """Every path with a third of the origins and ways of asking; all of them come up with each other."""
    port, server, plan = sides
    chosen = random.Random(7).sample(CASES, len(CASES) // 3)
    different = []
    with httpx.Client(trust_env=False, timeout=20.0) as client:
        client.headers.clear()
        for path, origins, (method, more) in chosen:
            case = (method, path, [*(("origin", origin) for origin in origins), *more])
            theirs, ours = through_envoy(client, port, server, case), through_flow(plan, case)
            if theirs != ours:
                different.append((case, theirs, ours))
    assert len(chosen) > 300
    assert different == []
