"""Every rule of X.509-SVIDs, by live handshakes: our client and our server, each on asyncio, uvloop and blocking sockets.

The numbers are those of the independent SPIFFE conformance catalogue: XV-1 to XV-4 must be accepted, XV-5 to XV-15 refused, for
both roles; XF-2: the root of one trust domain must not vouch for another.  I02, I04 and I09 are attack cases.  The other end
presents what it is told to and checks nothing.  A refusal is seen by the protocol: the application's bytes do not come back.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import uvloop
from cryptography import x509

from meshlib.model.cluster import UpstreamTls
from meshlib.model.endpoint import Endpoint
from meshlib.runtime.http.connector import AsyncTlsConnector
from meshlib.runtime.tls.aio import TlsTransport
from meshlib.runtime.tls.contexts import MeshSide, TlsContexts
from meshlib.runtime.tls.objects import peer_of
from tests.support.certificates import CLIENT, SERVER, Minted, TrustDomain, bundles, mint
from tests.support.tls import PING, aping, async_echo, careless, contexts, echo_server, ping

Run = Callable[[Coroutine[Any, Any, bytes]], bytes]

OURS = TrustDomain("td1")
THEIRS = TrustDomain("td2")
STRANGER = TrustDomain("td1")  # the same name, another root
TRUST = bundles(OURS, THEIRS)
SERVICE = OURS.id("reviews")


def leaf(**changes: Any) -> Callable[[], Minted]:
    """Good in everything but `changes`."""
    arguments: dict[str, Any] = {"issuer": OURS.signer, "uris": [SERVICE]} | changes
    return partial(mint, **arguments)


def utf8_other_name(text: bytes) -> x509.OtherName:
    """A user principal name, as CVE-2025-66220 had it."""
    return x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c" + bytes([len(text)]) + text)


def below_a_workload() -> Minted:
    """Signed by a CA whose own identity is a workload's."""
    signer = mint(OURS.root, uris=["spiffe://td1/ns/default/sa/signer"], ca=True, name="signer")
    return mint(signer, uris=[SERVICE])


def below_a_leaf() -> Minted:
    """Signed by a workload with its own key."""
    return mint(OURS.leaf("signer"), uris=[SERVICE])


GOOD: dict[str, Callable[[], Minted]] = {
    "XV-1 signed by the root": leaf(issuer=OURS.root),
    "XV-2 signed by an intermediate": leaf(),
    "XV-3 DNS names beside the URI": leaf(dns=["reviews.default.td1", "reviews"]),
    "XV-4 no extended key usage": leaf(extended=None),
    "a federated domain's": lambda: THEIRS.leaf("reviews"),
    "more key usages": leaf(usages=["digital_signature", "key_agreement", "key_encipherment"]),
}

BAD: dict[str, Callable[[], Minted]] = {
    "XV-5 untrusted CA": lambda: STRANGER.leaf("reviews"),
    "XV-6 expired": leaf(begins=timedelta(hours=-2), ends=timedelta(hours=-1)),
    "XV-7 not yet valid": leaf(begins=timedelta(hours=1), ends=timedelta(hours=2)),
    "XV-8 leaf with cA": leaf(ca=True, usages=["digital_signature"]),
    "XV-9 leaf with keyCertSign": leaf(usages=["digital_signature", "key_cert_sign"]),
    "XV-10 leaf with cRLSign": leaf(usages=["digital_signature", "crl_sign"]),
    "XV-11 two URI SANs": leaf(uris=[SERVICE, OURS.id("ratings")]),
    "XV-11 the same URI SAN twice": leaf(uris=[SERVICE, SERVICE]),
    "XV-12 no URI SAN": leaf(uris=[], dns=["reviews.default.td1"]),
    "XV-12 no SAN": leaf(uris=[], name="spiffe://td1/ns/default/sa/reviews"),
    "XV-13 not a SPIFFE URI": leaf(uris=["https://td1/ns/default/sa/reviews"]),
    "XV-14 no path": leaf(uris=["spiffe://td1"]),
    "XV-15 foreign trust domain": leaf(uris=["spiffe://td3/ns/default/sa/reviews"]),
    "XF-2 another trusted domain's root": leaf(uris=[THEIRS.id("reviews")]),
    "I02 NUL in the URI": leaf(uris=["spiffe://td1/ns/default/sa/reviews\0.evil"]),
    "I02 NUL in a DNS name": leaf(dns=["a.test\0.evil"]),
    "I02 NUL in another name": leaf(sans=[utf8_other_name(b"a\0.evil")]),
    "I04 only for servers": leaf(extended=[SERVER]),
    "I04 only for clients": leaf(extended=[CLIENT]),
    "no digitalSignature": leaf(usages=["key_agreement"]),
    "no key usage": leaf(usages=[]),
    "key usage not critical": leaf(usage_critical=False),
    "signer with a path": below_a_workload,
    "signer that is none": below_a_leaf,
    "path: trailing slash": leaf(uris=[f"{SERVICE}/"]),
    "path: only a slash": leaf(uris=["spiffe://td1/"]),
    "path: empty segment": leaf(uris=["spiffe://td1/ns//sa/reviews"]),
    "path: dot segments": leaf(uris=["spiffe://td1/ns/default/sa/x/../reviews"]),
    "path: percent encoding": leaf(uris=["spiffe://td1/ns/default/sa/reviews%2F"]),
    "path: query": leaf(uris=[f"{SERVICE}?x=y"]),
    "path: fragment": leaf(uris=[f"{SERVICE}#x"]),
    "trust domain: port": leaf(uris=["spiffe://td1:80/ns/default/sa/reviews"]),
    "trust domain: user": leaf(uris=["spiffe://x@td1/ns/default/sa/reviews"]),
    "trust domain: capitals": leaf(uris=["spiffe://TD1/ns/default/sa/reviews"]),
    "scheme: capitals": leaf(uris=["SPIFFE://td1/ns/default/sa/reviews"]),
    "too long": leaf(uris=[f"spiffe://td1/{'a' * 2048}"]),
}

RUNNERS: dict[str, Run] = {"asyncio": asyncio.run, "uvloop": uvloop.run}


@pytest.fixture
def us() -> TlsContexts:
    return contexts(OURS.leaf("us"), TRUST)


# --- our client, their server


class Collector(asyncio.Protocol):
    """Sends PING, and keeps what comes back."""

    def __init__(self) -> None:
        self.got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        assert isinstance(transport, asyncio.Transport)
        transport.write(PING)

    def data_received(self, data: bytes) -> None:
        self.got.set_result(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.got.done():
            self.got.set_result(b"")


async def _by_engine(us: TlsContexts, port: int) -> bytes:
    protocol = await AsyncTlsConnector(us, UpstreamTls(), Random(1)).open(Endpoint("127.0.0.1", port), Collector)
    got = await protocol.got
    protocol.transport.abort()  # type: ignore[attr-defined]
    await asyncio.sleep(0)
    return got


def call(us: TlsContexts, kind: str, port: int) -> bytes:
    """With the contexts of `us`: the engine's own transport, the loop's, or a blocking socket."""
    loop, _, how = kind.partition(" ")
    if loop == "blocking":
        return ping(us.client(UpstreamTls()), port)
    run = RUNNERS[loop]
    return run(_by_engine(us, port)) if how else run(aping(us.client(UpstreamTls()), port))


CLIENTS = ["asyncio", "uvloop", "blocking", "asyncio engine", "uvloop engine"]


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("name", GOOD)
def test_client_accepts(name: str, kind: str, us: TlsContexts, tmp_path: Path) -> None:
    with echo_server(careless(GOOD[name](), tmp_path, server=True)) as port:
        assert call(us, kind, port) == PING


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("name", BAD)
def test_client_refuses(name: str, kind: str, us: TlsContexts, tmp_path: Path) -> None:
    """Inside the handshake, with an error that says so."""
    with echo_server(careless(BAD[name](), tmp_path, server=True)) as port, pytest.raises(ssl.SSLCertVerificationError):
        call(us, kind, port)


@pytest.mark.parametrize("kind", ["asyncio", "uvloop", "blocking"])
def test_I09_secure_naming(kind: str, us: TlsContexts, tmp_path: Path) -> None:
    """A service whose endpoint turns out to be another workload is not called; the expected one is."""
    with echo_server(careless(OURS.leaf("reviews"), tmp_path, server=True)) as port:
        for expected, accepted in ((OURS.id("reviews"), True), (OURS.id("ratings"), False)):
            context = us.client(UpstreamTls(identities=frozenset({expected})))
            send = partial(ping, context, port) if kind == "blocking" else partial(RUNNERS[kind], aping(context, port))
            if accepted:
                assert send() == PING
            else:
                with pytest.raises(ssl.SSLCertVerificationError, match="secure naming"):
                    send()


# --- our server, their client


async def _our_server(us: TlsContexts, how: str, client: Callable[[int], bytes]) -> bytes:
    if how == "engine":
        loop = asyncio.get_running_loop()
        side = MeshSide(us)
        server = await loop.create_server(lambda: TlsTransport(side, Echo(), lambda error: None), "127.0.0.1", 0)
    else:
        server = await asyncio.start_server(async_echo, "127.0.0.1", 0, ssl=us.server())
    try:
        return await asyncio.to_thread(client, server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)


class Echo(asyncio.Protocol):
    """Only for peers that are known."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        assert peer_of(transport.get_extra_info("ssl_object")) is not None
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def serve(us: TlsContexts, kind: str, client: Callable[[int], bytes]) -> bytes:
    loop, _, how = kind.partition(" ")
    if loop == "blocking":
        with echo_server(us.server()) as port:
            return client(port)
    return RUNNERS[loop](_our_server(us, how, client))


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("name", GOOD)
def test_server_accepts(name: str, kind: str, us: TlsContexts, tmp_path: Path) -> None:
    assert serve(us, kind, partial(ping, careless(GOOD[name](), tmp_path, server=False))) == PING


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("name", [*BAD, "no certificate"])
def test_server_refuses(name: str, kind: str, us: TlsContexts, tmp_path: Path) -> None:
    """The application's bytes are not answered, and by our own server the application is never asked."""
    context = careless(BAD[name]() if name in BAD else None, tmp_path, server=False)

    def client(port: int) -> bytes:
        try:
            return ping(context, port)
        except OSError:
            return b""

    assert serve(us, kind, client) == b""
