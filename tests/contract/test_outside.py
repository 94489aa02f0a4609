"""A host that is not part of the mesh goes to the client's own transport, with all that its user gave to that."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest

from meshlib import Mesh
from meshlib.testing import service, static_mesh
from meshlib_integrations.httpx import AsyncMeshTransport, MeshTransport
from meshlib_integrations.httpx2 import AsyncMeshTransport as AsyncMeshTransport2
from meshlib_integrations.httpx2 import MeshTransport as MeshTransport2
from tests.support import backends, servers
from tests.support.callers import Ask, AsyncHttpx, Caller, Httpx, Requests
from tests.support.certificates import Authority

Make = Callable[[Mesh], Caller]
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
TRUST = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, *map(str.upper, PROXIES), *TRUST):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def https_port(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    certificate, key = authority.issue("localhost")
    extra = ["--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)]
    log = tmp_path_factory.mktemp("https") / "log"
    command = lambda port: [*servers.uvicorn(port, app="tests.support.scenarios:app"), *extra]  # noqa: E731
    with servers.running(command, log) as port:
        yield port


def trusting(file: Path, kind: str, mesh: Mesh) -> Caller:
    """A caller whose own transport trusts the authority in `file`."""
    context = ssl.create_default_context(cafile=str(file))
    makers: Mapping[str, Callable[[], Caller]] = {
        "httpx": lambda: Httpx(httpx, MeshTransport(mesh, outside=httpx.HTTPTransport(verify=context))),
        "httpx async": lambda: AsyncHttpx(
            httpx, mesh, AsyncMeshTransport(mesh, outside=httpx.AsyncHTTPTransport(verify=context))
        ),
        "httpx2": lambda: Httpx(httpx2, MeshTransport2(mesh, outside=httpx2.HTTPTransport(verify=context))),
        "httpx2 async": lambda: AsyncHttpx(
            httpx2, mesh, AsyncMeshTransport2(mesh, outside=httpx2.AsyncHTTPTransport(verify=context))
        ),
        "requests": lambda: Requests(mesh, verify=str(file)),
    }
    return makers[kind]()


def test_plain_http_goes_out_by_itself(client: Make, upstream: int) -> None:
    caller = client(static_mesh(service("reviews", ["127.0.0.1:1"])))
    reply = caller.send(Ask(f"http://127.0.0.1:{upstream}/echo?q=1", "POST", content=b"abc"))
    assert reply.record is None
    arrived = json.loads(reply.content)
    assert (arrived["method"], arrived["target"], arrived["length"]) == ("POST", "/echo?q=1", 3)


def test_a_stream_goes_out_by_itself(client: Make, upstream: int) -> None:
    """The mesh looks at no body of a call that it does not make."""
    caller = client(static_mesh())
    reply = caller.send(Ask(f"http://127.0.0.1:{upstream}/echo", "POST", content=[b"ab", b"c"]))
    assert json.loads(reply.content)["length"] == 3


@pytest.mark.parametrize("kind", ["httpx", "httpx async", "httpx2", "httpx2 async", "requests"])
def test_https_with_the_callers_own_trust(kind: str, authority: Authority, https_port: int) -> None:
    with static_mesh() as mesh:
        caller = trusting(authority.file, kind, mesh)
        try:
            reply = caller.send(Ask(f"https://localhost:{https_port}/plain?size=5"))
        finally:
            caller.close()
    assert (reply.content, reply.record) == (b"xxxxx", None)


def test_https_without_that_trust_is_refused(client: Make, https_port: int) -> None:
    caller = client(static_mesh())
    with pytest.raises(caller.errors["connect"], match="certificate verify failed"):
        caller.send(Ask(f"https://localhost:{https_port}/plain?size=5"))


@pytest.mark.parametrize("bypass", ["", "outside.test"])
def test_the_environments_proxy_is_used(client: Make, monkeypatch: pytest.MonkeyPatch, bypass: str) -> None:
    """As by a bare client: for what is outside, unless NO_PROXY names it."""
    with backends.running(["the proxy"]) as running:
        proxy = running["the proxy"]
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", bypass)
        caller = client(static_mesh())
        if bypass:
            with pytest.raises(caller.errors["any"]):
                caller.send(Ask("http://outside.test/x"))
            assert proxy.requests == []
        else:
            assert caller.send(Ask("http://outside.test/x")).content == b"the proxy"
            assert [path for _, path, _ in proxy.requests] == ["http://outside.test/x"]


def test_the_mesh_goes_by_no_proxy(client: Make, monkeypatch: pytest.MonkeyPatch, upstream: int) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{servers.free_port()}")
    caller = client(static_mesh(service("reviews", [f"127.0.0.1:{upstream}"])))
    assert caller.send(Ask("http://reviews/plain?size=1")).content == b"x"


@pytest.mark.parametrize("transport", [MeshTransport, MeshTransport2])
def test_the_callers_transport_is_closed_with_ours(transport: Any) -> None:
    class Closing:
        closed = 0

        def handle_request(self, request: object) -> object:
            raise AssertionError("nothing is sent here")

        def close(self) -> None:
            self.closed += 1

    outside = Closing()
    transport(static_mesh(), outside=outside).close()
    assert outside.closed == 1
