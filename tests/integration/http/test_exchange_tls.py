"""The exchanges of `test_exchange` over the mesh's mTLS: the same peers, misbehaving in the same ways behind TLS."""

from __future__ import annotations

import socket
import time
from random import Random

import pytest
import uvloop

from meshlib.model.cluster import UpstreamTls
from meshlib.runtime.http.connector import AsyncTlsConnector, TlsConnector
from meshlib.runtime.http.settings import Timeouts
from tests.integration.http.clients import AsyncClient, BlockingClient, ClientFactory, Request
from tests.integration.http.test_exchange import *  # noqa: F403  # the tests themselves
from tests.support.certificates import TrustDomain
from tests.support.servers import ScriptedPeer, read_head
from tests.support.tls import TlsFront, member

for name in (
    "test_refused",  # there is always somebody to connect to here
    "test_a_blackhole_ends_with_the_shorter_connect_timeout",
    "test_a_deadline_during_the_connect_is_named",
    "connect",
):
    del globals()[name]

DOMAIN = TrustDomain()
US, THEM = member(DOMAIN, "client"), member(DOMAIN, "server")
TLS = UpstreamTls(identities=frozenset({DOMAIN.id("server")}))


class AsyncTlsClient(AsyncClient):
    def __init__(self, port: int, **settings: float) -> None:
        self._front = TlsFront(port, THEM.server())
        super().__init__(self._front.port, **settings)
        self._runner.run(self._over_tls())

    async def _over_tls(self) -> None:
        self.pool.connect_by(AsyncTlsConnector(US, TLS, Random(1)))

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self._front.close()


class UvloopTlsClient(AsyncTlsClient):
    loop_factory = uvloop.new_event_loop


class BlockingTlsClient(BlockingClient):
    def __init__(self, port: int, **settings: float) -> None:
        self._front = TlsFront(port, THEM.server())
        super().__init__(self._front.port, **settings)
        self.pool.connect_by(TlsConnector(US, TLS, Random(1)))

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self._front.close()

    def pool_state(self) -> str:
        time.sleep(0.1)  # what the peer has done has yet to come through
        return super().pool_state()


TLS_CLIENTS: dict[str, ClientFactory] = {"asyncio": AsyncTlsClient, "uvloop": UvloopTlsClient, "blocking": BlockingTlsClient}


@pytest.fixture(params=list(TLS_CLIENTS), name="connect")
def connect_over_tls(request: pytest.FixtureRequest) -> ClientFactory:
    return TLS_CLIENTS[request.param]


@pytest.mark.parametrize("whole", [False, True])
def test_large_bodies_come_through_both_ways(connect: ClientFactory, *, whole: bool) -> None:
    """Hundreds of records, more than any buffer holds, sent from one piece and from many."""
    size = 6_000_000
    sent = Random(1).randbytes(size)

    def script(connected: socket.socket, _number: int) -> None:
        for _ in range(2):
            head = read_head(connected)
            received = head.partition(b"\r\n\r\n")[2]
            while len(received) < size:
                received += connected.recv(1 << 20)
            connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (size, received))

    pieces = [sent[i : i + 70_000] for i in range(0, size, 70_000)]
    with ScriptedPeer(script) as peer, connect(peer.port) as client:
        for body in (sent, pieces):
            headers = ((b"content-length", b"%d" % size),)
            request = Request("POST", headers=headers, body=body, timeouts=Timeouts(30, 30, 30), whole=whole)
            assert client.request(request).body == sent
        assert peer.accepted == 1
