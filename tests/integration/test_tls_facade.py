"""The facades in the hands of others: HTTP clients that know nothing of the mesh, servers that wrap their listening socket."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from datetime import timedelta
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import aiohttp
import httpx
import pytest
import requests
from requests.adapters import HTTPAdapter

from meshlib.model.cluster import UpstreamTls
from meshlib.model.endpoint import Endpoint
from meshlib.model.identity import TrustBundles
from meshlib.runtime.http.connector import MAX_AGE, TlsConnector
from meshlib.runtime.identity.static import StaticIdentity
from meshlib.runtime.tls.contexts import TlsContexts
from meshlib.runtime.tls.objects import peer_of
from tests.support.certificates import Minted, TrustDomain
from tests.support.tls import careless, contexts, echo_server, material, member, ping
from tests.support.tls_origin import Origin

DOMAIN = TrustDomain()


def facade(*, right: bool) -> ssl.SSLContext:
    identity = DOMAIN.id("server" if right else "ratings")
    return member(DOMAIN, "us").client(UpstreamTls(identities=frozenset({identity})))


@pytest.mark.parametrize("right", [True, False])
async def test_I01_httpx(*, right: bool) -> None:
    """Keep-alive and all; who is refused is a ConnectError."""
    with Origin(member(DOMAIN, "server").server()) as origin:
        url = f"https://127.0.0.1:{origin.port}/"
        async with httpx.AsyncClient(verify=facade(right=right), trust_env=False) as client:
            if right:
                assert [(await client.get(url)).text for _ in range(2)] == [DOMAIN.id("us")] * 2
                assert len(origin.peers) == 1
            else:
                with pytest.raises(httpx.ConnectError, match="secure naming"):
                    await client.get(url)

        def blocking() -> str:
            with httpx.Client(verify=facade(right=right), trust_env=False) as client:
                return client.get(url).text

        if right:
            assert await asyncio.to_thread(blocking) == DOMAIN.id("us")
        else:
            with pytest.raises(httpx.ConnectError, match="secure naming"):
                await asyncio.to_thread(blocking)
        assert origin.requests == (3 if right else 0)


class _Adapter(HTTPAdapter):
    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, assert_hostname=False, **options)


@pytest.mark.parametrize("right", [True, False])
def test_I01_requests(*, right: bool) -> None:
    with Origin(member(DOMAIN, "server").server()) as origin, requests.Session() as session:
        session.mount("https://", _Adapter(facade(right=right)))
        session.trust_env = False
        url = f"https://127.0.0.1:{origin.port}/"
        if right:
            assert session.get(url, timeout=30).text == DOMAIN.id("us")
        else:
            with pytest.raises(requests.exceptions.SSLError, match="secure naming"):
                session.get(url, timeout=30)


@pytest.mark.parametrize("right", [True, False])
async def test_I01_aiohttp(*, right: bool) -> None:
    with Origin(member(DOMAIN, "server").server()) as origin:
        async with aiohttp.ClientSession() as session:
            call = session.get(f"https://127.0.0.1:{origin.port}/", ssl=facade(right=right))
            if right:
                async with call as response:
                    assert await response.text() == DOMAIN.id("us")
            else:
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await call
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("handshake", ["in accept", "by the first read"])
def test_a_listening_socket_that_is_wrapped_follows_changes(handshake: str, tmp_path: Path) -> None:
    """As werkzeug and gunicorn do it: what is accepted has the certificate and the trust of the moment, and is verified."""
    identity = StaticIdentity(material(DOMAIN.leaf("server"), DOMAIN.bundle))
    them = TlsContexts(identity)
    peers: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as plain:
        address = plain.getsockname()[:2]
        on_connect = handshake == "in accept"
        listening = them.server().wrap_socket(plain, server_side=True, do_handshake_on_connect=on_connect)
        stopping = threading.Event()

        def serve() -> None:
            while not stopping.is_set():
                try:
                    connected, _ = listening.accept()
                except OSError:
                    continue
                with connected:
                    try:
                        connected.sendall(connected.recv(100))
                        peers.append(peer_of(connected))
                    except OSError:
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        client = careless(DOMAIN.leaf("us"), tmp_path, server=False)
        assert ping(client, address[1]) == b"ping"
        new = DOMAIN.leaf("server")
        identity.set(material(new, DOMAIN.bundle))
        with socket.create_connection(address, 10) as connected, client.wrap_socket(connected) as tls:
            assert tls.getpeercert(binary_form=True) == new.der
            tls.sendall(b"ping")
            assert tls.recv(100) == b"ping"
        them.set_trust(TrustDomain("elsewhere").bundle)
        assert refused(client, address[1])
        stopping.set()
        socket.create_connection(address).close()
        thread.join()
        listening.close()
    assert [str(peer) for peer in peers] == [DOMAIN.id("us")] * 2


def refused(client: ssl.SSLContext, port: int) -> bool:
    """By an alert, a reset or an end."""
    try:
        return ping(client, port) == b""
    except OSError:
        return True


def test_a_connection_is_used_for_an_hour_give_or_take_a_tenth() -> None:
    """Or until the first of the two certificates ends."""
    us = member(DOMAIN, "us")
    long = TrustDomain()
    patient = contexts(*_long_lived(long, "us"))
    with echo_server(contexts(*_long_lived(long, "server")).server()) as port:
        ages = []
        for seed in range(20):
            connector = TlsConnector(patient, UpstreamTls(), Random(seed))
            stream = connector.open(Endpoint("127.0.0.1", port), 30)
            ends, generation = connector.lifetime(stream)
            ages.append(ends - monotonic())
            assert generation == patient.generation
            stream.close()
    assert MAX_AGE * 0.9 - 1 < min(ages) < MAX_AGE * 0.95
    assert MAX_AGE * 1.05 < max(ages) <= MAX_AGE * 1.1
    with echo_server(member(DOMAIN, "server").server()) as port:  # these end within the hour
        connector = TlsConnector(us, UpstreamTls(), Random(7))
        stream = connector.open(Endpoint("127.0.0.1", port), 30)
        assert connector.lifetime(stream).ends - monotonic() <= 3600
        stream.close()


def _long_lived(domain: TrustDomain, account: str) -> tuple[Minted, TrustBundles]:
    return domain.leaf(account, ends=timedelta(days=1)), domain.bundle


def test_rotation_leaves_no_descriptor_behind() -> None:
    """Keys go to OpenSSL through files without a name, which must not pile up."""
    identity = StaticIdentity(material(DOMAIN.leaf("us"), DOMAIN.bundle))
    us = TlsContexts(identity)
    side = us.upstream(UpstreamTls())
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        identity.set(material(DOMAIN.leaf("us"), DOMAIN.bundle))
        side.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
