"""Calls through a Mesh over mTLS: what the caller sees when trust fails, and what is repeated elsewhere."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest

from meshlib import Mesh, errors
from meshlib.model.cluster import UpstreamTls
from meshlib.model.identity import TrustBundles
from meshlib.runtime.identity.static import StaticIdentity
from meshlib.runtime.tls.blocking import TlsStream
from meshlib.runtime.tls.contexts import MeshSide, TlsContexts
from meshlib.testing import StaticControl, service, snapshot
from meshlib_integrations.httpx import AsyncMeshTransport, MeshTransport
from tests.support.certificates import TrustDomain
from tests.support.tls import contexts, material, member
from tests.support.tls_origin import Origin

DOMAIN = TrustDomain()
TLS = UpstreamTls(identities=frozenset({DOMAIN.id("server")}))


def mesh_to(*ports: int, identity: bool = True) -> Mesh:
    target = service("server", [f"127.0.0.1:{port}" for port in ports], tls=TLS)
    control = StaticControl(snapshot(target))
    return Mesh(control=control, identity=StaticIdentity(material(DOMAIN.leaf("us"), DOMAIN.bundle)) if identity else None)


@contextmanager
def refusing_servers(them: TlsContexts) -> Iterator[tuple[int, list[str]]]:
    """Shakes hands with everybody in the way that `them` would; the port, and how each handshake went."""
    handshakes: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stopping = threading.Event()

        def one(connected: socket.socket) -> None:
            connected.settimeout(30)
            with connected:
                try:
                    TlsStream(MeshSide(them), connected).shake_hands(30)
                    handshakes.append("accepted")
                except OSError as error:
                    handshakes.append(type(error).__name__)
                    try:
                        while connected.recv(65536):
                            pass
                    except OSError:
                        pass

        def serve() -> None:
            while not stopping.is_set():
                connected, _ = listening.accept()
                one(connected)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1], handshakes
        finally:
            stopping.set()
            socket.create_connection(listening.getsockname()[:2]).close()
            thread.join()


async def test_the_wrong_workload_is_an_error_of_its_own() -> None:
    """A `ConnectFailed` for all who catch that, with the rule in its text."""
    with Origin(member(DOMAIN, "other").server()) as origin, mesh_to(origin.port) as mesh:
        with pytest.raises(errors.TlsFailed, match="secure naming") as caught:
            mesh.request("POST", "http://server/", content=b"x")
        with pytest.raises(errors.TlsFailed):
            await mesh.arequest("POST", "http://server/", content=b"x")
        assert isinstance(caught.value, errors.ConnectFailed)
        assert set(caught.value.flags) <= {"UF", "URX"}
        assert origin.requests == 0
        await mesh.aclose_loop()


async def test_clients_of_httpx_see_a_connect_error() -> None:
    with Origin(member(DOMAIN, "other").server()) as origin, mesh_to(origin.port) as mesh:
        with httpx.Client(transport=MeshTransport(mesh)) as client, pytest.raises(httpx.ConnectError, match="secure naming"):
            await asyncio.to_thread(client.get, "http://server/")
        async with httpx.AsyncClient(transport=AsyncMeshTransport(mesh)) as aclient:
            with pytest.raises(httpx.ConnectError, match="secure naming"):
                await aclient.get("http://server/")
        await mesh.aclose_loop()


@pytest.mark.parametrize("how", ["blocking", "asyncio"])
async def test_a_post_goes_to_another_endpoint_when_the_first_one_refused_us(how: str) -> None:
    """It was never authorised there, so it was not processed."""
    stranger = contexts(DOMAIN.leaf("server"), TrustDomain("elsewhere").bundle)
    with refusing_servers(stranger) as (refusing, handshakes), Origin(member(DOMAIN, "server").server()) as origin:
        with mesh_to(refusing, origin.port) as mesh:
            for _ in range(20):
                if how == "blocking":
                    response = mesh.request("POST", "http://server/", content=b"x")
                else:
                    response = await mesh.arequest("POST", "http://server/", content=b"x")
                assert response.status_code == 200
            assert origin.requests == 20
            await mesh.aclose_loop()
        assert handshakes
        assert "accepted" not in handshakes


async def test_I07_a_mesh_without_an_identity_sends_nothing() -> None:
    with Origin(None) as origin, mesh_to(origin.port, identity=False) as mesh:
        with pytest.raises(errors.TlsFailed, match="without an identity"):
            mesh.request("GET", "http://server/")
        with pytest.raises(errors.TlsFailed, match="without an identity"):
            await mesh.arequest("GET", "http://server/")
        assert origin.peers == []


async def test_trust_of_the_snapshot_replaces_that_of_the_certificate() -> None:
    with Origin(member(DOMAIN, "server").server()) as origin:
        control = StaticControl(snapshot(service("server", [f"127.0.0.1:{origin.port}"], tls=TLS)))
        identity = StaticIdentity(material(DOMAIN.leaf("us"), TrustBundles()))
        with Mesh(control=control, identity=identity) as mesh:
            with pytest.raises(errors.TlsFailed, match="no root"):
                mesh.request("GET", "http://server/")
            control.publish(replace(control.current, trust=DOMAIN.bundle))
            assert mesh.request("GET", "http://server/").text == DOMAIN.id("us")
