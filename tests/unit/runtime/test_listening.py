"""Who may come in by which way, what is known of a connection, and how long it lasts."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from meshlib.flow.inbound import InboundPlan
from meshlib.lowlevel import Connection, NotAdmitted, Peer, SpiffeId, admit, certified_for, connection_of
from meshlib.model.listener import MtlsMode
from meshlib.runtime.listening import MAX_AGE, Listening
from meshlib.runtime.serving import Inbound
from tests.support.certificates import TrustDomain
from tests.support.mtlsclient import context
from tests.support.tls import member

DOMAIN = TrustDomain("td1")
ALICE = SpiffeId.parse(DOMAIN.id("alice"))
CLIENT_HELLO = 0x16
GET = ord("G")


class FixedRng:
    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value

    def randrange(self, stop: int, /) -> int:
        return 0


def listening(mode: MtlsMode, rng: float = 0.5) -> Listening:
    inbound = Inbound()
    inbound.publish({}, InboundPlan(mtls=mode))
    made = Listening(inbound, FixedRng(rng))
    made.contexts = member(DOMAIN, "server")
    return made


@pytest.mark.parametrize(("mode", "first", "tls"), [
    (MtlsMode.STRICT, CLIENT_HELLO, True), (MtlsMode.STRICT, GET, None),
    (MtlsMode.PERMISSIVE, CLIENT_HELLO, True), (MtlsMode.PERMISSIVE, GET, False),
    (MtlsMode.DISABLE, CLIENT_HELLO, None), (MtlsMode.DISABLE, GET, False),
])  # fmt: skip
def test_the_mode_of_the_port_decides_by_the_first_byte(mode: MtlsMode, first: int, tls: bool | None) -> None:
    if tls is None:
        with pytest.raises(NotAdmitted, match=f"port 8080, whose mTLS mode is {mode.value}"):
            listening(mode).admits_tls(first, 8080)
    else:
        assert listening(mode).admits_tls(first, 8080) is tls


def test_a_mode_is_read_for_each_connection() -> None:
    inbound = Inbound()
    asked = Listening(inbound)
    assert asked.mode(8080) is MtlsMode.PERMISSIVE
    inbound.publish({8080: InboundPlan(mtls=MtlsMode.STRICT)})
    assert asked.mode(8080) is MtlsMode.STRICT


def test_without_an_identity_there_is_no_tls() -> None:
    nobody = Listening(Inbound())
    with pytest.raises(NotAdmitted, match="no identity"):
        nobody.side(8080)


def test_a_forked_child_has_neither_identity_nor_connections_of_its_parent() -> None:
    parent = listening(MtlsMode.STRICT)
    with socket.socket() as connected:
        parent.remember(connected, Connection())
        assert parent.admitted(connected) is not None
        parent.forget()
        assert parent.admitted(connected) is None
    assert parent.contexts is None


# --- what is known


@pytest.mark.parametrize(("remote", "local", "expected"), [
    (("10.0.0.1", 40000), ("10.0.0.2", 8080), ("10.0.0.1", "10.0.0.2", 8080)),
    (("::ffff:10.0.0.1", 40000, 0, 0), ("::ffff:10.0.0.2", 8080, 0, 0), ("10.0.0.1", "10.0.0.2", 8080)),
    (("2001:db8::1", 40000, 0, 0), ("2001:db8::2", 8080, 0, 0), ("2001:db8::1", "2001:db8::2", 8080)),
    ("", "/run/app.sock", ("", "", 0)),
    (None, None, ("", "", 0)),
])  # fmt: skip
def test_addresses_are_those_of_the_socket(remote: object, local: object, expected: tuple[str, str, int]) -> None:
    made = connection_of(remote, local, None, encrypted=False)
    assert (made.remote_address, made.local_address, made.local_port) == expected
    assert made.peer is None


@pytest.mark.parametrize(("rng", "age"), [(0.0, 0.9), (0.5, 1.0), (1.0, 1.1)])
def test_a_connection_lasts_an_hour_more_or_less(rng: float, age: float) -> None:
    connection = Connection(tls=True, peer=Peer(ALICE, time.time() + 100 * MAX_AGE))
    assert listening(MtlsMode.STRICT, rng).lifetime(connection) == pytest.approx(age * MAX_AGE)


def test_but_no_longer_than_its_peers_certificate() -> None:
    connection = Connection(tls=True, peer=Peer(ALICE, time.time() + 600))
    assert 500 < listening(MtlsMode.STRICT).lifetime(connection) <= 600
    assert certified_for(Connection()) == float("inf")
    assert listening(MtlsMode.STRICT).lifetime(Connection(tls=True, peer=Peer(ALICE, time.time() - 5))) == 0.0


# --- blocking sockets


@pytest.fixture
def dial() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    """Connected sockets of TCP: a client's and a server's."""
    opened: list[socket.socket] = []

    def connect() -> tuple[socket.socket, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = socket.create_connection(server.getsockname())
            opened.extend((client, server.accept()[0]))
        return opened[-2], opened[-1]

    yield connect
    for each in opened:
        each.close()


Dial = Callable[[], tuple[socket.socket, socket.socket]]


def client_of(connected: socket.socket, account: str | None, done: list[object]) -> threading.Thread:
    """A handshake and one message, in a thread; `done` gets what came back, or the error."""

    def run() -> None:
        leaf = DOMAIN.leaf(account) if account else None
        try:
            with context(leaf, [DOMAIN.root]).wrap_socket(connected, server_hostname="x") as tls:
                done.append(tls.recv(5))
        except OSError as error:
            done.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_socket_is_handed_on_after_its_handshake(dial: Dial) -> None:
    client, accepted = dial()
    asked, done = listening(MtlsMode.STRICT), list[object]()
    thread = client_of(client, "alice", done)
    port = accepted.getsockname()[1]
    with admit(asked, accepted) as tls:
        tls.sendall(b"hello")
        known = asked.admitted(tls)
    thread.join()
    assert done == [b"hello"]
    assert known is not None
    assert (str(known.connection.peer), known.connection.local_port) == (DOMAIN.id("alice"), port)
    assert known.until > time.monotonic()
    assert tls.gettimeout() is None


def test_a_plain_socket_stays_itself(dial: Dial) -> None:
    client, accepted = dial()
    client.sendall(b"GET")
    asked = listening(MtlsMode.PERMISSIVE)
    assert admit(asked, accepted) is accepted
    assert accepted.recv(3) == b"GET"  # the look at it took nothing away
    known = asked.admitted(accepted)
    assert known is not None
    assert (known.connection.peer, known.connection.tls, known.until) == (None, False, float("inf"))


def test_who_proves_nothing_is_sent_away(dial: Dial) -> None:
    client, accepted = dial()
    asked, done = listening(MtlsMode.STRICT), list[object]()
    thread = client_of(client, None, done)
    with pytest.raises(NotAdmitted, match="handshake failed"):
        admit(asked, accepted)
    thread.join()
    assert isinstance(done[0], OSError)
    assert asked.refused == 1


@pytest.mark.parametrize("said", [b"", b"\x16\x03"])
def test_who_says_nothing_more_is_not_waited_for(dial: Dial, said: bytes) -> None:
    client, accepted = dial()
    client.sendall(said)
    asked = listening(MtlsMode.STRICT)
    with pytest.raises(NotAdmitted):
        admit(asked, accepted, timeout=0.05)
    assert asked.refused == 1
    assert client.recv(1) == b""


def test_a_look_at_the_port_is_no_refusal(dial: Dial) -> None:
    client, accepted = dial()
    client.close()
    asked = listening(MtlsMode.STRICT)
    with pytest.raises(NotAdmitted):
        admit(asked, accepted)
    assert asked.refused == 0


def test_tls_of_somebody_else_is_not_looked_through(dial: Dial) -> None:
    _, accepted = dial()
    foreign = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    wrapped = foreign.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
    with pytest.raises(NotAdmitted, match="TLS of its own"):
        admit(listening(MtlsMode.PERMISSIVE), wrapped)
    assert listening(MtlsMode.PERMISSIVE).admitted(wrapped) is None
