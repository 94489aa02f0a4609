"""What every client integration does the same: one list of scenarios, run over each of them."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshlib import Mesh
from meshlib.model.cluster import LbPolicy
from meshlib.testing import service, static_mesh
from tests.support import servers
from tests.support.callers import Ask, Caller, Timeout
from tests.support.scenarios import GREETING

Make = Callable[[Mesh], Caller]


@pytest.fixture
def caller(client: Make, upstream: int) -> Caller:
    return client(static_mesh(service("reviews", [f"127.0.0.1:{upstream}"])))


def echoed(caller: Caller, ask: Ask) -> dict[str, Any]:
    reply = caller.send(ask)
    assert reply.status == 200
    arrived: dict[str, Any] = json.loads(reply.content)
    return arrived


def test_a_call_says_what_it_went_through(caller: Caller, upstream: int) -> None:
    record = caller.send(Ask("http://reviews/plain?size=3")).record
    assert record is not None
    assert (record.authority, record.route, record.service) == ("reviews:80", "default", "reviews")
    assert (record.cluster, record.endpoint) == ("outbound|80||reviews", f"127.0.0.1:{upstream}")
    assert (record.status, record.attempts, record.flags) == (200, 1, ())


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "PUT", "PATCH"])
def test_method_and_target_arrive_as_written(caller: Caller, method: str) -> None:
    target = "/echo/a%2Fb/~x?q=1&q=%20&r"
    reply = caller.send(Ask(f"http://reviews{target}", method))
    assert reply.status == 200
    if method != "HEAD":
        arrived = json.loads(reply.content)
        assert (arrived["method"], arrived["target"]) == (method, target)


def test_paths_go_out_in_their_canonical_form(caller: Caller) -> None:
    """As from Envoy: what the callee's policies look at is what was routed by."""
    assert echoed(caller, Ask("http://reviews/x/%2e%2e/echo/%61%2F%20?q=%20&r=../x"))["target"] == "/echo/a%2F%20?q=%20&r=../x"


def test_nobody_speaks_of_identities_in_headers(caller: Caller) -> None:
    """H17: an application that hands on the headers of its own request would lend its identity to them."""
    sent = [("X-Forwarded-Client-Cert", "URI=spiffe://td/ns/a/sa/b"), ("x-envoy-original-path", "/public"), ("x-mine", "1")]
    headers = {name for name, _ in echoed(caller, Ask("http://reviews/echo", headers=sent))["headers"]}
    assert headers & {name.lower() for name, _ in sent} == {"x-mine"}


def test_host_is_what_the_url_says(client: Make, upstream: int) -> None:
    caller = client(static_mesh(service("reviews:9080", [f"127.0.0.1:{upstream}"])))
    headers = echoed(caller, Ask("http://Reviews:9080/echo"))["headers"]
    assert [value for name, value in headers if name == "host"] == ["reviews:9080"]


def test_the_callers_headers_arrive(caller: Caller) -> None:
    sent = [("X-One", "1"), ("x-empty", ""), ("authorization", "Bearer t")]
    headers = echoed(caller, Ask("http://reviews/echo", headers=sent))["headers"]
    assert {(name.lower(), value) for name, value in sent} <= {(name, value) for name, value in headers}


def test_framing_headers_are_there_once(caller: Caller) -> None:
    for content in (b"", b"abc", [b"a", b"bc"]):
        headers = echoed(caller, Ask("http://reviews/echo", "POST", content=content))["headers"]
        framing = [name for name, _ in headers if name in ("content-length", "transfer-encoding", "host")]
        assert len(framing) == len(set(framing)) == 2


def test_a_body_with_its_length_wins_over_chunks(caller: Caller) -> None:
    """A request with both could be read in two ways."""
    arrived = echoed(caller, Ask("http://reviews/echo", "POST", [("Transfer-Encoding", "chunked")], b"abc"))
    names = [name for name, _ in arrived["headers"]]
    assert arrived["length"] == 3
    assert "content-length" in names
    assert "transfer-encoding" not in names


def test_response_headers_come_back_as_sent(caller: Caller) -> None:
    reply = caller.send(Ask("http://reviews/headers"))
    assert reply.reason == "OK"
    assert reply.all("x-many") == ["one", "two"]
    assert reply.all("x-empty") == [""]
    assert reply.all("x-latin") == ["caf\xe9"]


def test_cookies_are_kept_and_sent_back(caller: Caller) -> None:
    caller.send(Ask("http://reviews/cookies"))
    assert caller.cookies() == {"a": "1", "b": "2"}
    headers = dict(echoed(caller, Ask("http://reviews/echo"))["headers"])
    assert headers["cookie"] == "a=1; b=2"


def test_compressed_bodies_are_decoded(caller: Caller) -> None:
    assert caller.send(Ask("http://reviews/gzip")).content == GREETING


@pytest.mark.parametrize("code", [204, 304, 404, 500])
def test_every_status_is_a_response(caller: Caller, code: int) -> None:
    reply = caller.send(Ask(f"http://reviews/status?code={code}"))
    assert (reply.status, reply.content) == (code, b"")


@pytest.mark.parametrize("size", [0, 1, 1024, 8 << 20])
def test_bodies_of_any_size_come_whole(caller: Caller, size: int) -> None:
    assert caller.send(Ask(f"http://reviews/plain?size={size}")).content == b"x" * size


@pytest.mark.parametrize("pieces", [1, 128])
def test_big_bodies_go_whole(caller: Caller, pieces: int) -> None:
    body = os.urandom(8 << 20)
    step = len(body) // pieces
    content: Any = body if pieces == 1 else [body[at : at + step] for at in range(0, len(body), step)]
    arrived = echoed(caller, Ask("http://reviews/echo", "POST", content=content))
    assert (arrived["length"], arrived["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


def test_a_response_is_readable_while_it_comes(caller: Caller) -> None:
    """The rest is sent only after the first part was seen here."""
    key = uuid.uuid4().hex
    with caller.stream(f"http://reviews/drip?key={key}") as pieces:
        assert next(pieces) == b"first"
        caller.send(Ask(f"http://reviews/release?key={key}"))
        assert b"".join(pieces) == b"second"


def test_a_request_is_sent_while_it_is_made(client: Make, caller: Caller, upstream: int) -> None:
    """The second part is made only after the first arrived there."""
    key = uuid.uuid4().hex
    other = client(static_mesh(service("reviews", [f"127.0.0.1:{upstream}"])))

    def seen() -> int:
        return int(other.send(Ask(f"http://reviews/seen?key={key}")).content)

    def parts() -> Iterator[bytes]:
        yield b"a" * 100_000
        deadline = time.monotonic() + servers.READY
        while seen() < 100_000:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield b"b"

    assert caller.send(Ask(f"http://reviews/seen?key={key}", "POST", content=parts())).content == b"100001"


def test_an_abandoned_stream_leaves_the_client_usable(caller: Caller) -> None:
    for _ in range(3):
        with caller.stream("http://reviews/stall") as pieces:
            assert next(pieces) == b"some"
    assert caller.send(Ask("http://reviews/plain?size=1")).content == b"x"


def test_a_dead_endpoint_costs_an_attempt_not_the_call(client: Make, upstream: int) -> None:
    dead = f"127.0.0.1:{servers.free_port()}"
    endpoints = [dead, f"127.0.0.1:{upstream}"]
    caller = client(static_mesh(service("reviews", endpoints, lb_policy=LbPolicy.ROUND_ROBIN)))
    records = [caller.send(Ask("http://reviews/plain?size=1")).record for _ in range(20)]
    assert {record.endpoint for record in records if record} == {f"127.0.0.1:{upstream}"}
    assert max(record.attempts for record in records if record) == 2


def test_a_failed_response_is_tried_again_if_the_call_says_so(caller: Caller) -> None:
    url = f"http://reviews/flaky?key={uuid.uuid4().hex}&fails=2"
    reply = caller.send(Ask(url, overrides={"retries": 3, "retry_on": ["5xx"]}))
    assert reply.status == 200
    assert reply.record is not None
    assert reply.record.attempts == 3


def test_without_overrides_it_is_not(caller: Caller) -> None:
    reply = caller.send(Ask(f"http://reviews/flaky?key={uuid.uuid4().hex}&fails=2"))
    assert reply.status == 503
    assert reply.record is not None
    assert reply.record.attempts == 1


def test_a_streamed_body_is_sent_once(caller: Caller) -> None:
    """It cannot be read again, so even a call that asks for retries has none."""
    ask = Ask(
        f"http://reviews/flaky?key={uuid.uuid4().hex}&fails=1",
        "POST",
        content=[b"a", b"b"],
        overrides={"retries": 3, "retry_on": ["5xx"]},
    )
    reply = caller.send(ask)
    assert reply.status == 503
    assert reply.record is not None
    assert reply.record.attempts == 1


def test_many_calls_leak_nothing(caller: Caller) -> None:
    """1000 one after the other need one connection; then 64 at a time, and the same files and threads as before."""
    ask = Ask("http://reviews/plain?size=10", timeout=Timeout(read=60))
    caller.send(ask)
    before = open_files()
    for _ in range(1000):
        assert caller.send(ask).content == b"x" * 10
    assert open_files() == before
    threads = threading.active_count()
    for _ in range(4):
        assert {reply.content for reply in caller.at_once([ask] * 64)} == {b"x" * 10}
    assert threading.active_count() <= threads
    assert open_files() <= before + 64


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
