"""Request bodies: bytes are sent again where that is safe, iterators never; the body's own failure is the caller's."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

import pytest

from meshlib import Mesh, errors
from meshlib.lowlevel import Request
from meshlib.model.cluster import CircuitBreakers, LbPolicy
from meshlib.model.route import RetryPolicy
from meshlib.model.snapshot import Target
from meshlib.testing import DEFAULT_RETRY, service, static_mesh
from tests.support.meshcalls import WAYS, Fetch
from tests.support.servers import ScriptedPeer, until_closed

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
ON_503 = replace(DEFAULT_RETRY, retry_on=DEFAULT_RETRY.retry_on | {"5xx"}, base_interval=0.0)
BODY = b"the body" * 5


@pytest.fixture(params=list(WAYS))
def fetch(request: pytest.FixtureRequest) -> Fetch:
    return WAYS[request.param]


class Received:
    """A script for `ScriptedPeer`: reads each request with its `BODY` whole, answers the requests in turn, then hangs up."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self.requests: list[bytes] = []

    def __call__(self, connected: socket.socket, _number: int) -> None:
        while self._answers:
            received = b""
            while not received.endswith(BODY) and not received.endswith(b"0\r\n\r\n"):
                data = connected.recv(65536)
                if not data:
                    return
                received += data
            self.requests.append(received)
            answer = self._answers.pop(0)
            if not answer:
                return
            connected.sendall(answer)
        until_closed(connected)


def reviews(*ports: int, retry: RetryPolicy | None = ON_503, lb_policy: LbPolicy = LbPolicy.LEAST_REQUEST) -> Target:
    breakers = CircuitBreakers(max_requests=1)  # a slot that is not given back would be missed by the next call
    endpoints = [f"127.0.0.1:{port}" for port in ports]
    return service("reviews", endpoints, retry=retry, breakers=breakers, lb_policy=lb_policy)


def bodies(received: Received) -> list[bytes]:
    return [request.partition(b"\r\n\r\n")[2] for request in received.requests]


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_bytes_are_sent_anew_with_every_try(fetch: Fetch, method: str) -> None:
    received = Received(UNAVAILABLE, UNAVAILABLE, OK)
    with ScriptedPeer(received) as peer, static_mesh(reviews(peer.port)) as mesh:
        response = fetch(mesh, method, "http://reviews/", content=BODY)
        assert (response.status_code, response.content, response.info.attempts) == (200, b"ok", 3)
    assert bodies(received) == [BODY] * 3
    counts = [request.lower().partition(b"x-envoy-attempt-count: ")[2][:1] for request in received.requests]
    assert counts == [b"1", b"2", b"3"]


def test_a_stream_is_sent_once(fetch: Fetch) -> None:
    """The policy would have it tried again, but there is nothing left to send."""
    received = Received(UNAVAILABLE, OK)
    with ScriptedPeer(received) as peer, static_mesh(reviews(peer.port)) as mesh:
        response = fetch(mesh, "POST", "http://reviews/", content=iter([BODY[:10], BODY[10:]]))
        assert (response.status_code, response.info.attempts) == (503, 1)
    assert bodies(received) == [b"a\r\n%s\r\n1e\r\n%s\r\n0\r\n\r\n" % (BODY[:10], BODY[10:])]


def test_a_stream_that_nobody_began_to_read_may_go_elsewhere(fetch: Fetch) -> None:
    """No connection was made, so it is whole."""
    received = Received(OK, OK)
    began = 0

    def content() -> Iterator[bytes]:
        nonlocal began
        began += 1
        yield BODY

    with ScriptedPeer(received) as peer, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and never listens: refused, and nobody else can take it
        target = reviews(closed.getsockname()[1], peer.port, lb_policy=LbPolicy.ROUND_ROBIN)
        with static_mesh(target) as mesh:
            attempts = [fetch(mesh, "POST", "http://reviews/", content=content()).info.attempts for _ in range(2)]
    assert sorted(attempts) == [1, 2]
    assert began == len(received.requests) == 2


@pytest.mark.parametrize(("method", "again"), [("PUT", True), ("DELETE", True), ("POST", False), ("PATCH", False)])
def test_a_lost_connection_repeats_only_what_may_be_executed_twice(fetch: Fetch, method: str, *, again: bool) -> None:
    received = Received(b"", OK)
    with ScriptedPeer(received) as peer, static_mesh(reviews(peer.port, retry=DEFAULT_RETRY)) as mesh:
        if again:
            assert fetch(mesh, method, "http://reviews/", content=BODY).info.attempts == 2
        else:
            with pytest.raises(errors.ConnectionTerminated) as caught:
                fetch(mesh, method, "http://reviews/", content=BODY)
            assert caught.value.attempts == 1
            assert fetch(mesh, method, "http://reviews/", content=BODY).content == b"ok"  # its slots are free again
    assert len(received.requests) == 2


class Unreadable(Exception):
    """The caller's own."""


@pytest.mark.parametrize("failure", [Unreadable("disk"), KeyError("x"), OSError(5, "io"), TimeoutError()], ids=repr)
def test_the_bodys_own_failure_reaches_the_caller_as_it_is(fetch: Fetch, failure: Exception) -> None:
    def content() -> Iterator[bytes]:
        yield b"some"
        raise failure

    received = Received(OK)
    with ScriptedPeer(received) as peer, static_mesh(reviews(peer.port)) as mesh:
        with pytest.raises(type(failure)) as caught:
            fetch(mesh, "POST", "http://reviews/", content=content())
        assert caught.value is failure
        assert fetch(mesh, "POST", "http://reviews/", content=BODY).content == b"ok"


@pytest.mark.parametrize("header", ["x-bad\r\ninjected", "na me", ""])
def test_what_cannot_be_written_is_refused_before_anything_is_sent(fetch: Fetch, header: str) -> None:
    received = Received(OK)
    with ScriptedPeer(received) as peer, static_mesh(reviews(peer.port)) as mesh:
        with pytest.raises(errors.RequestError):
            fetch(mesh, "GET", "http://reviews/", headers={header: "1"})
        assert peer.accepted == 0
        assert fetch(mesh, "POST", "http://reviews/", content=BODY).content == b"ok"


def test_a_cancellation_inside_of_a_body_does_not_hang_the_call() -> None:
    """Say, the task that the body reads from was cancelled."""

    async def content() -> AsyncIterator[bytes]:
        yield b"some"
        raise asyncio.CancelledError

    async def run(mesh: Mesh) -> None:
        request = Request("POST", "http", "reviews:80", "/", [], content())
        task = asyncio.ensure_future(mesh.aexchange(request))
        done, _ = await asyncio.wait([task], timeout=20)
        assert done
        assert task.cancelled()  # as it is, like every failure of a body
        await mesh.aclose_loop()

    received = Received(OK)
    with ScriptedPeer(received) as peer, static_mesh(reviews(peer.port)) as mesh:
        asyncio.run(run(mesh))
        assert mesh.request("POST", "http://reviews/", content=BODY).content == b"ok"


@pytest.mark.parametrize("ask", [b"bytes", lambda: iter([b"pieces"])], ids=["bytes", "stream"])
def test_an_early_answer_ends_the_sending(fetch: Fetch, ask: bytes | Callable[[], Iterator[bytes]]) -> None:
    """A server may refuse a body that it has not read."""

    def script(connected: socket.socket, _number: int) -> None:
        while b"\r\n\r\n" not in connected.recv(65536):
            pass
        connected.sendall(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        until_closed(connected)

    content = ask if isinstance(ask, bytes) else ask()
    with ScriptedPeer(script) as peer, static_mesh(reviews(peer.port)) as mesh:
        assert fetch(mesh, "POST", "http://reviews/", content=content).status_code == 413
