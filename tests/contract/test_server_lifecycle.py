"""The beginning and the end of a served process, on every server: announced once it serves, withdrawn before it stops."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import meshservers
from tests.support.meshservers import ASGI, HOOKS, SERVERS, Server, exchange, gunicorn


def finish(server: Server, during: Callable[[], object] = lambda: None) -> tuple[bytes, list[str]]:
    """SIGTERM while a request is in flight: its answer, and all events."""
    server.wait_for(f"announced {server.port}")
    with ThreadPoolExecutor(1) as pool, socket.create_connection(("127.0.0.1", server.port), 60) as connected:
        connected.settimeout(60)
        connected.sendall(b"GET /slow?seconds=1 HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n")
        server.wait_for("slow")
        pending = pool.submit(lambda: b"".join(iter(lambda: connected.recv(65536), b"")))
        server.terminate()
        during()
        received = pending.result()
    server.process.wait(60)
    return received, [event for _, event in server.events()]


STOPPING = [name for name in SERVERS if name != "werkzeug"]  # a development server: it just ends


@pytest.mark.parametrize("name", STOPPING)
def test_sigterm_lets_requests_finish(name: str, tmp_path: Path) -> None:
    with meshservers.running(SERVERS[name], tmp_path) as server:
        received, events = finish(server)
    assert received.endswith((b"at last", b"at last\r\n0\r\n\r\n"))
    assert events.count("withdrawn") == 1
    if name in ASGI:
        assert events[-1] == "application stopped"


SIGNALLED = ["uvicorn h11", "uvicorn httptools", "gunicorn uvicorn worker", "gunicorn sync", "gunicorn gthread"]


@pytest.mark.parametrize("name", SIGNALLED)
def test_it_leaves_the_mesh_before_it_stops_listening(name: str, tmp_path: Path) -> None:
    """Callers that have not heard of it yet are still served, and told to go elsewhere."""
    late: list[bytes] = []
    with meshservers.running(SERVERS[name], tmp_path, drain_seconds=3.0) as server:

        def call() -> None:
            server.wait_for("withdrawn")
            late.append(exchange(server.port, b"GET /echo HTTP/1.1\r\nhost: a.test\r\n\r\n"))

        finish(server, call)
    assert late[0].startswith(b"HTTP/1.1 200")
    assert b"connection: close" in late[0].lower()


def test_while_draining_connections_are_closed(tmp_path: Path) -> None:
    """Positive control first: without draining they are kept."""
    with meshservers.running(SERVERS["uvicorn httptools"], tmp_path) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        for target, expected in (("/echo", None), ("/drain", None), ("/echo", "close")):
            connection.request("GET", target)
            response = connection.getresponse()
            response.read()
            assert response.headers["connection"] == expected
        connection.close()


@pytest.mark.parametrize("preload", [[], ["--preload"]])
def test_every_gunicorn_worker_joins_by_itself(preload: list[str], tmp_path: Path) -> None:
    with meshservers.running(gunicorn("wsgi", "sync", *HOOKS, "-w", "2", *preload), tmp_path) as server:
        server.wait_for(f"announced {server.port}", 2)
        workers = {pid for pid, _ in server.events()}
        assert len(workers) == 2
        assert server.process.pid not in workers
        answer = exchange(server.port, b"GET /echo HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n")
        assert any(b'"pid": %d' % pid in answer for pid in workers)
        server.terminate()
        server.process.wait(60)
    assert sorted(pid for pid, event in server.events() if event == "withdrawn") == sorted(workers)
