"""Fetching key sets over real sockets and TLS, by the control service and by a workload."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from meshlib.policy.jwt import compile_jwt
from meshlib.runtime.jwks import MAX_BYTES, NotFetched, fetch_document
from meshlib.xds.fields import unpack
from meshlib.xds.invalid import Problems
from meshlib.xds.jwt import decode_jwt
from meshlib.xds.proto import jwt_pb2
from meshlib_control.catalog.model import CatalogSnapshot
from meshlib_control.compile import World
from meshlib_control.compile.authentication import jwt_filters
from meshlib_control.compile.node import Node
from meshlib_control.compile.scope import scope_of
from meshlib_control.guarded_fetch import AllowedTargets, FetchFailed, GuardedFetch
from meshlib_control.jwks import JwksFetcher
from tests.support.certificates import Authority
from tests.support.configuring import config_set
from tests.support.polling import eventually
from tests.support.tokens import bearer, ec_key, inspected, key_set, rsa_key

HOST = "keys.test"
KEYS = key_set(ec_key()).encode()


class Issuer(ThreadingHTTPServer):
    """Serves a key set at /keys, and at other paths what a bad issuer would."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.keys = KEYS
        self.seen: list[tuple[str, str]] = []  # path, Host
        self.scheme = "http"
        self.released = threading.Event()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def url(self, path: str = "/keys", host: str = HOST) -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"


class _Answers(BaseHTTPRequestHandler):
    server: Issuer

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("host", "")))
        status, headers, body = self._answer(self.path.partition("?")[0])
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for chunk in body:
                self.wfile.write(chunk)
                self.wfile.flush()
        except OSError:
            pass  # the client has had enough

    def _answer(self, path: str) -> tuple[int, dict[str, str], Iterator[bytes] | Sequence[bytes]]:
        match path:
            case "/keys":
                return 200, {"content-length": str(len(self.server.keys))}, [self.server.keys]
            case "/redirect":
                return 302, {"location": self.server.url("/keys")}, []
            case "/gzip":
                return 200, {"content-encoding": "gzip"}, [gzip.compress(bytes(200 * 1024 * 1024 // 200))]
            case "/huge":
                return 200, {}, (b" " * 65536 for _ in range(64))
            case "/slow":
                return 200, {}, self._dripping()
            case "/secret":
                return 500, {}, [b"the database password is hunter2"]
            case _:
                return 404, {}, []

    def _dripping(self) -> Iterator[bytes]:
        while not self.server.released.wait(0.02):
            yield b" "

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def tls(issuer: Issuer, tmp_path: Path) -> ssl.SSLContext:
    """The issuer speaks TLS with a certificate for `HOST`; a client's context that trusts it."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue(HOST)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    issuer.socket = context.wrap_socket(issuer.socket, server_side=True)
    issuer.scheme = "https"
    return ssl.create_default_context(cafile=str(authority.file))


async def at_home(host: str, port: int) -> Sequence[str]:
    """A name server that sends everybody to this machine."""
    return ["127.0.0.1"]


def guarded(context: ssl.SSLContext | None = None, *allowed: str) -> GuardedFetch:
    return GuardedFetch(AllowedTargets(allowed or (HOST,)), context=context, resolve=at_home)


async def test_the_control_service_fetches_over_tls(issuer: Issuer, tls: ssl.SSLContext) -> None:
    """Connected to the address that was checked, for the name that was asked for: Host, SNI and certificate."""
    assert await guarded(tls)(issuer.url("/keys?a=b")) == KEYS
    assert issuer.seen == [("/keys?a=b", f"{HOST}:{issuer.port}")]


async def test_a_certificate_of_another_name_is_refused(issuer: Issuer, tls: ssl.SSLContext) -> None:
    with pytest.raises(FetchFailed, match="certificate verify failed"):
        await guarded(tls, "other.test")(issuer.url(host="other.test"))
    with pytest.raises(FetchFailed, match="certificate verify failed"):
        await guarded()(issuer.url())
    assert issuer.seen == []


async def test_J13_without_permission_nothing_on_this_machine_is_reached(issuer: Issuer, tls: ssl.SSLContext) -> None:
    for allowed in ("else.test", "10.0.0.0/8"):
        with pytest.raises(FetchFailed, match="may not be sent there"):
            await guarded(tls, allowed)(issuer.url())
    assert issuer.seen == []
    assert await guarded(tls, "127.0.0.0/8")(issuer.url()) == KEYS


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/redirect", "status 302; redirections are not followed"),
        ("/gzip", "compressed"),
        ("/huge", "larger than"),
        ("/secret", "status 500"),
        ("/nothing", "status 404"),
        ("/slow", "no complete answer within 0.3 s"),
    ],
)
async def test_J13_L04_answers_that_are_refused(issuer: Issuer, path: str, told: str) -> None:
    """By either side; and what they hold is never told."""
    with pytest.raises(FetchFailed, match=told) as caught:
        await guarded()(issuer.url(path), 0.3 if path == "/slow" else 30.0)
    assert "hunter2" not in str(caught.value)
    assert [seen for seen, _ in issuer.seen] == [path]
    with pytest.raises(NotFetched, match=told.partition(";")[0]) as again:
        await asyncio.to_thread(fetch_document, issuer.url(path, "127.0.0.1"), 0.3 if path == "/slow" else 30.0)
    assert "hunter2" not in str(again.value)
    assert [seen for seen, _ in issuer.seen] == [path] * 2
    assert await guarded()(issuer.url()) == KEYS


async def test_an_address_that_does_not_answer_is_passed_over(issuer: Issuer) -> None:
    async def two(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.2", "127.0.0.1"]  # the issuer listens on the second only

    assert await GuardedFetch(AllowedTargets([HOST]), resolve=two)(issuer.url()) == KEYS


async def test_nobody_there(unused_tcp_port: int) -> None:
    with pytest.raises(FetchFailed):
        await guarded()(f"http://{HOST}:{unused_tcp_port}/")
    with pytest.raises(NotFetched):
        await asyncio.to_thread(fetch_document, f"http://127.0.0.1:{unused_tcp_port}/", 5.0)


def test_a_workload_fetches_over_tls(
    issuer: Issuer, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the system's roots, which the usual variable replaces; the certificate must be for the name."""
    with pytest.raises(NotFetched, match="certificate verify failed"):
        fetch_document(issuer.url(host="127.0.0.1"), 30.0)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    with pytest.raises(NotFetched, match=r"IP address mismatch|certificate is not valid"):
        fetch_document(issuer.url(host="127.0.0.1"), 30.0)
    monkeypatch.setattr("socket.getaddrinfo", _everything_is_here(issuer.port))
    assert fetch_document(issuer.url(), 30.0) == KEYS
    assert MAX_BYTES == 1024 * 1024


def _everything_is_here(port: int) -> Callable[..., list[tuple[object, ...]]]:
    import socket

    return lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


@asynccontextmanager
async def running(fetcher: JwksFetcher) -> AsyncIterator[None]:
    task = asyncio.create_task(fetcher.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_from_yaml_and_a_live_issuer_to_a_verified_request(issuer: Issuer, tls: ssl.SSLContext) -> None:
    """Configuration → which sets are wanted → fetched → handed out → decoded → verified; and after a rotation again."""
    config = config_set(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: p}\n"
        f"spec: {{jwtRules: [{{issuer: iss, jwksUri: '{issuer.url()}'}}]}}\n"
    )
    pauses: list[asyncio.Event] = []

    async def pause(seconds: float) -> None:
        event = asyncio.Event()
        pauses.append(event)
        await event.wait()

    fetcher = JwksFetcher(guarded(tls), pause=pause)
    world = World.of(config, CatalogSnapshot())

    def answer(token: str) -> str:
        current = World.of(config, CatalogSnapshot(), jwks=fetcher.documents, previous=world)
        (item,) = jwt_filters(current, scope_of(current, Node()))
        problems = Problems()
        message = unpack(item.typed_config, jwt_pb2.JwtAuthentication, field="", problems=problems)
        assert message is not None
        step = compile_jwt(decode_jwt(message, item.name, problems, field=""), now=time.time)
        assert not problems.found
        refusal = step(inspected(bearer(token)))
        return refusal.body.decode() if refusal else ""

    old, new = ec_key().token({"iss": "iss"}), rsa_key().token({"iss": "iss"})
    fetcher.wanted(world.request_authentications.key_uris)
    assert answer(old) == "Jwks doesn't have any valid public key"
    async with running(fetcher):
        assert await fetcher.tried(60.0)
        assert (answer(old), answer(new)) == ("", "Jwks doesn't have key to match kid or alg from Jwt")
        issuer.keys = key_set(rsa_key()).encode()
        await eventually(lambda: pauses)
        pauses[-1].set()
        await eventually(lambda: answer(new) == "")
        assert answer(old) == "Jwks doesn't have key to match kid or alg from Jwt"
