"""The life of a Mesh, what it asks for, and what its calls carry on."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import meshlib
from meshlib import Mesh, Overrides, RequestContext, errors
from meshlib.lowlevel import Request, Timeouts, TraceContext
from meshlib.model.snapshot import Snapshot
from meshlib.runtime.context import CURRENT
from meshlib.runtime.fork import _survivors
from meshlib.testing import StaticControl, service, snapshot, static_mesh
from tests.support.servers import ScriptedPeer, read_head

TRACE = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "01")


class Slow(StaticControl):
    """Answers nothing: who waits, waits as long as it was told to, on a clock that only waiting moves."""

    def __init__(self) -> None:
        super().__init__(Snapshot(allow_any=None))
        self.waits: list[float] = []

    def request(self, authority: str) -> None:
        self.requested.append(authority)

    def wait(self, known: Callable[[Snapshot], bool], timeout: float) -> bool:
        self.waits.append(timeout)
        return False

    async def await_(self, known: Callable[[Snapshot], bool], timeout: float) -> bool:
        return self.wait(known, timeout)

    def wait_ready(self, timeout: float) -> bool:
        self.waits.append(timeout)
        return False

    async def await_ready(self, timeout: float) -> bool:
        return self.wait_ready(timeout)


def test_nothing_runs_before_the_first_use() -> None:
    threads = set(threading.enumerate())
    mesh = Mesh(insecure_dev=True, control="127.0.0.1:1", service="reviews", port=8080)
    assert set(threading.enumerate()) == threads
    assert "not started" in repr(mesh)
    assert "reviews.default" in repr(mesh)
    mesh.close()  # of what never began


def test_starting_and_closing_are_idempotent_and_a_closed_mesh_may_start_anew() -> None:
    mesh = static_mesh(service("reviews", []))
    for _ in range(2):
        mesh.start()
        first = mesh._processes.current
        mesh.start()
        assert mesh._processes.current is first
        mesh.close()
        mesh.close()
        assert mesh._processes.current is None


def test_many_threads_start_one_process() -> None:
    mesh = static_mesh(service("reviews", []))
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(mesh._running())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set(map(id, found))) == 1
    mesh.close()


def test_a_mesh_that_is_dropped_is_forgotten() -> None:
    before = len(_survivors)
    mesh = static_mesh(service("reviews", []))
    with mesh:
        pass
    del mesh
    gc.collect()
    assert len(_survivors) <= before


async def test_both_kinds_of_blocks_start_and_close() -> None:
    mesh = static_mesh(service("reviews", []))
    with mesh:
        assert is_running(mesh)
    assert not is_running(mesh)
    async with mesh:
        assert is_running(mesh)
        await mesh.await_ready()
        mesh.wait_ready()
    assert not is_running(mesh)


def is_running(mesh: Mesh) -> bool:
    return mesh._processes.current is not None


async def test_not_ready_in_time_says_so() -> None:
    control = Slow()
    with Mesh(control=control) as mesh:
        with pytest.raises(errors.NotReady, match=r"in 3\.0 s: static"):
            mesh.wait_ready(3.0)
        with pytest.raises(errors.NotReady, match="static"):
            await mesh.await_ready()
    assert control.waits == [3.0, 10.0]


def test_an_unreachable_control_service_is_named_when_readiness_is_waited_for() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with Mesh(insecure_dev=True, control=address) as mesh, pytest.raises(errors.NotReady, match=address):
            mesh.wait_ready(0.5)


@pytest.mark.parametrize(
    ("host", "authority"),
    [
        ("reviews", "reviews:80"),
        ("reviews:9080", "reviews:9080"),
        ("Reviews.Shop.", "reviews.shop:80"),
        ("[::1]", "[::1]:80"),
        ("[::1]:9080", "[::1]:9080"),
    ],
)
def test_hosts_are_asked_for_by_their_canonical_name(host: str, authority: str) -> None:
    control = Slow()
    with Mesh(control=control) as mesh:
        mesh.prefetch(host)
    assert control.requested == [authority]


@pytest.mark.parametrize(
    ("timeout", "override", "inherited", "most"),
    [(None, None, None, 15.0), (2.0, None, None, 2.0), (None, 3.0, None, 3.0), (9.0, None, 4.0, 4.0), (60.0, 60.0, 60.0, 15.0)],
)
def test_a_first_answer_is_waited_for_no_longer_than_the_caller_can_wait(
    timeout: float | None, override: float | None, inherited: float | None, most: float
) -> None:
    control = Slow()
    request = Request(
        "GET", "http", "reviews:80", "/", [], timeouts=Timeouts(total=timeout), overrides=Overrides(timeout=override)
    )
    token = CURRENT.set(RequestContext(None if inherited is None else time.monotonic() + inherited))
    try:
        with Mesh(control=control) as mesh:
            with pytest.raises(errors.TargetUnknown):
                mesh.exchange(request)
            with pytest.raises(errors.TargetUnknown):
                asyncio.run(mesh.aexchange(request))
    finally:
        CURRENT.reset(token)
    assert len(control.waits) == 2
    assert all(most - 1.0 < waited <= most for waited in control.waits)


class Late(StaticControl):
    """Answers after a while."""

    def __init__(self, port: int, seconds: float) -> None:
        super().__init__(Snapshot(allow_any=True))
        self._port = port
        self._seconds = seconds

    def request(self, authority: str) -> None:
        pass

    def wait(self, known: Callable[[Snapshot], bool], timeout: float) -> bool:
        time.sleep(self._seconds)
        self.publish(snapshot(service("reviews", [f"127.0.0.1:{self._port}"], retry=None)))
        return True

    async def await_(self, known: Callable[[Snapshot], bool], timeout: float) -> bool:
        return self.wait(known, timeout)


@pytest.mark.parametrize("way", ["blocking", "asyncio"])
def test_what_a_first_answer_took_is_taken_from_the_callers_time(way: str) -> None:
    """The callee is told what is left: less than there was at the beginning, by the time that the control service took."""
    heads: list[bytes] = []

    def script(connected: socket.socket, _number: int) -> None:
        heads.append(read_head(connected))
        connected.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")

    with ScriptedPeer(script) as peer, Mesh(control=Late(peer.port, 0.5)) as mesh:
        if way == "blocking":
            mesh.request("GET", "http://reviews/", timeout=30.0)
        else:
            asyncio.run(mesh.arequest("GET", "http://reviews/", timeout=30.0))
    told = int(heads[0].lower().partition(b"x-envoy-expected-rq-timeout-ms: ")[2].split(b"\r\n")[0])
    assert 20_000 < told <= 29_500


def heads_of(context: RequestContext, headers: dict[str, str]) -> dict[str, str]:
    """What a call carries that is made while a request with `context` is served."""
    heads: list[bytes] = []

    def script(connected: socket.socket, _number: int) -> None:
        heads.append(read_head(connected))
        connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    token = CURRENT.set(context)
    try:
        with ScriptedPeer(script) as peer, static_mesh(service("reviews", [f"127.0.0.1:{peer.port}"])) as mesh:
            mesh.request("GET", "http://reviews/", headers=headers)
    finally:
        CURRENT.reset(token)
    lines = heads[0].decode().split("\r\n")[1:]
    return dict(line.lower().split(": ", 1) for line in lines if line)


def test_calls_continue_the_trace_of_the_request_being_served() -> None:
    sent = heads_of(RequestContext(trace=TRACE, forwarded=((b"baggage", b"user=1"), (b"tracestate", b"a=b"))), {})
    version, trace_id, span_id, flags = sent["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", TRACE.trace_id, "01")
    assert span_id != TRACE.span_id  # a span of its own
    assert (sent["baggage"], sent["tracestate"]) == ("user=1", "a=b")


def test_what_the_application_says_itself_is_left_alone() -> None:
    own = {"Traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-00", "Baggage": "mine=1"}
    sent = heads_of(RequestContext(trace=TRACE, forwarded=((b"baggage", b"user=1"),)), own)
    assert (sent["traceparent"], sent["baggage"]) == (own["Traceparent"], "mine=1")


def test_outside_of_any_request_nothing_is_made_up() -> None:
    sent = heads_of(RequestContext(), {})
    assert sent.keys() == {"host", "x-envoy-attempt-count"}


def test_the_process_wide_mesh_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from meshlib import mesh as module

    monkeypatch.setattr(module, "_default", None)
    monkeypatch.setenv("MESHLIB_NAMESPACE", "shop")
    monkeypatch.setenv("MESHLIB_SERVICE", "reviews")
    made = meshlib.default_mesh()
    assert meshlib.default_mesh() is made
    assert made.settings.namespace == "shop"
