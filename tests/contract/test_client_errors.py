"""A failed call is meshlib's error and the client's own at once, in every client integration."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from meshlib import Mesh, errors
from meshlib.model.cluster import CircuitBreakers
from meshlib.testing import service, static_mesh
from tests.support import servers
from tests.support.callers import Ask, Caller, Timeout
from tests.support.servers import ScriptedPeer

Make = Callable[[Mesh], Caller]


def failure(caller: Caller, kind: str, ask: Ask) -> errors.MeshError:
    """The error of a call; it is what the library's users expect, and ours."""
    with pytest.raises(caller.errors[kind]) as caught:
        caller.send(ask)
    error = caught.value
    assert isinstance(error, caller.errors["any"])
    assert isinstance(error, errors.MeshError)
    assert str(getattr(error, "request").url) == ask.url  # noqa: B009  # of the client's own class
    return error


def reviews(port: int, **options: object) -> Mesh:
    return static_mesh(service("reviews", [f"127.0.0.1:{port}"], retry=None, **options))  # type: ignore[arg-type]


@pytest.fixture
def full_port() -> Iterator[int]:
    """Nobody accepts there, and the queue is full: connections hang."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def cut_off(connected: socket.socket, number: int) -> None:
    servers.read_head(connected)


def cut_off_body(connected: socket.socket, number: int) -> None:
    servers.read_head(connected)
    connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome")


def not_http(connected: socket.socket, number: int) -> None:
    servers.read_head(connected)
    connected.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n")


def silent(connected: socket.socket, number: int) -> None:
    servers.read_head(connected)
    servers.until_closed(connected)


def silent_in_the_body(connected: socket.socket, number: int) -> None:
    servers.read_head(connected)
    connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome")
    servers.until_closed(connected)


def test_nobody_listens(client: Make) -> None:
    port = servers.free_port()
    error = failure(client(reviews(port)), "connect", Ask("http://reviews/"))
    assert isinstance(error, errors.ConnectFailed)
    assert (error.authority, error.route, error.cluster) == ("reviews:80", "default", "outbound|80||reviews")
    assert (error.endpoint, error.attempts, error.flags) == (f"127.0.0.1:{port}", 1, ("UF",))
    assert f"endpoint=127.0.0.1:{port}" in str(error)
    assert error.__cause__ is not None


def test_every_attempt_counts(client: Make) -> None:
    endpoints = [f"127.0.0.1:{servers.free_port()}"]
    error = failure(client(static_mesh(service("reviews", endpoints))), "connect", Ask("http://reviews/"))
    assert isinstance(error, errors.ConnectFailed)
    assert error.attempts == 3


def test_no_endpoint(client: Make) -> None:
    error = failure(client(static_mesh(service("reviews", []))), "connect", Ask("http://reviews/"))
    assert isinstance(error, errors.NoHealthyUpstream)
    assert error.flag == "UH"


def test_no_route(client: Make) -> None:
    mesh = static_mesh(service("reviews", ["127.0.0.1:1"], routes=[]))
    error = failure(client(mesh), "connect", Ask("http://reviews/"))
    assert isinstance(error, errors.RouteNotFound)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_blocked_by_policy(client: Make, scheme: str) -> None:
    """outboundTrafficPolicy REGISTRY_ONLY."""
    error = failure(client(static_mesh(allow_any=False)), "connect", Ask(f"{scheme}://elsewhere.test/"))
    assert isinstance(error, errors.OutboundBlocked)
    assert error.flag == "BH"


def test_connecting_takes_too_long(client: Make, full_port: int) -> None:
    ask = Ask("http://reviews/", timeout=Timeout(connect=0.2))
    error = failure(client(reviews(full_port)), "connect timeout", ask)
    assert isinstance(error, errors.ConnectTimeout)


def test_the_peer_hangs_up(client: Make) -> None:
    with ScriptedPeer(cut_off) as peer:
        error = failure(client(reviews(peer.port)), "cut off", Ask("http://reviews/", "POST"))
    assert isinstance(error, errors.ConnectionTerminated)
    assert error.flag == "UC"


def test_the_peer_does_not_speak_http(client: Make) -> None:
    with ScriptedPeer(not_http) as peer:
        error = failure(client(reviews(peer.port)), "cut off", Ask("http://reviews/"))
    assert isinstance(error, errors.UpstreamProtocolError)


def test_the_body_is_cut_off(client: Make) -> None:
    with ScriptedPeer(cut_off_body) as peer:
        error = failure(client(reviews(peer.port)), "cut off body", Ask("http://reviews/"))
    assert isinstance(error, errors.UpstreamError)
    assert (error.authority, error.endpoint) == ("reviews:80", f"127.0.0.1:{peer.port}")


def test_a_streamed_body_is_cut_off(client: Make) -> None:
    """What came before can be read; then the same error as for a whole body."""
    with ScriptedPeer(cut_off_body) as peer:
        caller = client(reviews(peer.port))
        pieces: list[bytes] = []
        with pytest.raises(caller.errors["cut off body"]) as caught, caller.stream("http://reviews/") as body:
            pieces.extend(body)
    assert isinstance(caught.value, errors.UpstreamError)
    assert b"".join(pieces) in (b"some", b"")  # requests waits for a whole piece


@pytest.mark.parametrize("script", [silent, silent_in_the_body])
def test_reading_takes_too_long(client: Make, script: Callable[[socket.socket, int], None]) -> None:
    with ScriptedPeer(script) as peer:
        error = failure(client(reviews(peer.port)), "read timeout", Ask("http://reviews/", timeout=Timeout(read=0.2)))
    assert isinstance(error, errors.TimeoutExceeded)
    assert error.which == "read"


def test_the_calls_own_limit_passes(client: Make) -> None:
    with ScriptedPeer(silent) as peer:
        error = failure(client(reviews(peer.port)), "read timeout", Ask("http://reviews/", overrides={"timeout": 0.2}))
    assert isinstance(error, errors.TimeoutExceeded)
    assert error.which == "total"


def test_the_routes_limit_passes(client: Make) -> None:
    with ScriptedPeer(silent) as peer:
        error = failure(client(reviews(peer.port, timeout=0.2)), "read timeout", Ask("http://reviews/"))
    assert isinstance(error, errors.TimeoutExceeded)
    assert (error.which, error.flag) == ("route", "UT")


def test_the_limit_of_one_try_passes(client: Make) -> None:
    with ScriptedPeer(silent) as peer:
        ask = Ask("http://reviews/", overrides={"per_try_timeout": 0.2})
        error = failure(client(reviews(peer.port)), "read timeout", ask)
    assert isinstance(error, errors.TimeoutExceeded)
    assert error.which == "per_try"


@pytest.mark.parametrize("mine", [True, False])
def test_the_tighter_limit_wins(client: Make, mine: bool) -> None:
    with ScriptedPeer(silent) as peer:
        caller = client(reviews(peer.port, timeout=60.0 if mine else 0.2))
        error = failure(caller, "read timeout", Ask("http://reviews/", overrides={"timeout": 0.2 if mine else 60.0}))
    assert isinstance(error, errors.TimeoutExceeded)
    assert error.which == ("total" if mine else "route")


def test_too_much_is_in_flight(client: Make) -> None:
    """connectionPool.http.http2MaxRequests: another call fails at once."""
    with ScriptedPeer(silent_in_the_body) as peer:
        caller = client(reviews(peer.port, breakers=CircuitBreakers(max_requests=1)))
        with caller.stream("http://reviews/"):
            error = failure(caller, "connect", Ask("http://reviews/"))
    assert isinstance(error, errors.Overflow)
    assert error.flag == "UO"


@pytest.mark.parametrize("client", ["httpx", "httpx async", "httpx2", "httpx2 async"], indirect=True)
def test_no_connection_becomes_free(client: Make) -> None:
    """connectionPool.tcp.maxConnections, and a caller that waits no longer; requests has no such timeout."""
    with ScriptedPeer(silent_in_the_body) as peer:
        caller = client(reviews(peer.port, breakers=CircuitBreakers(max_connections=1)))
        with caller.stream("http://reviews/"):
            error = failure(caller, "pool timeout", Ask("http://reviews/", timeout=Timeout(pool=0.2)))
    assert isinstance(error, errors.PoolTimeout)


def test_what_cannot_be_sent(client: Make) -> None:
    """The engine refuses it, where the client did not."""
    caller = client(reviews(servers.free_port()))
    error = failure(caller, "bad request", Ask("http://reviews/", headers=[("content-length", "7")]))
    assert isinstance(error, errors.RequestError)
    assert "content-length" in str(error)
