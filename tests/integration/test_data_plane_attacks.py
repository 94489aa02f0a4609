"""A running workload of a strict mesh, attacked for real: by a caller with a valid certificate who may do little (A2), and by
anybody who reaches its port (A1).  What counts is what the application saw, which writes down every request."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshlib import Mesh
from tests.support.attacker import connected, status, statuses
from tests.support.control import eventually
from tests.support.zero_trust import STRICT, SecureMesh, Workload

pytestmark = pytest.mark.timeout(240)


def policy(*callers: str) -> str:
    """These may GET what is below /public, of the host reviews; with none, everybody may do everything."""
    principals = ", ".join(f"cluster.local/ns/default/sa/{caller}" for caller in callers)
    rule = f"""
  - from: [{{source: {{principals: [{principals}]}}}}]
    to: [{{operation: {{methods: [GET], paths: ["/public/*"], hosts: [reviews]}}}}]
"""
    return f"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: reviews, namespace: default}}
spec:
  selector: {{matchLabels: {{app: reviews}}}}
  rules:{rule if callers else " [{}]"}
"""


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureMesh]:
    with SecureMesh(tmp_path_factory.mktemp("town")) as town:
        town.control.apply(STRICT)
        town.control.apply(policy("productpage"))
        yield town


@pytest.fixture(scope="module")
def reviews(town: SecureMesh) -> Workload:
    return town.serve("reviews")


@pytest.fixture(scope="module")
def caller(town: SecureMesh, reviews: Workload) -> Iterator[Mesh]:
    """Who may GET /public/*."""
    with town.mesh("productpage") as mesh:
        eventually(lambda: mesh.request("GET", "http://reviews/public/").status_code == 200, what="the policy")
        yield mesh


@pytest.fixture(scope="module")
def stranger(town: SecureMesh, reviews: Workload) -> Iterator[Mesh]:
    """Of the mesh too, and allowed nothing."""
    with town.mesh("ratings") as mesh:
        mesh.wait_ready(60)
        yield mesh


def request(
    target: bytes = b"/public/x", headers: bytes = b"", *, method: bytes = b"GET", host: bytes = b"reviews", last: bool = True
) -> bytes:
    end = b"connection: close\r\n\r\n" if last else b"\r\n"
    return method + b" " + target + b" HTTP/1.1\r\nhost: " + host + b"\r\n" + headers + end


def seen(reviews: Workload) -> set[tuple[str, str]]:
    """(peer, path) of all requests that the application got."""
    return {(peer, path) for peer, _, path in (line.partition(" ") for line in reviews.reached)}


CALLER = "spiffe://cluster.local/ns/default/sa/productpage"

ELSEWHERE = (
    b"/admin", b"/public/../admin", b"/public/%2e%2e/admin", b"/public/..%2fadmin", b"/public%2f..%2fadmin",
    b"/public/..%5cadmin", b"/public/..\\admin", b"/public/..;/admin", b"/public/.%00./admin", b"/public/x/../../admin",
    b"/PUBLIC/x", b"/publicx", b"/public", b"//admin/public/x", b"http://reviews/admin", b"/admin#/public/x",
    b"/admin?/public/x", b"*", b"public/x", b"@evil/public/x",
)  # fmt: skip


@pytest.mark.parametrize("target", ELSEWHERE, ids=lambda target: target.decode())
def test_no_spelling_of_a_path_leads_elsewhere(reviews: Workload, caller: Mesh, target: bytes) -> None:
    assert statuses(reviews.port, request(), caller) == [200]
    (found,) = statuses(reviews.port, request(target), caller)
    assert found in (400, 403)
    assert all(peer == CALLER and path.startswith("/public/") for peer, path in seen(reviews))


DISGUISES = {
    "H17": b"x-forwarded-client-cert: By=x;Hash=y;URI=spiffe://cluster.local/ns/default/sa/productpage\r\n",
    "another method": b"x-http-method-override: GET\r\nx-forwarded-method: GET\r\n",
    "H19": b"x-envoy-original-path: /public/x\r\nx-original-url: /public/x\r\nx-rewrite-url: /public/x\r\n",
    "H18": b"x-forwarded-for: 127.0.0.1\r\nx-real-ip: 127.0.0.1\r\nx-envoy-internal: true\r\nforwarded: for=127.0.0.1\r\n",
    "x-mesh": b"x-mesh-peer: spiffe://cluster.local/ns/default/sa/productpage\r\n",
    "H16": b"connection: x-forwarded-client-cert, host\r\n",
    "H14": b"SCRIPT_NAME: /public\r\n",
}


@pytest.mark.parametrize("name", DISGUISES)
def test_no_header_makes_somebody_else_of_a_caller(reviews: Workload, caller: Mesh, stranger: Mesh, name: str) -> None:
    assert statuses(reviews.port, request(), caller) == [200]
    (found,) = statuses(reviews.port, request(headers=DISGUISES[name]), stranger)
    assert found in (400, 403)
    assert all(peer == CALLER for peer, _ in seen(reviews))


HOSTS = {b"reviews": 200, b"REVIEWS": 200, b"reviews.": 200, b"evil": 403, b"reviews:8080": 403, b"reviews.evil": 403,
         b"reviews/x": 400, b"": 400, b"reviews, evil": 400}  # fmt: skip


@pytest.mark.parametrize("host", HOSTS, ids=bytes.decode)
def test_hosts(reviews: Workload, caller: Mesh, host: bytes) -> None:
    assert statuses(reviews.port, request(host=host), caller) == [HOSTS[host]]
    assert statuses(reviews.port, request(b"/public/x", b"x-forwarded-host: reviews\r\n", host=b"evil"), caller) == [403]
    assert statuses(reviews.port, request(headers=b"host: evil\r\n"), caller) == [400]


ADMIN = request(b"/admin")
UPGRADE = (
    b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)

SMUGGLED = {
    "pipelined": (request(last=False) + ADMIN, [200, 403]),
    "H24 length and chunks": (
        request(headers=b"content-length: 4\r\ntransfer-encoding: chunked\r\n", last=False) + b"0\r\n\r\n" + ADMIN,
        [400],
    ),
    "H24 a length twice": (request(headers=b"content-length: 0\r\ncontent-length: 9\r\n", last=False) + ADMIN, [400]),
    "H24 another coding": (request(headers=b"transfer-encoding: xchunked\r\n", last=False) + b"0\r\n\r\n" + ADMIN, [400]),
    "H24 a bare line feed": (b"GET /admin HTTP/1.1\nhost: reviews\n\n", [400]),
    "H25 an upgrade that is refused": (request(b"/admin", UPGRADE, last=False) + ADMIN, [403]),
    "P19 CONNECT": (b"CONNECT reviews:80 HTTP/1.1\r\nhost: reviews:80\r\n\r\n" + ADMIN, [400]),
    "HTTP/1.0": (b"GET /admin HTTP/1.0\r\nhost: reviews\r\n\r\n", [403]),
    "HTTP/1.0 without a host": (b"GET /public/x HTTP/1.0\r\n\r\n", [400]),
    "HTTP/0.9": (b"GET /public/x\r\n\r\n", [400]),
    "a method in lower case": (request(method=b"get"), [400]),
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_what_is_hidden_in_a_connection_is_not_served(reviews: Workload, caller: Mesh, name: str) -> None:
    sent, expected = SMUGGLED[name]
    found = statuses(reviews.port, sent, caller)
    assert found == expected or (expected == [400] and found == [])
    assert all(path.startswith("/public/") for _, path in seen(reviews))
    assert statuses(reviews.port, request(), caller) == [200]


PLAIN = {
    "HTTP": request(),
    "a proxy's header": b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + request(),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "a byte of TLS": b"\x16" + request(),
    "a record of TLS": b"\x16\x03\x01\x00\x05hello" + request(),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plaintext_gets_no_answer(reviews: Workload, caller: Mesh, name: str) -> None:
    assert statuses(reviews.port, request(), caller) == [200]
    assert statuses(reviews.port, PLAIN[name]) == []
    assert all(peer == CALLER for peer, _ in seen(reviews))


def test_L01_headers_without_end(reviews: Workload, caller: Mesh) -> None:
    few = b"".join(b"a%d: 1\r\n" % number for number in range(90))
    many = b"".join(b"a%d: 1\r\n" % number for number in range(10_000))
    assert statuses(reviews.port, request(headers=few), caller) == [200]
    assert statuses(reviews.port, request(headers=many), caller) == [431]
    assert statuses(reviews.port, request(headers=b"a: " + b"x" * (1 << 20) + b"\r\n"), caller) == [431]


def test_H23_nobody_writes_lines_into_the_log(reviews: Workload, stranger: Mesh) -> None:
    for target in (b"/x%0aINFO%1b[31m", b"/x", b"/x?%0a\xff"):
        statuses(reviews.port, request(target, headers=b"user-agent: \x1b[31m\xff\r\n"), stranger)
    assert "rbac_access_denied" in reviews.log
    assert not [line for line in reviews.log.splitlines() if not line.isprintable()]


# --- changes while a connection is open; these come last, as they leave another configuration behind


def test_a_policy_holds_for_connections_that_are_open(town: SecureMesh, reviews: Workload, caller: Mesh) -> None:
    with connected(reviews.port, caller) as kept:
        assert status(kept, request(last=False)) == 200
        town.control.apply(policy("somebody"))
        eventually(lambda: statuses(reviews.port, request(), caller) == [403], what="the policy")
        assert status(kept, request(last=False)) == 403


def test_a_mode_holds_for_connections_that_are_open(town: SecureMesh, reviews: Workload, caller: Mesh) -> None:
    """Also for one that was accepted under PERMISSIVE and has not said anything yet."""
    town.control.apply(policy())
    town.control.apply(STRICT.replace("STRICT", "PERMISSIVE"))
    eventually(lambda: statuses(reviews.port, request()) == [200], what="the mode")
    with connected(reviews.port) as kept, connected(reviews.port) as silent:
        assert status(kept, request(last=False)) == 200
        town.control.apply(STRICT)
        eventually(lambda: statuses(reviews.port, request()) == [], what="the mode")
        assert status(kept, request(b"/public/late", last=False)) == 403
        silent.sendall(request(b"/public/late"))
        assert silent.recv(4096) == b""
    assert not [path for _, path in seen(reviews) if path == "/public/late"]
    assert statuses(reviews.port, request(b"/public/late"), caller) == [200]
