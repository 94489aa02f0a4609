"""uvicorn with MeshProtocol: what a door in front of its protocols could break, and how long it lets strangers stand in it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage
from websockets.sync.client import ClientConnection, connect

from tests.support.certificates import Minted, TrustDomain
from tests.support.mtlsclient import Client, Rejected, context
from tests.support.mtlsservers import APP, KINDS, Kind, Relay, Served, relay, running
from tests.support.servers import READY

BIG = 30 << 20
UVICORNS = [name for name in KINDS if name.startswith("uvicorn-") and name != "uvicorn-workers"]


@pytest.fixture(scope="module")
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    with relay(request, lambda: tmp_path_factory.mktemp("served")) as found:
        yield found


@pytest.fixture(scope="module", params=UVICORNS)
def served(request: pytest.FixtureRequest, servers: Relay) -> Iterator[Served]:
    with servers.running(request.param) as found:
        yield found


def tls(served: Served, name: str = "alice") -> ssl.SSLContext:
    domain = served.world.domain
    return context(domain.leaf(name), [domain.root])


def limited(tmp_path: Path, kind: str, **limits: float) -> contextlib.AbstractContextManager[Served]:
    return running(KINDS[kind], tmp_path, MTLS_LIMITS=json.dumps(limits))


# --- bodies


def test_big_bodies_pass_both_ways(served: Served) -> None:
    body = hashlib.shake_128(b"meshlib").digest(1 << 20) * (BIG >> 20)
    with Client(served.port, tls(served)) as client:
        assert client.who(body=body)["length"] == BIG
        assert client.ask(f"/plain?size={BIG}").content == b"x" * BIG
        assert client.who()["peer"] == served.world.domain.id("alice")


def test_a_slow_reader_gets_everything_and_delays_nobody(served: Served) -> None:
    with Client(served.port, tls(served)) as slow, Client(served.port, tls(served)) as gone:
        for client in (slow, gone):
            client.connected.sendall(f"GET /plain?size={BIG} HTTP/1.1\r\nhost: tests\r\n\r\n".encode())
            assert client.connected.recv(4096).startswith(b"HTTP/1.1 200")
        with Client(served.port, tls(served)) as other:
            assert other.ask().status == 200
        gone.connected.close()
        received, head = 0, True
        while received < BIG - 65536:
            data = slow.connected.recv(65536)
            assert data, "cut short"
            received += len(data)
            if head:
                time.sleep(0.2)  # the reader, not the test, is what is slow here
                head = False
    with Client(served.port, tls(served)) as other:
        assert other.ask().status == 200


def test_requests_that_come_at_once_are_answered_in_turn(served: Served) -> None:
    """Two in the same TLS record as the first bytes that uvicorn's parser ever sees."""
    with Client(served.port, tls(served)) as client:
        client.connected.sendall(b"GET /who HTTP/1.1\r\nhost: tests\r\n\r\n" * 2)
        received = b""
        while received.count(b'"peer"') < 2:
            received += client.connected.recv(65536)
    assert received.count(served.world.domain.id("alice").encode()) == 2


# --- websockets


def websocket(served: Served, leaf: Minted | None) -> ClientConnection:
    if leaf is None:
        return connect(f"ws://127.0.0.1:{served.port}/")
    return connect(f"wss://127.0.0.1:{served.port}/", ssl=context(leaf, [served.world.domain.root]), server_hostname="tests")


def test_websockets_know_their_peer(served: Served) -> None:
    domain = served.world.domain
    with websocket(served, domain.leaf("alice")) as alice, websocket(served, domain.leaf("bob")) as bob:
        for _ in range(2):
            alice.send("a")
            bob.send("b")
            assert alice.recv() == f"a {domain.id('alice')} ws"
            assert bob.recv() == f"b {domain.id('bob')} ws"


def test_a_plain_websocket_has_no_peer(served: Served) -> None:
    served.world.set(mode="PERMISSIVE")
    try:
        with websocket(served, None) as plain:
            plain.send("a")
            assert plain.recv() == "a None ws"
    finally:
        served.world.set(mode="STRICT")
    with pytest.raises(InvalidMessage), websocket(served, None):
        pass


# --- the end


STOPPING = ["uvicorn-asyncio-httptools", "uvicorn-uvloop-h11", "uvicorn-workers", "hypercorn", "gunicorn-uvicorn"]


@pytest.mark.parametrize("name", STOPPING)
def test_a_request_in_flight_is_answered_before_the_server_stops(tmp_path: Path, name: str) -> None:
    """Connections that never said a word do not hold the server up."""
    with limited(tmp_path, name, handshake=10 * READY) as served, contextlib.ExitStack() as silent:
        for _ in range(3):
            silent.enter_context(socket.create_connection(("127.0.0.1", served.port)))
        with Client(served.port, tls(served)) as client:
            client.connected.sendall(b"GET /slow?seconds=1 HTTP/1.1\r\nhost: tests\r\n\r\n")
            with Client(served.port, tls(served)) as other:
                other.ask()  # by now the slow request is being served
            served.terminate()
            answer = b""
            while data := client.connected.recv(65536):
                answer += data
        assert answer.startswith(b"HTTP/1.1 200"), served.log.read_text()
        assert served.world.domain.id("alice").encode() in answer
        assert served.process.wait(READY) is not None  # the silent ones could stay for much longer


# --- strangers in the door


def closed_by_peer(connected: socket.socket) -> bool:
    """Waits for it."""
    connected.settimeout(READY)
    try:
        return connected.recv(1) == b""
    except ConnectionResetError:
        return True


NOT_YET = [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"]
"""Nothing, the first byte of a handshake, and the beginning of a ClientHello."""


@pytest.mark.parametrize("kind", ["uvicorn-asyncio-httptools", "uvicorn-uvloop-httptools"])
def test_handshakes_that_do_not_end_are_ended(tmp_path: Path, kind: str) -> None:
    with limited(tmp_path, kind, handshake=1.0) as served, contextlib.ExitStack() as strangers:
        standing = [strangers.enter_context(socket.create_connection(("127.0.0.1", served.port))) for _ in NOT_YET]
        for connected, said in zip(standing, NOT_YET, strict=True):
            connected.sendall(said)
        with Client(served.port, tls(served)) as client:
            assert client.ask().status == 200
            assert all(closed_by_peer(connected) for connected in standing)
            assert client.ask().status == 200  # what was admitted is not subject to it


@pytest.mark.parametrize("kind", ["uvicorn-asyncio-httptools", "uvicorn-uvloop-httptools"])
def test_many_half_open_connections_displace_each_other_and_nobody_else(tmp_path: Path, kind: str) -> None:
    with limited(tmp_path, kind, half_open=3) as served, contextlib.ExitStack() as strangers:
        standing = [strangers.enter_context(socket.create_connection(("127.0.0.1", served.port))) for _ in range(6)]
        for connected in standing[:3]:
            assert closed_by_peer(connected)
        with Client(served.port, tls(served)) as client:
            assert client.ask().status == 200
        standing[-1].setblocking(False)
        with pytest.raises(BlockingIOError):
            standing[-1].recv(1)


def test_bytes_that_are_neither_are_uvicorns_business(served: Served) -> None:
    served.world.set(mode="PERMISSIVE")
    try:
        with socket.create_connection(("127.0.0.1", served.port)) as stranger:
            stranger.settimeout(READY)
            stranger.sendall(b"\x80\x01\x02\r\n\r\n")
            assert stranger.recv(4096).startswith(b"HTTP/1.1 400")
    finally:
        served.world.set(mode="STRICT")


# --- age


@pytest.mark.parametrize("kind", ["uvicorn-asyncio-httptools", "uvicorn-uvloop-h11", "gunicorn-gthread"])
def test_a_connection_that_is_old_is_ended_with_its_next_answer(tmp_path: Path, kind: str) -> None:
    with limited(tmp_path, kind, age=1.0) as served, Client(served.port, tls(served)) as client:
        deadline = time.monotonic() + READY
        while client.ask().headers.get("connection") != "close":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(Rejected):
            client.ask()


@pytest.mark.parametrize("kind", ["uvicorn-asyncio-httptools", "uvicorn-uvloop-h11"])
def test_no_connection_outlives_the_certificate_of_its_peer(tmp_path: Path, kind: str) -> None:
    with running(KINDS[kind], tmp_path) as served:
        domain = served.world.domain
        brief = domain.leaf("alice", ends=timedelta(seconds=6))
        with (
            Client(served.port, context(brief, [domain.root])) as client,
            websocket(served, brief) as short,
            websocket(served, domain.leaf("bob")) as long,
        ):
            deadline = time.monotonic() + READY
            while client.ask().headers.get("connection") != "close":
                assert time.monotonic() < deadline
                time.sleep(0.05)
            with pytest.raises(ConnectionClosed) as ended:
                short.recv(timeout=READY)
            assert ended.value.rcvd is not None
            assert ended.value.rcvd.code == 1012
            long.send("still")
            assert long.recv() == f"still {domain.id('bob')} ws"


# --- who


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_i10_a_certificate_that_a_server_only_asks_for_makes_nobody_a_principal(tmp_path: Path, loop: str) -> None:
    """uvicorn's own TLS with CERT_OPTIONAL: OpenSSL has verified the chain, and nobody has looked at the rules of SPIFFE."""
    options = ("--loop", loop, "--port", "PORT", "--log-level", "warning", "--ssl-cert-reqs", "1")
    domain = TrustDomain("td1")
    chain, key = domain.leaf("server").write(tmp_path, "leaf")
    root = tmp_path / "root.pem"
    root.write_bytes(domain.root.pem)
    files = ("--ssl-certfile", str(chain), "--ssl-keyfile", str(key), "--ssl-ca-certs", str(root))
    with running(Kind(("-m", "uvicorn", f"{APP}:asgi", *options, *files)), tmp_path) as served:
        tls_client = context(domain.leaf("alice"), [domain.root])
        with Client(served.port, tls_client) as client:
            assert client.ask().status == 403
        served.world.set(mode="PERMISSIVE")
        with Client(served.port, tls_client) as client:
            seen = client.who()
        assert (seen["peer"], seen["scheme"]) == (None, "https")


def test_i07_without_an_identity_yet_nothing_comes_in(tmp_path: Path) -> None:
    kind = KINDS["uvicorn-asyncio-httptools"]
    with running(kind, tmp_path, MTLS_ANONYMOUS="1") as served:
        with pytest.raises(Rejected), Client(served.port, tls(served)) as client:
            client.ask()
        with pytest.raises(Rejected), Client(served.port, None) as client:
            client.ask()
        served.world.set(leaf=served.world.domain.leaf("server"))
        with Client(served.port, tls(served)) as client:
            assert client.ask().status == 200
