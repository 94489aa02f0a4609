"""External authorizers that really are external: asked over HTTP and over gRPC, by ASGI and WSGI applications."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import httpx
import pytest

from meshlib import Mesh
from meshlib.flow.inbound import Question, compile_listener
from meshlib.flow.server import Check
from meshlib.model.authorization import NO_BODY, AuthorizerAnswer, ExternalAuthorization
from meshlib.model.cluster import UpstreamTls
from meshlib.model.listener import InboundListener
from meshlib.model.snapshot import Snapshot, Target
from meshlib.runtime.authorizer_grpc import GrpcAuthorizers
from meshlib.runtime.identity.material import Material, PrivateKey
from meshlib.runtime.identity.static import StaticIdentity
from meshlib.runtime.tls.contexts import TlsContexts
from meshlib.testing import StaticControl, service, static_mesh
from meshlib.xds.check import CHECK
from meshlib.xds.proto import ext_authz_pb2
from meshlib_integrations.asgi import MeshMiddleware as AsgiMiddleware
from meshlib_integrations.wsgi import MeshMiddleware as WsgiMiddleware
from tests.support.certificates import TrustDomain
from tests.support.rbac import deny, inspect, path, text

PORT = 8080
AUTHORITY = "authz.foo.svc.cluster.local:9000"
CLUSTER = "outbound|9000||authz.foo.svc.cluster.local"


# --- authorizers


class HttpAuthorizer(ThreadingHTTPServer):
    """Allows what has the header ``authorization: let me in``, and says whom it took the caller for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Decision)
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.status = 0  # if set, what it answers to everything


class _Decision(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: HttpAuthorizer

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", "0")))
        self.server.asked.append((self.command, self.path, headers, body))
        allowed = headers.get("authorization") == "let me in"
        self.send_response(self.server.status or (200 if allowed else 401))
        self.send_header("x-user", "alice")
        self.send_header("x-trace", "t")
        if not allowed:
            self.send_header("set-cookie", "a=1")
        self.send_header("content-length", "4")
        self.end_headers()
        self.wfile.write(b"said")

    do_GET = do_POST  # noqa: N815 - the name in the base class

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        pass


@contextmanager
def http_authorizer() -> Iterator[HttpAuthorizer]:
    server = HttpAuthorizer()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class GrpcAuthorizer(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The same over gRPC."""

    def __init__(self) -> None:
        self.asked: list[ext_authz_pb2.CheckRequest] = []
        self.peers: list[Any] = []
        self.delay = threading.Event()
        self.delay.set()

    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._check) if details.method == CHECK else None

    def _check(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        self.delay.wait(30)
        request = ext_authz_pb2.CheckRequest.FromString(data)
        self.asked.append(request)
        self.peers.append(context.peer_identities())
        answer = ext_authz_pb2.CheckResponse()
        if request.attributes.request.http.headers.get("authorization") == "let me in":
            answer.ok_response.headers.add().header.MergeFrom(_header("x-user", "alice"))
            answer.ok_response.response_headers_to_add.add().header.MergeFrom(_header("x-trace", "t"))
        else:
            answer.status.code = 7
            answer.denied_response.status.code = 401  # type: ignore[assignment]
            answer.denied_response.body = "said"
        return answer.SerializeToString()


def _header(key: str, value: str) -> Any:
    option = ext_authz_pb2.OkHttpResponse().headers.add()
    option.header.key, option.header.value = key, value
    return option.header


@contextmanager
def grpc_authorizer(credentials: grpc.ServerCredentials | None = None) -> Iterator[tuple[GrpcAuthorizer, int]]:
    authorizer = GrpcAuthorizer()
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, handlers=[authorizer])
        address = "127.0.0.1:0"
        port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
        server.start()
        try:
            yield authorizer, port
        finally:
            server.stop(0).wait()


# --- applications


@contextmanager
def meshed(port: int, **more: Any) -> Iterator[Mesh]:
    """A mesh whose one policy is to ask the authorizer on `port`, except about ``/denied``, which is denied anyhow."""
    asks = ExternalAuthorization("ext", CLUSTER, AUTHORITY, **{"timeout": 30.0, **more})
    listener = InboundListener("in", PORT, filters=(asks, deny(path("/denied"))))
    mesh = static_mesh(service(AUTHORITY, [f"127.0.0.1:{port}"]), inbound=[listener])
    with mesh:
        yield mesh


async def asgi_app(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    seen = dict(scope["headers"])
    headers = [(b"x-seen", seen.get(b"x-user", b"")), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def asgi_call(mesh: Mesh, target: str, headers: dict[str, str], content: bytes | None) -> httpx.Response:
    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(AsgiMiddleware(asgi_app, mesh))
        async with httpx.AsyncClient(transport=transport, base_url=f"http://shop:{PORT}") as client:
            response = await client.request("POST" if content is not None else "GET", target, headers=headers, content=content)
        await mesh.aclose_loop()
        return response

    return asyncio.run(call())


def wsgi_app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("x-seen", environ.get("HTTP_X_USER", "")), ("content-length", str(len(body)))])
    return [body]


def wsgi_call(mesh: Mesh, target: str, headers: dict[str, str], content: bytes | None) -> httpx.Response:
    with httpx.Client(transport=httpx.WSGITransport(WsgiMiddleware(wsgi_app, mesh)), base_url=f"http://shop:{PORT}") as client:
        return client.request("POST" if content is not None else "GET", target, headers=headers, content=content)


CALLS = {"asgi": asgi_call, "wsgi": wsgi_call}
IN = {"authorization": "let me in", "x-user": "root"}


@pytest.fixture(params=CALLS)
def call(request: pytest.FixtureRequest) -> Callable[..., httpx.Response]:
    found: Callable[..., httpx.Response] = CALLS[request.param]
    return found


def test_over_http(call: Callable[..., httpx.Response]) -> None:
    answers = {"upstream_headers": (text("x-user"),), "client_headers_on_success": (text("x-trace"),)}
    with http_authorizer() as authorizer, meshed(authorizer.server_address[1], path_prefix="/check", **answers) as mesh:
        allowed = call(mesh, "/a?x=1", IN, None)
        assert (allowed.status_code, allowed.headers["x-seen"], allowed.headers["x-trace"]) == (200, "alice", "t")
        method, target, headers, _ = authorizer.asked[0]
        assert (method, target, headers["host"]) == ("GET", "/check/a?x=1", f"shop:{PORT}")
        assert "x-user" not in headers
        denied = call(mesh, "/", {}, None)
        assert (denied.status_code, denied.text, denied.headers["set-cookie"]) == (401, "said", "a=1")
        assert call(mesh, "/denied", IN, None).status_code == 403
        assert len(authorizer.asked) == 3


def test_over_grpc(call: Callable[..., httpx.Response]) -> None:
    with grpc_authorizer() as (authorizer, port), meshed(port, grpc=True) as mesh:
        allowed = call(mesh, "/a?x=1", IN, None)
        assert (allowed.status_code, allowed.headers["x-seen"], allowed.headers["x-trace"]) == (200, "alice", "t")
        asked = authorizer.asked[0].attributes.request.http
        assert (asked.method, asked.path, asked.host, asked.headers[":path"]) == ("GET", "/a?x=1", f"shop:{PORT}", "/a?x=1")
        assert asked.headers["x-user"] == "root"
        denied = call(mesh, "/", {}, None)
        assert (denied.status_code, denied.text) == (401, "said")
        assert call(mesh, "/denied", IN, None).status_code == 403


@pytest.mark.parametrize(("content", "seen", "status"), [(b"1234", b"1234", 200), (b"12345", None, 413), (b"", b"", 200)])
def test_a_whole_body_is_shown_or_none(
    call: Callable[..., httpx.Response], content: bytes, seen: bytes | None, status: int
) -> None:
    with http_authorizer() as authorizer, meshed(authorizer.server_address[1], max_request_bytes=4) as mesh:
        response = call(mesh, "/", IN, content)
        assert response.status_code == status
        assert [asked[3] for asked in authorizer.asked] == ([] if seen is None else [seen])
        assert response.content == (content if status == 200 else b"Payload Too Large")


def test_the_beginning_of_a_body_is_shown_and_the_application_gets_all_of_it(call: Callable[..., httpx.Response]) -> None:
    content = bytes(range(256)) * 1000
    limits = {"max_request_bytes": 1000, "allow_partial_message": True}
    with http_authorizer() as authorizer, meshed(authorizer.server_address[1], **limits) as mesh:
        assert call(mesh, "/", IN, content).content == content
        _, _, headers, body = authorizer.asked[0]
        assert (body, headers["x-envoy-auth-partial-body"]) == (content[:1000], "true")
        assert call(mesh, "/", IN, content[:1000]).content == content[:1000]
        assert authorizer.asked[1][2]["x-envoy-auth-partial-body"] == "false"
    with grpc_authorizer() as (asked, port), meshed(port, grpc=True, pack_as_bytes=True, **limits) as mesh:
        assert call(mesh, "/", IN, content).content == content
        assert asked.asked[0].attributes.request.http.raw_body == content[:1000]


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_an_authorizer_that_is_gone_fails_closed_or_open_as_configured(call: Callable[..., httpx.Response], kind: str) -> None:
    with http_authorizer() as authorizer:
        port = authorizer.server_address[1]
    for more, status in (({}, 403), ({"status_on_error": 503}, 503), ({"fail_open": True}, 200)):
        with meshed(port, grpc=kind == "grpc", **more) as mesh:
            assert call(mesh, "/", IN, None).status_code == status
            assert call(mesh, "/denied", IN, None).status_code in (status, 403)


def test_5xx_is_no_answer(call: Callable[..., httpx.Response]) -> None:
    with http_authorizer() as authorizer, meshed(authorizer.server_address[1], status_on_error=502) as mesh:
        authorizer.status = 500
        response = call(mesh, "/", IN, None)
        assert (response.status_code, response.content) == (502, b"")


def test_a_slow_authorizer_is_given_its_timeout(call: Callable[..., httpx.Response]) -> None:
    with grpc_authorizer() as (authorizer, port):
        authorizer.delay.clear()
        with meshed(port, grpc=True, timeout=0.3) as mesh:
            assert call(mesh, "/", IN, None).status_code == 403
        authorizer.delay.set()
        with meshed(port, grpc=True) as mesh:
            assert call(mesh, "/", {}, None).status_code == 401


# --- gRPC with identities


class Domain(TrustDomain):
    """With what gRPC and the mesh want of it."""

    def identity(self, account: str) -> TlsContexts:
        leaf = self.leaf(account)
        return TlsContexts(StaticIdentity(Material.of(leaf.chain_der, PrivateKey.parse(leaf.key_pem), self.bundle)))

    def server(self, account: str) -> grpc.ServerCredentials:
        leaf = self.leaf(account)
        pair = [(leaf.key_pem, leaf.chain_pem)]
        return grpc.ssl_server_credentials(pair, self.root.pem, require_client_auth=True)


def asked_over_tls(port: int, expected: str, tls: TlsContexts | None) -> AuthorizerAnswer:
    target: Target = service(AUTHORITY, [f"127.0.0.1:{port}"])
    (config,) = target.clusters.values()
    assert config.cluster is not None
    cluster = replace(config.cluster, tls=UpstreamTls(identities=frozenset({expected})))
    target = replace(target, clusters={config.name: replace(config, cluster=cluster)})
    control = StaticControl(Snapshot(targets={AUTHORITY: target}))
    authorizers = GrpcAuthorizers(control, tls)
    asks = ExternalAuthorization("ext", CLUSTER, AUTHORITY, grpc=True, timeout=10.0)
    (question,) = compile_listener(InboundListener("in", PORT, filters=(asks,)), now=lambda: 0.0).steps
    assert isinstance(question, Question)
    try:
        return authorizers.ask(Check(question, inspect("/", ("authorization", "let me in"))), NO_BODY)
    finally:
        authorizers.close()


def test_both_ends_of_a_grpc_channel_prove_who_they_are() -> None:
    domain = Domain()
    with grpc_authorizer(domain.server("authz")) as (authorizer, port):
        tls = domain.identity("shop")
        assert asked_over_tls(port, domain.id("authz"), tls).allowed
        assert b"shop.default.cluster.local" in authorizer.peers[0] or domain.id("shop").encode() in authorizer.peers[0]
        for expected, mine in ((domain.id("other"), tls), (domain.id("authz"), None), ("spiffe://td2/ns/a/sa/b", tls)):
            answer = asked_over_tls(port, expected, mine)
            assert not answer.allowed
            assert answer.error
        assert len(authorizer.asked) == 1
        tls.close()


def test_an_impostor_of_another_authority_is_not_asked() -> None:
    domain, impostor = Domain(), Domain()
    with grpc_authorizer(impostor.server("authz")) as (authorizer, port):
        tls = domain.identity("shop")
        assert asked_over_tls(port, domain.id("authz"), tls).error
        assert authorizer.asked == []
        tls.close()
