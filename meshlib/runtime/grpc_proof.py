"""Who is behind an endpoint, found out before gRPC connects to it, and how gRPC is held to that.

gRPC verifies a chain and one DNS name, and lets nobody else look: of the certificates that SPIFFE says must be refused it
accepts most, and it knows nothing of several allowed identities.  So a connection of our own comes first, whose handshake
verifies the peer by all rules.  gRPC is then given that one certificate as its only root: whoever answers it must have the
private key of the very certificate that was verified, and as that is no CA, it can vouch for no other.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from meshlib.model.cluster import UpstreamTls
from meshlib.model.endpoint import Endpoint
from meshlib.runtime.http.connector import AsyncTlsConnector, Lifetime, TlsConnector
from meshlib.runtime.http.failures import connect_failure
from meshlib.runtime.identity import pem
from meshlib.runtime.identity.material import Material
from meshlib.runtime.tls.blocking import TlsStream
from meshlib.runtime.tls.contexts import MeshSide, TlsContexts
from meshlib.runtime.tls.objects import Checked, sent_chain
from meshlib.runtime.tls.side import Side
from meshlib.wire.errors import TlsFailed

if TYPE_CHECKING:
    import grpc

_ALPN = ("h2",)


class Proof(NamedTuple):
    """A certificate that was verified, and until when it is relied on."""

    certificate: bytes  # DER
    name: str  # a DNS name in it, for gRPC to compare
    lifetime: Lifetime
    at: float  # monotonic seconds

    def credentials(self, material: Material) -> grpc.ChannelCredentials:
        """For a channel to whoever has this certificate, and nobody else."""
        import grpc

        return grpc.ssl_channel_credentials(pem.encode((self.certificate,)), material.key.pem(), material.chain_pem)


class Prover:
    """Looks who is there.  `timeout` in seconds; raises wire.errors.WireError."""

    def __init__(self, contexts: TlsContexts, rng: Random) -> None:
        self._contexts = contexts
        self._rng = rng

    def prove(self, endpoint: Endpoint, tls: UpstreamTls, timeout: float) -> Proof:
        """Blocks."""
        try:
            connector = _Connector(self._contexts, tls, self._rng)
            stream = connector.open(endpoint, timeout)
        except OSError as error:
            raise _failure(endpoint, error) from error
        try:
            assert isinstance(stream, TlsStream)
            return _proof(endpoint, stream.tls, connector.lifetime(stream))
        finally:
            stream.close()

    async def aprove(self, endpoint: Endpoint, tls: UpstreamTls, timeout: float) -> Proof:
        """`prove` on the running loop."""
        try:
            connector = _AsyncConnector(self._contexts, tls, self._rng)
            async with asyncio.timeout(timeout):
                connected = await connector.open(endpoint, _Connected)
        except OSError as error:
            raise _failure(endpoint, error) from error
        try:
            return _proof(endpoint, connected.transport.get_extra_info("ssl_object"), connector.lifetime(connected.transport))
        finally:
            connected.transport.close()


class _Connector(TlsConnector):
    """Says that it wants to speak HTTP/2."""

    def __init__(self, contexts: TlsContexts, tls: UpstreamTls, rng: Random) -> None:
        super().__init__(contexts, tls, rng)
        self._side = _side(contexts, tls)


class _AsyncConnector(AsyncTlsConnector):
    def __init__(self, contexts: TlsContexts, tls: UpstreamTls, rng: Random) -> None:
        super().__init__(contexts, tls, rng)
        self._side = _side(contexts, tls)


class _Connected(asyncio.Protocol):
    """Says nothing; what is said to it, a server's settings, is of no interest."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport


def _side(contexts: TlsContexts, tls: UpstreamTls) -> Side:
    # No name is asked for: gRPC's servers complain about any that is not in their certificate.
    side: Side = MeshSide(contexts, tls=replace(tls, sni=""))
    side.alpn = _ALPN
    return side


def _proof(endpoint: Endpoint, tls: Checked, lifetime: Lifetime) -> Proof:
    peer = tls.peer
    assert peer is not None  # the handshake would have failed
    if not peer.dns_names:
        raise TlsFailed(f"{endpoint} is {peer.id}, whose certificate has no DNS name: gRPC cannot connect to it")
    return Proof(sent_chain(tls)[0], peer.dns_names[0], lifetime, monotonic())


def _failure(endpoint: Endpoint, error: OSError) -> Exception:
    return connect_failure(endpoint, error, "connect") or error
