"""Redirects, answers, rewrites, header operations, faults: the same YAML through a real Envoy and the client's flow."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.message import Message

from meshlib.flow.client import client_flow
from meshlib.flow.commands import Attempt
from meshlib.flow.destination import Destination
from meshlib.flow.record import CallRecord
from meshlib.flow.served import Served
from meshlib.flow.upstream import Upstream
from meshlib.model.call import Call
from meshlib.model.outcome import Outcome
from meshlib.model.snapshot import Snapshot
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
  - {match: [{uri: {exact: /moved}}], redirect: {uri: /new}}
  - {match: [{uri: {exact: /moved-query}}], redirect: {uri: "/new?own=1", redirectCode: 302}}
  - {match: [{uri: {prefix: /moved-prefix/}}], redirect: {prefixRewrite: /other/, redirectCode: 307}}
  - {match: [{uri: {prefix: /moved-host}}], redirect: {authority: "other.test:99", redirectCode: 308}}
  - {match: [{uri: {prefix: /moved-port}}], redirect: {port: 8443, scheme: https, redirectCode: 303}}
  - {match: [{uri: {prefix: /moved-scheme}}], redirect: {scheme: https}}
  - {match: [{uri: {prefix: /moved-derived}}], redirect: {uri: /d, derivePort: FROM_REQUEST_PORT}}
  - match: [{uri: {prefix: /moved-headers}}]
    redirect: {uri: /new}
    headers: {response: {set: {x-set: s}, add: {x-add: a}, remove: [x-none]}, request: {set: {x-not: n}}}
  - {match: [{uri: {prefix: /teapot}}], directResponse: {status: 418, body: {string: short and stout}}}
  - {match: [{uri: {prefix: /nothing}}], directResponse: {status: 204}}
  - match: [{uri: {prefix: /json}}]
    directResponse: {status: 200, body: {string: "{}"}}
    headers: {response: {set: {content-type: application/json}}}
  - match: [{uri: {prefix: /aborted}}]
    fault: {abort: {httpStatus: 503, percentage: {value: 100}}}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /limited}}]
    fault: {abort: {httpStatus: 429, percentage: {value: 100}}}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /grpc-fault}}]
    fault: {abort: {grpcStatus: NOT_FOUND, percentage: {value: 100}}}
    route: [{destination: {host: reviews}}]
  - {match: [{uri: {prefix: /unharmed}}], fault: {abort: {httpStatus: 503}}, route: [{destination: {host: reviews}}]}
  - match: [{uri: {prefix: /fault-headers}}]
    fault: {abort: {httpStatus: 500, percentage: {value: 100}}}
    route: [{destination: {host: reviews}, headers: {response: {set: {x-destination: d}}}}]
    headers: {response: {add: {x-route: r}}}
  - {match: [{uri: {prefix: /p/}}], rewrite: {uri: /x/}, route: [{destination: {host: reviews}}]}
  - {match: [{uri: {prefix: /slash}}], rewrite: {uri: /}, route: [{destination: {host: reviews}}]}
  - {match: [{uri: {prefix: /CASE}, ignoreUriCase: true}], rewrite: {uri: /c}, route: [{destination: {host: reviews}}]}
  - {match: [{uri: {exact: /exact}}], rewrite: {uri: /whole}, route: [{destination: {host: reviews}}]}
  - {match: [{uri: {regex: "/re/.*"}}], rewrite: {uri: /whole}, route: [{destination: {host: reviews}}]}
  - match: [{uri: {prefix: /groups}}]
    rewrite: {uriRegexRewrite: {match: "/groups/([a-z]+)/([0-9]+)", rewrite: '/\\2/\\1/\\0'}}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /all}}]
    rewrite: {uriRegexRewrite: {match: "o*", rewrite: "0"}}
    route: [{destination: {host: reviews}}]
  - {match: [{uri: {prefix: /authority}}], rewrite: {authority: other.test}, route: [{destination: {host: reviews}}]}
  - match: [{uri: {prefix: /host-set}}]
    headers: {request: {set: {Host: set.test, x-set: one}, add: {host: add.test}}}
    route: [{destination: {host: reviews}, headers: {request: {set: {host: destination.test}}}}]
  - match: [{uri: {prefix: /host-destination}}]
    route: [{destination: {host: reviews}, headers: {request: {set: {host: destination.test}}}}]
  - match: [{uri: {prefix: /headers}}]
    headers:
      request: {set: {x-a: set, x-empty: ""}, add: {x-a: added, x-b: added, x-percent: "5%%"}, remove: [x-c, X-D]}
      response: {set: {server-said: set}, add: {x-r: added}, remove: [date]}
    route:
    - destination: {host: reviews}
      headers: {request: {add: {x-a: destination}, remove: [x-e]}, response: {add: {x-r: d}}}
  - match: [{uri: {prefix: /split}}]
    headers: {request: {set: {x-level: route}, add: {x-all: route}}, response: {add: {x-all: route}}}
    route:
    - destination: {host: reviews}
      weight: 100
      headers: {request: {set: {x-level: share, host: share.test}, add: {x-all: share}}, response: {add: {x-all: share}}}
    - {destination: {host: ratings}, weight: 0}
  - match: [{uri: {prefix: /both}}]
    rewrite: {authority: rule.test}
    route:
    - {destination: {host: reviews}, weight: 100, headers: {request: {set: {host: share.test}}}}
    - {destination: {host: ratings}, weight: 0}
  - match: [{uri: {prefix: /scheme}, scheme: {exact: https}}, {uri: {prefix: /scheme/x}, scheme: {regex: "htt."}}]
    directResponse: {status: 207}
  - {match: [{uri: {prefix: /scheme}, scheme: {prefix: ht}, statPrefix: counted}], directResponse: {status: 208}}
  - {route: [{destination: {host: reviews}}]}
"""

PATHS = (
    *(
        "/moved",
        "/moved?a=b",
        "/moved-query?a=b",
        "/moved-prefix/a/b?q=1",
        "/moved-prefix/",
        "/moved-host/x?y",
        "/moved-port/a",
    ),
    *("/moved-scheme/a?b", "/moved-derived?x=1", "/moved-headers?z", "/teapot", "/nothing", "/json", "/aborted", "/limited"),
    *(
        "/grpc-fault",
        "/unharmed",
        "/fault-headers",
        "/p/",
        "/p/a/b?q=/p/",
        "/slash",
        "/slash/a",
        "/slasha?x",
        "/case/a",
        "/CaSe?x",
    ),
    *("/exact?x=/y", "/re/a?b=c", "/groups/abc/12?x=1", "/groups/none", "/groups/a/1/groups/b/2", "/all/foo/o?o=o", "/all"),
    *("/authority/a", "/host-set", "/host-destination?q", "/headers", "/split/a", "/both", "/plain", "/scheme", "/scheme/x"),
)
REQUESTS = [
    (path, host, headers)
    for path in PATHS
    for host, headers in (
        ("reviews", ()),
        ("reviews:80", (("x-a", "1"), ("x-c", "2"), ("x-d", "3"), ("x-e", "4"), ("x-level", "5"))),
        ("reviews", (("content-type", "application/grpc"), ("x-a", "1"), ("x-a", "2"))),
    )
]
COMPARED = frozenset({"location", "content-type", "grpc-status", "grpc-message", "content-length", "server-said"})
OWN = frozenset({"host", "x-envoy-original-path", "x-envoy-original-host", "content-type"})


def built(servers: Mapping[str, backends.Backend]) -> World:
    instance = Instance("reviews-1", "127.0.0.1", servers["reviews"].port)
    return world(RULES, services=[registered("reviews", instance), registered("ratings")])


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, backends.Backend, Destination]]:
    """Envoy's port, the server behind both, and what a meshlib client has of it."""
    with backends.running(["reviews"]) as servers:
        current = built(servers)
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
            yield process.listener_port(PROXY_LISTENER), servers["reviews"], destination(current)


def destination(current: World) -> Destination:
    scope = scope_of(current, Node(flavour="meshlib"))
    states: dict[ResourceKey, ResourceState] = {}
    for kind, names in ((LISTENER, ["reviews:80"]), (ROUTE, None), (CLUSTER, None), (ENDPOINTS, None)):
        for message in generate(current, scope, kind, names).values():
            name, value = decode(kind, message.SerializeToString())
            states[kind, name] = ResourceState(Status.ACKED, value)
    target = join(states, Roots(["reviews:80"]), Snapshot()).snapshot.targets["reviews:80"]
    upstreams = {name: Upstream(name) for name in target.clusters}
    for name, config in target.clusters.items():
        upstreams[name].update(config, random.Random(1))
    return Destination(target, upstreams)


Seen = tuple[int, dict[str, list[str]], bytes, tuple[str, dict[str, list[str]]] | None]


def grouped(headers: Any, wanted: frozenset[str]) -> dict[str, list[str]]:
    """By lower-case name, those that are compared; what one line holds is the same as several."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if name.lower() in wanted or (name.lower().startswith("x-") and not name.lower().startswith("x-envoy-")):
            found.setdefault(name.lower(), []).append(value)
    found.pop("x-forwarded-proto", None)
    found.pop("x-request-id", None)
    return found


def through_envoy(client: httpx.Client, port: int, server: backends.Backend, case: Any) -> Seen:
    path, host, headers = case
    with server.lock:
        server.requests.clear()
    found = client.get(f"http://127.0.0.1:{port}{path}", headers=[("host", host), *headers])
    with server.lock:
        seen = list(server.requests)
    pairs = [(name.decode(), value.decode()) for name, value in found.headers.raw]
    upstream = (seen[0][1], seen[0][2]) if seen else None
    sent = (upstream[0], grouped(upstream[1].items(), OWN)) if upstream else None
    return found.status_code, grouped(pairs, COMPARED), found.content, sent


def through_flow(target: Destination, case: Any) -> Seen:
    path, host, headers = case
    call = Call("GET", "reviews:80", path, [(name.encode(), value.encode()) for name, value in headers], host=host)
    flow = client_flow(call, target, CallRecord("reviews:80", 0.0), random.Random(1))
    try:
        command = next(flow)
        assert isinstance(command, Attempt)
        sent = [(name.decode(), value.decode()) for name, value in call.headers]
        # The server tells the last of several lines, and paths that begin with one slash.
        last = {"host": call.host} | dict(sent)
        flow.send(Outcome(0.1, status=200, headers=[(b"content-length", b"7"), (b"server-said", b"x")], complete=True))
    except StopIteration as stop:
        served: Served = stop.value
    pairs = [(name.decode(), value.decode()) for name, value in (served.headers or served.outcome.headers)]
    if "sent" in locals():
        shown = "/" + call.path.lstrip("/") if call.path.startswith("//") else call.path
        return served.outcome.status, grouped(pairs, COMPARED), b"reviews", (shown, grouped(last.items(), OWN))
    return served.outcome.status, grouped(pairs, COMPARED), served.body, None


def test_requests_and_responses_are_envoys(sides: tuple[int, backends.Backend, Destination]) -> None:
    port, server, target = sides
    assert len(REQUESTS) >= 80
    different = []
    with httpx.Client(trust_env=False, timeout=20.0, headers={}) as client:
        client.headers.clear()
        for case in REQUESTS:
            theirs, ours = through_envoy(client, port, server, case), through_flow(target, case)
            if theirs[3] is not None:  # the server does not say it, so only what the route has said of it counts
                ours[1].pop("server-said", None) if "server-said" not in theirs[1] else None
            if theirs != ours:
                different.append((case, theirs, ours))
    assert different == []
