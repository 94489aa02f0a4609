"""Whose time is up: the route's, the caller's or that of the request being served.  The tighter one wins and is named."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from meshlib import Overrides, errors
from meshlib.lowlevel import RequestContext, Timeouts
from meshlib.model.snapshot import Target
from meshlib.runtime.context import CURRENT
from meshlib.testing import DEFAULT_RETRY, service, static_mesh
from tests.support.meshcalls import WAYS, Fetch
from tests.support.servers import ScriptedPeer, read_head, until_closed

LONG, SHORT = 30.0, 0.2
TIGHT = 0.05  # where it does not matter how far the call gets


@pytest.fixture(params=list(WAYS))
def fetch(request: pytest.FixtureRequest) -> Fetch:
    return WAYS[request.param]


def silent(connected: socket.socket, _number: int) -> None:
    read_head(connected)
    until_closed(connected)


def slow_body(connected: socket.socket, _number: int) -> None:
    """A head at once, the body three times SHORT later."""
    read_head(connected)
    connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")
    time.sleep(3 * SHORT)
    connected.sendall(b"body")


def endless_body(connected: socket.socket, _number: int) -> None:
    read_head(connected)
    connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nb")
    until_closed(connected)


@pytest.fixture
def serving() -> Iterator[Callable[[RequestContext], None]]:
    """Puts a request in place that this thread is serving."""
    tokens = []

    def begin(context: RequestContext) -> None:
        tokens.append(CURRENT.set(context))

    yield begin
    for token in tokens:
        CURRENT.reset(token)


def reviews(port: int, *, timeout: float = 0.0, per_try: float = 0.0) -> Target:
    retry = replace(DEFAULT_RETRY, attempts=1, per_try_timeout=per_try) if per_try else None
    return service("reviews", [f"127.0.0.1:{port}"], timeout=timeout, retry=retry)


@pytest.mark.parametrize(
    ("route", "caller", "inherited", "which"),
    [
        (TIGHT, LONG, LONG, "route"),
        (TIGHT, None, None, "route"),
        (LONG, TIGHT, LONG, "total"),
        (0.0, TIGHT, None, "total"),
        (LONG, LONG, TIGHT, "deadline"),
        (0.0, None, TIGHT, "deadline"),
    ],
)
@pytest.mark.parametrize("script", [silent, endless_body])
def test_the_tightest_of_three_is_named(
    fetch: Fetch,
    serving: Callable[[RequestContext], None],
    script: Callable[[socket.socket, int], None],
    route: float,
    caller: float | None,
    inherited: float | None,
    which: str,
) -> None:
    """In the head and in the body alike."""
    if inherited is not None:
        serving(RequestContext(time.monotonic() + inherited))
    with ScriptedPeer(script) as peer, static_mesh(reviews(peer.port, timeout=route)) as mesh:
        with pytest.raises(errors.TimeoutExceeded) as caught:
            fetch(mesh, "GET", "http://reviews/", timeout=caller)
        assert caught.value.which == which
        assert caught.value.seconds < LONG
        assert caught.value.flags == ("UT",)
        assert (caught.value.attempts, caught.value.endpoint) == (1, f"127.0.0.1:{peer.port}")


@pytest.mark.parametrize(
    ("own", "override"), [(LONG, TIGHT), (TIGHT, LONG), (None, TIGHT)], ids=["override", "own", "override alone"]
)
def test_of_two_limits_of_one_call_the_shorter_holds(fetch: Fetch, own: float | None, override: float) -> None:
    with ScriptedPeer(silent) as peer, static_mesh(reviews(peer.port)) as mesh:
        with pytest.raises(errors.TimeoutExceeded) as caught:
            fetch(mesh, "GET", "http://reviews/", timeout=own, overrides=Overrides(timeout=override))
        assert caught.value.which == "total"
        assert caught.value.seconds < LONG


def test_a_read_timeout_of_the_callers_is_named_too(fetch: Fetch) -> None:
    with ScriptedPeer(silent) as peer, static_mesh(reviews(peer.port, timeout=LONG)) as mesh:
        with pytest.raises(errors.TimeoutExceeded) as caught:
            fetch(mesh, "GET", "http://reviews/", timeout=Timeouts(read=TIGHT))
        assert caught.value.which == "read"


def test_a_try_that_takes_too_long_is_given_up_for_another(fetch: Fetch) -> None:
    def script(connected: socket.socket, number: int) -> None:
        if number == 0:
            silent(connected, number)
        read_head(connected)
        connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody")
        until_closed(connected)

    retry = replace(DEFAULT_RETRY, attempts=1, per_try_timeout=SHORT, retry_on=frozenset({"reset"}))
    with (
        ScriptedPeer(script) as peer,
        static_mesh(service("reviews", [f"127.0.0.1:{peer.port}"], retry=retry, timeout=LONG)) as mesh,
    ):
        response = fetch(mesh, "GET", "http://reviews/")
        assert (response.content, response.info.attempts, response.info.flags) == (b"body", 2, ("UT",))


def test_when_every_try_takes_too_long_the_error_names_the_try(fetch: Fetch) -> None:
    with ScriptedPeer(silent) as peer, static_mesh(reviews(peer.port, timeout=LONG, per_try=SHORT)) as mesh:
        with pytest.raises(errors.TimeoutExceeded) as caught:
            fetch(mesh, "GET", "http://reviews/")
        assert caught.value.which == "per_try"
        assert "perTryTimeout" in caught.value.message


@pytest.mark.parametrize("overall", [0.0, LONG])
def test_a_response_that_has_begun_outlives_the_timeout_of_its_try(fetch: Fetch, overall: float) -> None:
    """Envoy's perTryTimeout ends with the response's first byte: a slow download is no failed try."""
    with ScriptedPeer(slow_body) as peer, static_mesh(reviews(peer.port, timeout=overall, per_try=SHORT)) as mesh:
        assert fetch(mesh, "GET", "http://reviews/").content == b"body"


@pytest.mark.parametrize("whose", ["route", "total", "deadline"])
def test_but_not_the_deadline_of_the_call(fetch: Fetch, serving: Callable[[RequestContext], None], whose: str) -> None:
    """And the error names that, not the try."""
    if whose == "deadline":
        serving(RequestContext(time.monotonic() + 3 * SHORT))
    timeout = 3 * SHORT if whose == "route" else LONG
    with (
        ScriptedPeer(endless_body) as peer,
        static_mesh(reviews(peer.port, timeout=timeout, per_try=SHORT)) as mesh,
        pytest.raises(errors.TimeoutExceeded) as caught,
    ):
        fetch(mesh, "GET", "http://reviews/", timeout=3 * SHORT if whose == "total" else None)
    assert caught.value.which == whose
    assert caught.value.seconds > 2 * SHORT
    assert caught.value.attempts == 1


def test_no_time_left_means_no_request(fetch: Fetch, serving: Callable[[RequestContext], None]) -> None:
    serving(RequestContext(time.monotonic() - 1.0))
    with ScriptedPeer(silent) as peer, static_mesh(reviews(peer.port)) as mesh:
        with pytest.raises(errors.TimeoutExceeded) as caught:
            fetch(mesh, "GET", "http://reviews/")
        assert caught.value.which == "deadline"
        assert peer.accepted == 0


def test_the_callee_is_told_what_is_left(fetch: Fetch) -> None:
    heads: list[bytes] = []

    def script(connected: socket.socket, _number: int) -> None:
        while head := read_head(connected):
            heads.append(head)
            connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    with ScriptedPeer(script) as peer, static_mesh(reviews(peer.port, timeout=LONG)) as mesh:
        fetch(mesh, "GET", "http://reviews/", headers={"X-Envoy-Expected-Rq-Timeout-Ms": "1", "X-Envoy-Attempt-Count": "7"})
    lines = heads[0].decode().lower().split("\r\n")
    told = [line for line in lines if line.startswith("x-envoy")]
    assert "x-envoy-attempt-count: 1" in told
    (milliseconds,) = [int(line.split(": ")[1]) for line in told if "expected" in line]
    assert LONG * 1000 / 2 < milliseconds <= LONG * 1000
