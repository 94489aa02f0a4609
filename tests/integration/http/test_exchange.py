"""One exchange with a peer that misbehaves, in all three forms of the engine: what the caller is told, and what is left."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from queue import Queue

import pytest

from meshlib.errors import RequestError
from meshlib.model.outcome import Reset
from meshlib.runtime.http.settings import Timeouts
from meshlib.wire.errors import (
    BodyTruncated,
    CannotConnect,
    ConnectTimedOut,
    ProtocolViolation,
    RequestFailed,
    Terminated,
    TimedOut,
    WireError,
)
from tests.integration.http.clients import CLIENTS, Client, ClientFactory, Request
from tests.support.servers import ScriptedPeer, free_port, read_head, reset, until_closed

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
PATIENT = Timeouts(30, 30, 30, pool=30)

Connect = Callable[..., Client]


@pytest.fixture(params=list(CLIENTS))
def connect(request: pytest.FixtureRequest) -> ClientFactory:
    return CLIENTS[request.param]


def answering(*answers: bytes) -> Callable[[socket.socket, int], None]:
    """Each connection answers its requests with `answers` in turn, then closes."""

    def script(connected: socket.socket, _number: int) -> None:
        for answer in answers:
            if not read_head(connected):
                return
            connected.sendall(answer)

    return script


def fails(client: Client, request: Request) -> WireError:
    with pytest.raises(WireError) as caught:
        client.request(request)
    assert client.limits.connections == 0
    assert client.limits.pending == 0
    return caught.value


# --- connecting


def test_refused(connect: ClientFactory) -> None:
    with connect(free_port()) as client:
        error = fails(client, Request(timeouts=PATIENT))
    assert isinstance(error, CannotConnect)
    assert (error.reset, error.sent, error.responded) == (Reset.CONNECT_FAILURE, False, False)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port whose accept queue is full: the kernel drops further SYNs, as a blackhole would (F14)."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        time.sleep(0.05)
        yield listener.getsockname()[1]
        for filler in fillers:
            filler.close()


@pytest.mark.parametrize("whose", ["caller", "cluster"])
def test_a_blackhole_ends_with_the_shorter_connect_timeout(connect: ClientFactory, silent_port: int, whose: str) -> None:
    own, cluster = (0.1, 30.0) if whose == "caller" else (30.0, 0.1)
    with connect(silent_port, connect_timeout=cluster) as client:
        error = fails(client, Request(timeouts=Timeouts(connect=own)))
    assert isinstance(error, ConnectTimedOut)
    assert (error.reset, error.which, error.sent) == (Reset.CONNECT_TIMEOUT, "connect", False)


def test_a_deadline_during_the_connect_is_named(connect: ClientFactory, silent_port: int) -> None:
    with connect(silent_port) as client:
        error = fails(client, Request(deadline=time.monotonic() + 0.1, deadline_name="per_try"))
    assert isinstance(error, TimedOut)
    assert (error.reset, error.which, error.sent) == (Reset.PER_TRY_TIMEOUT, "per_try", False)


# --- the connection ends


@pytest.mark.parametrize(
    ("answer", "kind", "responded"),
    [
        (b"", Terminated, False),
        (b"HTTP/1.1 2", Terminated, True),
        (b"HTTP/1.1 100 Continue\r\n\r\n", Terminated, True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", BodyTruncated, True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", BodyTruncated, True),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", ProtocolViolation, True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", ProtocolViolation, True),
        (b"220 smtp.test ESMTP\r\n", ProtocolViolation, True),
    ],
)
def test_an_early_or_wrong_end(connect: ClientFactory, answer: bytes, kind: type[WireError], responded: bool) -> None:
    """F15: always an error, with the truth about what was sent and what came back."""
    with ScriptedPeer(answering(answer)) as peer, connect(peer.port) as client:
        error = fails(client, Request(timeouts=PATIENT))
    assert type(error) is kind
    assert (error.sent, error.responded, error.reused) == (True, responded, False)


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\n\r\nuntil the end"])
def test_a_reset(connect: ClientFactory, before: bytes) -> None:
    """RST is never an orderly end, not even of a body that ends with the connection."""

    def script(connected: socket.socket, _number: int) -> None:
        read_head(connected)
        connected.sendall(before)
        time.sleep(0.1)
        reset(connected)

    with ScriptedPeer(script) as peer, connect(peer.port) as client:
        error = fails(client, Request(timeouts=PATIENT))
    assert type(error) is Terminated
    assert error.responded is bool(before)


def test_a_body_that_ends_with_the_connection(connect: ClientFactory) -> None:
    with ScriptedPeer(answering(b"HTTP/1.0 200 OK\r\n\r\nall of it")) as peer, connect(peer.port) as client:
        answer = client.request(Request(timeouts=PATIENT))
        assert (answer.body, answer.closes, client.limits.connections) == (b"all of it", [1], 0)


def test_trailers_are_kept_apart(connect: ClientFactory) -> None:
    """H26: fields after the body never turn up among the headers."""
    raw = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-role: admin\r\n\r\n"
    with ScriptedPeer(answering(raw)) as peer, connect(peer.port) as client:
        answer = client.request(Request(timeouts=PATIENT))
    assert answer.trailers == ((b"x-role", b"admin"),)
    assert b"x-role" not in answer.headers


# --- whole responses


IN_PIECES: list[tuple[list[bytes], bytes]] = [
    ([b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", b"ok"], b"ok"),
    ([b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", b"o", b"k"], b"ok"),
    ([b"HTTP/1.1 200 OK\r\ncontent-le", b"ngth: 2\r\n\r\no", b"k"], b"ok"),
    ([b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"], b""),
    ([b"HTTP/1.1 204 None\r\n\r\n"], b""),
    ([b"HTTP/1.1 103 Early\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", b"ok"], b"ok"),
    ([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"2", b"\r\nok\r\n0\r\n", b"x: y\r\n\r\n"], b"ok"),
    ([b"HTTP/1.1 200 OK\r\n\r\n", b"o", b"k", b""], b"ok"),
    ([b"HTTP/1.1 200 OK\r\n\r\n", b""], b""),
]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("pieces", [case[0] for case in IN_PIECES])
def test_pieces_make_the_same_response_twice(connect: ClientFactory, pieces: list[bytes], whole: bool) -> None:
    """However it is cut in time, asked for whole or not, on a new connection and on a used one."""
    body = dict(zip(map(tuple, (case[0] for case in IN_PIECES)), (case[1] for case in IN_PIECES), strict=True))[tuple(pieces)]

    def script(connected: socket.socket, _number: int) -> None:
        while read_head(connected):
            for piece in pieces:
                if not piece:
                    return
                connected.sendall(piece)
                time.sleep(0.01)

    with ScriptedPeer(script) as peer, connect(peer.port) as client:
        for _ in range(3):
            answer = client.request(Request(timeouts=PATIENT, whole=whole))
            assert (answer.body, answer.closes) == (body, [1])


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", BodyTruncated),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", BodyTruncated),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfive", ProtocolViolation),
    ],
)
def test_a_whole_response_that_is_not(connect: ClientFactory, answer: bytes, kind: type[WireError]) -> None:
    with ScriptedPeer(answering(answer)) as peer, connect(peer.port) as client:
        error = fails(client, Request(timeouts=PATIENT, whole=True))
    assert (type(error), error.responded) == (kind, True)


@pytest.mark.parametrize("sent", [b"", b"half"])
def test_silence_in_a_whole_response_ends_with_the_read_timeout(connect: ClientFactory, sent: bytes) -> None:
    def script(connected: socket.socket, _number: int) -> None:
        read_head(connected)
        connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
        time.sleep(0.02)
        connected.sendall(sent)
        until_closed(connected)

    with ScriptedPeer(script) as peer, connect(peer.port) as client:
        error = fails(client, Request(timeouts=Timeouts(30, 0.2, 30), whole=True))
    assert (type(error), error.which, error.responded) == (TimedOut, "read", True)


# --- reuse


def test_a_connection_that_was_closed_while_idle_is_not_used(connect: ClientFactory) -> None:
    closed = threading.Event()

    def script(connected: socket.socket, number: int) -> None:
        read_head(connected)
        connected.sendall(OK)
        if number == 0:
            connected.close()
            closed.set()
        else:
            until_closed(connected)

    with ScriptedPeer(script) as peer, connect(peer.port) as client:
        assert client.request(Request(timeouts=PATIENT)).body == b"ok"
        assert closed.wait(30)
        client.pool_state()
        assert client.request(Request("POST", body=b"once", timeouts=PATIENT)).body == b"ok"
        assert peer.accepted == 2


@pytest.mark.parametrize("unasked", [b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n", b"\r\n", OK])
def test_unasked_bytes_cost_the_connection(connect: ClientFactory, unasked: bytes) -> None:
    """A response that came without a request must not answer the next one."""
    sent = threading.Event()

    def script(connected: socket.socket, number: int) -> None:
        read_head(connected)
        connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d" % number)
        if number == 0:
            time.sleep(0.05)
            connected.sendall(unasked)
            sent.set()
        until_closed(connected)

    with ScriptedPeer(script) as peer, connect(peer.port) as client:
        assert client.request(Request(timeouts=PATIENT)).body == b"0"
        assert sent.wait(30)
        client.pool_state()
        assert client.request(Request(timeouts=PATIENT)).body == b"1"


def test_a_lost_race_on_a_reused_connection_is_told_and_not_repeated(connect: ClientFactory) -> None:
    """The peer closes in the moment of the second request: one attempt on the wire, and the error says all of it."""
    heads: list[bytes] = []

    def script(connected: socket.socket, _number: int) -> None:
        heads.append(read_head(connected))
        connected.sendall(OK)
        heads.append(read_head(connected))

    with ScriptedPeer(script) as peer, connect(peer.port) as client:
        client.request(Request(timeouts=PATIENT))
        error = fails(client, Request("POST", body=b"once", timeouts=PATIENT))
        assert (type(error), error.sent, error.responded, error.reused) == (Terminated, True, False, True)
        assert (peer.accepted, len(heads)) == (1, 2)


@pytest.mark.parametrize("where", ["request", "response"])
def test_connection_close(connect: ClientFactory, where: str) -> None:
    answer = OK if where == "request" else OK.replace(b"\r\n\r\n", b"\r\nConnection: Close\r\n\r\n")
    headers = ((b"connection", b"close"),) if where == "request" else ()
    with ScriptedPeer(answering(answer, answer)) as peer, connect(peer.port) as client:
        for _ in range(2):
            assert client.request(Request(headers=headers, timeouts=PATIENT)).body == b"ok"
        assert (peer.accepted, client.limits.connections) == (2, 0)


# --- timeouts


def test_silence_ends_with_the_read_timeout(connect: ClientFactory) -> None:
    with ScriptedPeer(lambda connected, _: until_closed(connected)) as peer, connect(peer.port) as client:
        error = fails(client, Request(timeouts=Timeouts(30, 0.1, 30)))
    assert isinstance(error, TimedOut)
    assert (error.reset, error.which, error.sent, error.responded) == (Reset.TIMEOUT, "read", True, False)


def drip(connected: socket.socket, _number: int) -> None:
    """F16: one byte every 20 ms, without end."""
    read_head(connected)
    connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    for _ in range(2000):
        connected.sendall(b"x")
        time.sleep(0.02)


@pytest.mark.parametrize("name", ["total", "route"])
def test_a_slow_peer_ends_with_the_deadline(connect: ClientFactory, name: str) -> None:
    """The read timeout starts anew with each byte; the deadline does not."""
    with ScriptedPeer(drip) as peer, connect(peer.port) as client:
        if name == "total":
            request = Request(timeouts=Timeouts(30, 30, 30, total=0.3), deadline=time.monotonic() + 30, deadline_name="route")
        else:
            request = Request(timeouts=PATIENT, deadline=time.monotonic() + 0.3, deadline_name="route")
        error = fails(client, request)
    assert isinstance(error, TimedOut)
    assert (error.which, error.responded) == (name, True)


@pytest.mark.parametrize("whole", [False, True])
def test_the_timeout_of_one_try_ends_with_the_head(connect: ClientFactory, *, whole: bool) -> None:
    """But whoever waits for the whole response gets no head, and so no chance to say what the body has."""

    def script(connected: socket.socket, _number: int) -> None:
        read_head(connected)
        connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
        time.sleep(0.6)
        connected.sendall(b"ok")

    request = Request(timeouts=PATIENT, deadline=time.monotonic() + 0.3, deadline_name="per_try", whole=whole)
    with ScriptedPeer(script) as peer, connect(peer.port) as client:
        if whole:
            assert isinstance(fails(client, request), TimedOut)
        else:
            assert client.request(request).body == b"ok"


def test_progress_keeps_the_read_timeout_from_passing(connect: ClientFactory) -> None:
    """The positive control: slower than the timeout as a whole, but never silent for so long."""

    def script(connected: socket.socket, _number: int) -> None:
        read_head(connected)
        connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
        for _ in range(10):
            time.sleep(0.1)
            connected.sendall(b"x")

    with ScriptedPeer(script) as peer, connect(peer.port) as client:
        assert client.request(Request(timeouts=Timeouts(30, 0.9, 30))).body == b"x" * 10


def test_a_deadline_that_has_passed_sends_nothing(connect: ClientFactory) -> None:
    with ScriptedPeer(answering(OK)) as peer, connect(peer.port) as client:
        error = fails(client, Request(deadline=time.monotonic() - 1, deadline_name="deadline"))
        assert (type(error), error.which, error.sent, peer.accepted) == (TimedOut, "deadline", False, 0)


def test_a_peer_that_reads_nothing_ends_with_the_write_timeout(connect: ClientFactory) -> None:
    done = threading.Event()
    with ScriptedPeer(lambda *_: done.wait(30)) as peer, connect(peer.port) as client:
        error = fails(client, Request("POST", body=b"x" * 50_000_000, timeouts=Timeouts(30, 30, 0.2)))
        done.set()
    assert isinstance(error, TimedOut)
    assert (error.which, error.sent) == ("write", True)


# --- request bodies


def test_the_bodys_own_failure_is_the_cause(connect: ClientFactory) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"one"
        raise ZeroDivisionError

    with ScriptedPeer(lambda connected, _: until_closed(connected)) as peer, connect(peer.port) as client:
        error = fails(client, Request("POST", body=pieces(), timeouts=PATIENT))
    assert (type(error), error.reset) == (RequestFailed, Reset.LOCAL)
    assert isinstance(error.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("size", [3, 5])
def test_the_announced_length_is_kept(connect: ClientFactory, size: int) -> None:
    """Neither more nor less may follow: more would be read as the next request."""
    received: Queue[int] = Queue()
    with ScriptedPeer(lambda connected, _: received.put(until_closed(connected))) as peer, connect(peer.port) as client:
        request = Request("POST", body=[b"x"] * size, headers=((b"content-length", b"4"),), timeouts=PATIENT)
        error = fails(client, request)
        assert received.get(timeout=30) <= len(request.head()) + 4
    assert type(error) is RequestFailed


def test_what_cannot_be_written_opens_no_connection(connect: ClientFactory) -> None:
    with ScriptedPeer(answering(OK)) as peer, connect(peer.port) as client:
        with pytest.raises(RequestError):
            client.request(Request(headers=((b"x", b"a\r\nb: c"),)))
        assert peer.accepted == 0


def test_an_early_answer_stops_the_upload(connect: ClientFactory) -> None:
    """The peer answers after the first bytes of the body: we stop, hand the answer over, and close."""
    pulled = 0

    def endless() -> Iterator[bytes]:
        nonlocal pulled
        while True:
            pulled += 1
            yield b"x" * 65536

    def script(connected: socket.socket, _number: int) -> None:
        if read_head(connected).endswith(b"\r\n\r\n"):
            connected.recv(1)
        connected.sendall(b"HTTP/1.1 413 No\r\ncontent-length: 9\r\n\r\ntoo large")
        until_closed(connected)

    with ScriptedPeer(script) as peer, connect(peer.port) as client:
        answer = client.request(Request("POST", body=endless(), timeouts=PATIENT))
        assert (answer.status, answer.body, client.limits.connections) == (413, b"too large", 0)
    assert pulled > 0


EXPECT = ((b"expect", b"100-continue"),)


def test_a_body_waits_for_100(connect: ClientFactory) -> None:
    order: list[bytes] = []

    def script(connected: socket.socket, _number: int) -> None:
        assert read_head(connected).endswith(b"\r\n\r\n")
        connected.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connected.recv(1)
        connected.settimeout(30)
        connected.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        order.append(connected.recv(4))
        connected.sendall(OK)

    with ScriptedPeer(script) as peer, connect(peer.port) as client:
        assert client.request(Request("POST", body=b"body", headers=EXPECT, timeouts=PATIENT)).body == b"ok"
    assert order == [b"body"]


def test_a_final_answer_instead_of_100_spares_the_body(connect: ClientFactory) -> None:
    counts: list[int] = []

    def script(connected: socket.socket, _number: int) -> None:
        read_head(connected)
        connected.sendall(b"HTTP/1.1 417 No\r\ncontent-length: 0\r\n\r\n")
        counts.append(until_closed(connected))

    with ScriptedPeer(script) as peer, connect(peer.port) as client:
        answer = client.request(Request("POST", body=b"body", headers=EXPECT, timeouts=PATIENT))
        assert (answer.status, client.limits.connections) == (417, 0)
    assert counts == [0]


def test_silence_instead_of_100_lets_the_body_go(connect: ClientFactory) -> None:
    def script(connected: socket.socket, _number: int) -> None:
        read_head(connected)
        assert connected.recv(4) == b"body"
        connected.sendall(OK)

    with ScriptedPeer(script) as peer, connect(peer.port) as client:
        assert client.request(Request("POST", body=b"body", headers=EXPECT, timeouts=PATIENT)).body == b"ok"
