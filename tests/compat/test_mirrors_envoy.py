"""Copies for mirrors: what a mirror receives from a real Envoy and from a meshlib client, given the same YAML and requests."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from google.protobuf.message import Message

from meshlib.model.request import Request
from meshlib.model.snapshot import Snapshot
from meshlib.runtime.client import Client
from meshlib.testing import StaticControl
from meshlib.xds.decode import decode
from meshlib.xds.join import Roots, join
from meshlib.xds.proto import listener_pb2
from meshlib.xds.states import ResourceKey, ResourceState, Status
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE
from meshlib_control.catalog.model import Instance
from meshlib_control.compile import Node, World, generate, scope_of
from meshlib_control.compile.listeners import PROXY_LISTENER
from tests.support import ads, backends, envoy
from tests.support.configuring import registered, world

pytestmark = pytest.mark.envoy

RULES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - match: [{uri: {prefix: /plain}}]
    timeout: 10s
    mirror: {host: shadow}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /rewritten/}}]
    timeout: 10s
    rewrite: {uri: /new/, authority: "other.test:99"}
    headers: {request: {set: {x-set: s}, add: {x-seen: added}, remove: [x-gone]}}
    mirrors: [{destination: {host: shadow}, percentage: {value: 100}}]
    route: [{destination: {host: reviews}, headers: {request: {add: {x-destination: d}}}}]
  - match: [{uri: {prefix: /twice}}]
    timeout: 10s
    mirror: {host: shadow}
    mirrorPercentage: {value: 100}
    mirrors: [{destination: {host: shadow}}]
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /never}}]
    mirror: {host: shadow}
    mirrorPercentage: {value: 0}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /aborted}}]
    mirror: {host: shadow}
    fault: {abort: {httpStatus: 503, percentage: {value: 100}}}
    route: [{destination: {host: reviews}}]
  - {route: [{destination: {host: reviews}}]}
"""

REQUESTS: tuple[tuple[str, str, str, tuple[tuple[str, str], ...], bytes, int], ...] = (
    ("GET", "/plain/a?q=1", "reviews", (("x-seen", "1"),), b"", 1),
    ("POST", "/plain", "reviews:80", (("x-seen", "1"), ("content-type", "text/x")), b"the body", 1),
    ("PUT", "/rewritten/a/b?x=/rewritten/", "reviews", (("x-seen", "1"), ("x-gone", "2")), b"b" * 70_000, 1),
    ("DELETE", "/rewritten/", "reviews.default.svc.cluster.local", (), b"", 1),
    ("HEAD", "/plain", "reviews", (), b"", 1),
    ("GET", "/twice", "reviews", (("x-seen", "1"),), b"", 2),
    ("GET", "/never", "reviews", (), b"", 0),
    ("GET", "/aborted", "reviews", (), b"", 0),
    ("GET", "/elsewhere", "reviews", (), b"", 0),
)
NOT_COMPARED = frozenset(
    {
        # What a proxy says of itself, and the application beside a library cannot.
        "x-forwarded-for", "x-forwarded-proto", "x-request-id", "x-envoy-internal",
        # What is left of ten seconds.
        "x-envoy-expected-rq-timeout-ms",
        # How the body is framed is the connection's business; bodies are compared.
        "content-length", "transfer-encoding",
    }
)  # fmt: skip

Sides = tuple[envoy.Envoy, Client, backends.Backend]
Received = list[tuple[str, str, dict[str, str], bytes]]


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    """Envoy, a client of meshlib, and the mirror behind both."""
    with backends.running(["reviews", "shadow"]) as servers:
        current = world(
            RULES,
            services=[registered(name, Instance(name, "127.0.0.1", server.port)) for name, server in servers.items()],
        )
        scope = scope_of(current, Node(flavour="envoy"))

        def resources(type_url: str, names: Collection[str] | None) -> Mapping[str, Message]:
            found = generate(current, scope, type_url, names)
            for message in found.values():
                if isinstance(message, listener_pb2.Listener):
                    message.address.socket_address.port_value = 0
            return found

        folder: Path = tmp_path_factory.mktemp("envoy")
        with (
            ads.serving(resources) as control,
            envoy.running(envoy.ads_bootstrap(control.port), folder) as process,
            closing(client(current)) as ours,
        ):
            process.until(lambda: control.nacks or control.acked >= {LISTENER, ROUTE, CLUSTER, ENDPOINTS}, "answers")
            assert control.nacks == []
            yield process, ours, servers["shadow"]


def client(current: World) -> Client:
    scope = scope_of(current, Node(flavour="meshlib"))
    states: dict[ResourceKey, ResourceState] = {}
    for kind, names in ((LISTENER, ["reviews:80"]), (ROUTE, None), (CLUSTER, None), (ENDPOINTS, None)):
        for message in generate(current, scope, kind, names).values():
            name, value = decode(kind, message.SerializeToString())
            states[kind, name] = ResourceState(Status.ACKED, value)
    snapshot = join(states, Roots(["reviews:80"]), Snapshot()).snapshot
    made = Client(StaticControl(snapshot))
    made.destinations.publish(snapshot)
    return made


def received(process: envoy.Envoy, mirror: backends.Backend, count: int) -> Received:
    """What the mirror has got since it was last asked."""
    process.until(lambda: len(mirror.bodies) >= count, "copies")
    with mirror.lock:
        seen = list(zip(mirror.requests, mirror.bodies, strict=True))
        mirror.requests.clear()
        mirror.bodies.clear()
    kept = [
        (method, path, {name: value for name, value in headers.items() if name not in NOT_COMPARED}, body)
        for (method, path, headers), body in seen
    ]
    return sorted(kept, key=str)


def test_a_mirror_receives_what_it_receives_from_envoy(sides: Sides) -> None:
    process, ours, mirror = sides
    port = process.listener_port(PROXY_LISTENER)
    with httpx.Client(trust_env=False, timeout=20.0) as http:
        http.headers.clear()
        for method, path, host, headers, body, count in REQUESTS:
            http.request(method, f"http://127.0.0.1:{port}{path}", headers=[("host", host), *headers], content=body)
            theirs = received(process, mirror, count)
            pairs = [(name.encode(), value.encode()) for name, value in headers]
            exchange = ours.exchange(Request(method, "http", "reviews:80", path, pairs, body, host_header=host))
            assert exchange is not None
            exchange.close()
            assert ours.mirroring.wait_idle(20.0)
            assert (path, received(process, mirror, count)) == (path, theirs)
            assert len(theirs) == count
    assert (ours.mirroring.failed, ours.mirroring.dropped) == (0, 0)
