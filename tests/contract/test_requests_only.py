"""What requests has and the other clients have not, through the mesh."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Timeout

from meshlib import CallRecord, Mesh, Overrides, errors
from meshlib.testing import service, static_mesh
from meshlib_integrations.requests import MeshAdapter, MeshResponse
from tests.support import servers
from tests.support.scenarios import GREETING
from tests.support.servers import ScriptedPeer


@pytest.fixture
def mesh(upstream: int) -> Iterator[Mesh]:
    with static_mesh(service("reviews", [f"127.0.0.1:{upstream}"])) as mesh:
        yield mesh


@pytest.fixture
def session(mesh: Mesh) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.mount("http://", MeshAdapter(mesh))
        yield session


def arrived_length(response: requests.Response) -> int:
    length: int = response.json()["length"]
    return length


def test_responses_look_like_requests_own(session: requests.Session) -> None:
    response = session.get("http://reviews/plain?size=3")
    assert (response.ok, response.reason, response.text, response.encoding) == (True, "OK", "xxx", "ISO-8859-1")
    assert response.url == "http://reviews/plain?size=3"
    assert response.elapsed > timedelta(0)
    assert isinstance(response.raw, MeshResponse)
    assert isinstance(response.raw.meshlib, CallRecord)
    assert response.raw.version == 11


def test_forms_json_and_files_are_sent(session: requests.Session) -> None:
    assert arrived_length(session.post("http://reviews/echo", data={"a": "ü"})) == len("a=%C3%BC")
    assert arrived_length(session.post("http://reviews/echo", json={"a": 1})) == len('{"a": 1}')
    assert arrived_length(session.post("http://reviews/echo", data="ü")) == 2
    assert arrived_length(session.post("http://reviews/echo", files={"f": ("n", b"x" * 100_000)})) > 100_000


@pytest.mark.parametrize("buffer", [bytearray(b"abc"), memoryview(b"abc")])
def test_every_buffer_is_a_body(session: requests.Session, buffer: Any) -> None:
    """Bare requests takes them too, whatever its type hints say."""
    assert arrived_length(session.post("http://reviews/echo", data=buffer)) == 3


def test_files_are_streamed(session: requests.Session) -> None:
    assert arrived_length(session.put("http://reviews/echo", data=io.BytesIO(b"x" * 200_000))) == 200_000
    assert arrived_length(session.put("http://reviews/echo", data=io.StringIO("x" * 200_000))) == 200_000
    assert arrived_length(session.put("http://reviews/echo", data=(part for part in [b"a", b"b"]))) == 2


def test_a_file_goes_with_its_length(session: requests.Session) -> None:
    headers = dict(session.put("http://reviews/echo", data=io.BytesIO(b"abc")).json()["headers"])
    assert headers["content-length"] == "3"
    assert "transfer-encoding" not in headers


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_content_can_be_iterated(session: requests.Session, size: int) -> None:
    with session.get("http://reviews/gzip", stream=True) as response:
        pieces = list(response.iter_content(size))
    assert b"".join(pieces) == GREETING
    assert max(map(len, pieces)) <= size


@pytest.mark.parametrize("decode", [True, False])
def test_raw_can_be_read(session: requests.Session, decode: bool) -> None:
    with session.get("http://reviews/gzip", stream=True) as response:
        first = response.raw.read(10, decode_content=decode)
        rest = response.raw.read(decode_content=decode)
    assert (first + rest == GREETING) == decode
    assert len(first) == 10


def test_raw_is_a_file(session: requests.Session) -> None:
    with session.get("http://reviews/plain?size=100000", stream=True) as response:
        assert io.BufferedReader(response.raw).read() == b"x" * 100_000


def test_url_credentials_do_not_reach_the_host_header(session: requests.Session) -> None:
    headers = dict(session.get("http://u:p@reviews/echo").json()["headers"])
    assert headers["host"] == "reviews"
    assert headers["authorization"] == "Basic dTpw"


def test_overrides_belong_to_a_prefix(mesh: Mesh) -> None:
    with requests.Session() as session:
        session.mount("http://", MeshAdapter(mesh))
        session.mount("http://reviews/flaky", MeshAdapter(mesh, overrides=Overrides(retries=1, retry_on=frozenset({"5xx"}))))
        response = session.get("http://reviews/flaky?key=requests&fails=1")
    assert isinstance(response.raw, MeshResponse)
    assert response.raw.meshlib.attempts == 2


@pytest.mark.parametrize("timeout", [0.2, (None, 0.2), Timeout(read=0.2), Timeout(total=0.2)])
def test_every_form_of_timeout_counts(timeout: object) -> None:
    def silent(connected: socket.socket, number: int) -> None:
        servers.read_head(connected)
        servers.until_closed(connected)

    with ScriptedPeer(silent) as peer, requests.Session() as session:
        with static_mesh(service("reviews", [f"127.0.0.1:{peer.port}"])) as mesh:
            session.mount("http://", MeshAdapter(mesh))
            with pytest.raises(requests.ReadTimeout) as caught:
                session.get("http://reviews/", timeout=timeout)  # type: ignore[arg-type]  # the stubs know no urllib3 Timeout
        assert isinstance(caught.value, errors.TimeoutExceeded)
        assert caught.value.which == "read"


def test_a_wrong_timeout_is_named(session: requests.Session) -> None:
    with pytest.raises(ValueError, match=r"timeout \(1, 2, 3\) must be"):
        session.get("http://reviews/", timeout=(1, 2, 3))  # type: ignore[arg-type]  # which is the test


def test_the_callers_own_adapter_takes_what_is_outside(upstream: int) -> None:
    class Counting(HTTPAdapter):
        sent = closed = 0

        def send(self, *arguments: object, **options: object) -> requests.Response:
            self.sent += 1
            return super().send(*arguments, **options)  # type: ignore[arg-type]

        def close(self) -> None:
            self.closed += 1
            super().close()

    outside = Counting()
    with static_mesh() as mesh, requests.Session() as session:
        session.mount("http://", MeshAdapter(mesh, outside))
        response = session.get(f"http://127.0.0.1:{upstream}/plain?size=1")
        assert json.loads(session.get(f"http://127.0.0.1:{upstream}/echo").content)["method"] == "GET"
    assert response.content == b"x"
    assert (outside.sent, outside.closed) == (2, 1)
