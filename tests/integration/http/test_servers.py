"""The engine against real servers and proxies: the same contract with each, in all three forms."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from meshlib.runtime.http.settings import Timeouts
from tests.integration.http.clients import CLIENTS, Client, ClientFactory, Request
from tests.support import servers

KINDS = ["uvicorn-httptools", "uvicorn-h11", "hypercorn", "granian", "gunicorn-gthread", "gunicorn-sync", "nginx", "envoy"]
PATIENT = Timeouts(30, 30, 30, pool=30)


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    kind: str = request.param
    folder = tmp_path_factory.mktemp(kind)
    with serving(kind, folder) as port:
        yield kind, port


@contextlib.contextmanager
def serving(kind: str, folder: Path) -> Iterator[int]:
    commands: dict[str, Callable[[int], Sequence[str]]] = {
        "uvicorn-httptools": servers.uvicorn,
        "uvicorn-h11": partial(servers.uvicorn, http="h11"),
        "hypercorn": servers.hypercorn,
        "granian": servers.granian,
        "gunicorn-gthread": servers.gunicorn,
        "gunicorn-sync": partial(servers.gunicorn, worker="sync"),
    }
    if kind in commands:
        with servers.running(commands[kind], folder / "log") as port:
            yield port
        return
    proxy = {"nginx": servers.nginx, "envoy": servers.envoy}[kind]
    with (
        servers.running(servers.uvicorn, folder / "upstream.log") as upstream,
        servers.running(partial(proxy, upstream=upstream, folder=folder), folder / "log") as port,
    ):
        yield port


@pytest.fixture(params=list(CLIENTS))
def client(request: pytest.FixtureRequest, server: tuple[str, int]) -> Iterator[Client]:
    factory: ClientFactory = CLIENTS[request.param]
    with factory(server[1]) as made:
        yield made


def get(client: Client, target: str, method: str = "GET") -> tuple[int, bytes]:
    answer = client.request(Request(method, target, timeouts=PATIENT))
    assert answer.closes == [1]
    return answer.status, answer.body


def test_bodies_and_reuse(client: Client, server: tuple[str, int]) -> None:
    """Small and large, with a length and chunked, one after the other on one connection (gunicorn's sync worker has none)."""
    assert get(client, "/plain?size=0") == (200, b"")
    assert get(client, "/plain?size=1024") == (200, b"x" * 1024)
    assert get(client, "/plain?size=1024") == (200, b"x" * 1024)
    assert get(client, "/plain?size=3000000") == (200, b"x" * 3_000_000)
    assert get(client, "/chunks?count=3&size=5") == (200, b"aaaaabbbbbccccc")
    assert len(get(client, "/chunks?count=40&size=50000")[1]) == 2_000_000
    assert client.limits.pending == 0
    if server[0] != "gunicorn-sync":
        assert client.limits.connections == 1


def test_responses_without_a_body(client: Client) -> None:
    assert get(client, "/plain?size=9", "HEAD") == (200, b"")
    assert get(client, "/status?code=204") == (204, b"")
    assert get(client, "/status?code=304") == (304, b"")
    assert get(client, "/plain?size=3") == (200, b"xxx")


@pytest.mark.parametrize("size", [0, 10, 40_000, 2_000_000])
def test_request_bodies(client: Client, size: int) -> None:
    """As bytes, as pieces of unknown number (chunked), and as pieces with an announced length."""
    body = b"y" * size
    pieces = [body[start : start + 30_000] for start in range(0, size, 30_000)]
    length = ((b"content-length", b"%d" % size),)
    for request in (
        Request("POST", "/echo", body=body, timeouts=PATIENT),
        Request("POST", "/echo", body=pieces, timeouts=PATIENT),
        Request("POST", "/echo", body=pieces, headers=length, timeouts=PATIENT),
    ):
        answer = client.request(request)
        assert (answer.status, answer.body) == (200, body)


def test_expect_continue(client: Client) -> None:
    """The body follows the server's 100, or our patience's end; the answer is the same."""
    answer = client.request(
        Request("POST", "/count", body=b"z" * 50_000, headers=((b"expect", b"100-continue"),), timeouts=PATIENT)
    )
    assert (answer.status, answer.body) == (200, b"50000")


def test_an_early_answer_ends_the_upload(client: Client, server: tuple[str, int]) -> None:
    """The server says 413 before it read the body: that is what the caller gets."""
    if server[0] not in ("uvicorn-httptools", "uvicorn-h11"):
        pytest.skip("closes with unread input: the kernel's reset may overtake the answer, and any client may lose it")
    answer = client.request(Request("POST", "/refuse", body=[b"z" * 65536] * 64, timeouts=PATIENT))
    assert (answer.status, answer.body) == (413, b"too large")
    assert get(client, "/plain?size=3") == (200, b"xxx")


def test_headers_arrive_as_they_were_sent(client: Client) -> None:
    headers = ((b"X-Mesh-Test", b'a, b; c="d"'), (b"accept", b"*/*"))
    lines = client.request(Request(target="/headers", headers=headers, timeouts=PATIENT)).body.lower().splitlines()
    assert b'x-mesh-test: a, b; c="d"' in lines
    assert b"host: test" in lines
