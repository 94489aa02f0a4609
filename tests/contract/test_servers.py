"""What every server integration does the same: the request arrives as sent, its context is there wherever code runs."""

from __future__ import annotations

import http.client
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.support.meshservers import ASGI, Server

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CONTEXT = {
    "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
    "tracestate": "a=b",
    "x-request-id": "r-1",
    "x-envoy-attempt-count": "2",
    "x-envoy-expected-rq-timeout-ms": "60000",
}
SEEN = {"attempt": 2, "trace": TRACE, "limited": True, "forwarded": ["tracestate", "x-request-id"]}
EMPTY: dict[str, object] = {"attempt": 1, "trace": None, "limited": False, "forwarded": []}


def ask(server: Server, target: str, method: str = "GET", *, headers: Any = None, body: Any = None) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request(method, target, body, headers or {}, encode_chunked=not isinstance(body, bytes | None))
        response = connection.getresponse()
        content = response.read()
        assert response.status == 200, content
        return content
    finally:
        connection.close()


def test_the_request_arrives_as_sent(server: Server) -> None:
    seen = json.loads(ask(server, "/echo/a%2Fb?q=%20&r", "PUT", headers={"X-One": "1", "X-Two": "2"}, body=b"abc"))
    assert (seen["method"], seen["path"], seen["length"]) == ("PUT", "/echo/a/b", 3)
    assert seen["target"].endswith("?q=%20&r")
    assert {("x-one", "1"), ("x-two", "2")} <= {(name, value) for name, value in seen["headers"]}


def test_a_big_body_arrives_whole(server: Server) -> None:
    assert json.loads(ask(server, "/echo", "POST", body=b"x" * (4 << 20)))["length"] == 4 << 20


def test_a_chunked_body_arrives_whole(server: Server) -> None:
    headers = {"transfer-encoding": "chunked"}
    assert json.loads(ask(server, "/echo", "POST", headers=headers, body=iter([b"x" * 70_000] * 3)))["length"] == 210_000


@pytest.mark.parametrize("where", ["here", "given", "task", "thread", "carried"])
def test_the_context_is_there(server: Server, where: str) -> None:
    assert json.loads(ask(server, f"/context?in={where}", headers=CONTEXT)) == SEEN


def test_without_headers_the_context_is_empty(server: Server) -> None:
    assert json.loads(ask(server, "/context?in=here")) == EMPTY


def test_a_bare_thread_has_no_context(server: Server) -> None:
    """What `carried` is for."""
    assert json.loads(ask(server, "/context?in=bare", headers=CONTEXT)) is None


def test_the_context_is_there_while_a_body_is_made(server: Server) -> None:
    lines = ask(server, "/stream", headers=CONTEXT).splitlines()
    assert [json.loads(line) for line in lines] == [SEEN] * 3


def test_the_context_ends_with_its_request(server: Server) -> None:
    """On one connection, and so, in most servers, in one thread or task."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        for headers, expected in [(CONTEXT, SEEN), ({}, EMPTY)] * 3:
            connection.request("GET", "/stream", headers=headers)
            assert json.loads(connection.getresponse().read().splitlines()[-1]) == expected
    finally:
        connection.close()


def test_contexts_of_concurrent_requests_do_not_mix(server: Server) -> None:
    def trace_of(number: int) -> str:
        headers = {"traceparent": f"00-{number + 1:032x}-00f067aa0ba902b7-01"}
        return str(json.loads(ask(server, "/context?in=task", headers=headers))["trace"])

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(trace_of, range(64))) == [f"{number + 1:032x}" for number in range(64)]


asgi = pytest.mark.parametrize("server", ASGI, indirect=True)


@asgi
def test_websockets_pass(server: Server) -> None:
    with connect(f"ws://127.0.0.1:{server.port}/", additional_headers=CONTEXT, open_timeout=60) as socket:
        for text in ("one", "two"):
            socket.send(text)
            echo, _, context = str(socket.recv(60)).partition(" ")
            assert (echo, json.loads(context)) == (text, SEEN)


@asgi
def test_an_ambiguous_websocket_is_refused(server: Server) -> None:
    handshake = (
        b"GET /admin%00 HTTP/1.1\r\nhost: a.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), 60) as connected:
        connected.settimeout(60)
        connected.sendall(handshake)
        assert connected.recv(65536).split(b" ", 2)[1] in (b"400", b"403")


def test_it_is_announced_once(server: Server) -> None:
    """At the start where the server has one, at the first request otherwise."""
    ask(server, "/echo")
    server.wait_for(f"announced {server.port}")
    assert [event for _, event in server.events()].count(f"announced {server.port}") == 1
