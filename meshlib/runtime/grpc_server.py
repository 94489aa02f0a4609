"""The server's side of gRPC's TLS: certificates that follow the identity, and who a call comes from.

gRPC verifies that a client's chain leads to one of the mesh's roots, whichever, and hands the chain on with each call.  Whether
it is that of a workload of the root's own trust domain is looked at here, by the same rules as everywhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from meshlib.errors import ConfigError, NotReady
from meshlib.model.identity import Peer, TrustBundles
from meshlib.model.inbound import Connection
from meshlib.runtime.fork import forget_in_child
from meshlib.runtime.identity import pem
from meshlib.runtime.identity.material import Material
from meshlib.runtime.identity.source import IdentitySource
from meshlib.runtime.tls.contexts import TlsContexts
from meshlib.runtime.tls.verify import SKEW, CertificateRejected, anchored, verify_peer

if TYPE_CHECKING:
    import grpc

AuthContext = Mapping[str, Sequence[bytes]]

MAX_PEERS = 1024
"""Verified chains that are remembered."""

_LEAF = "x509_pem_cert"
_CHAIN = "x509_pem_cert_chain"  # what was sent with it


class GrpcServing:
    """One per Mesh and process.  Any thread."""

    def __init__(
        self, identity: IdentitySource | None, contexts: TlsContexts | None, *, wall: Callable[[], float] = time.time
    ) -> None:
        """Both None: this process has no identity.  `wall`: Unix seconds."""
        self._identity = identity
        self._contexts = contexts
        self._wall = wall
        self._lock = threading.Lock()
        self._trust: TrustBundles | None = None
        self._peers: dict[bytes, Peer] = {}
        forget_in_child(self)

    def credentials(self, timeout: float) -> grpc.ServerCredentials:
        """For a port that only workloads of the mesh can connect to, with the certificates of the moment for each of them.

        Blocks for at most `timeout` seconds until there is a first one.  Raises errors.ConfigError, errors.NotReady.
        """
        import grpc

        identity, contexts = self._identity, self._contexts
        if identity is None or contexts is None:
            raise ConfigError("a port with mTLS needs an identity: this process has none (insecure_dev); use add_insecure_port")
        if not identity.wait(timeout):
            raise NotReady(f"no certificate in {timeout} s: {identity.state}")
        shown: list[tuple[Material | None, TrustBundles]] = [(contexts.material, contexts.trust)]

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            """Called for each handshake; None: as before."""
            current = contexts.material, contexts.trust
            before = shown[0]
            if current[0] is before[0] and current[1] is before[1]:
                return None
            shown[0] = current
            return _configuration(*current)

        first = _configuration(*shown[0])
        if first is None:
            raise NotReady("no root certificate of any trust domain is known, so nobody could connect")
        return grpc.dynamic_ssl_server_credentials(first, fetch, require_client_authentication=True)

    def connection(self, auth: AuthContext, peer: str, port: int) -> Connection:
        """What is known of the connection that a call came by.

        `auth` and `peer` as a `grpc.ServicerContext` has them; `port`: what the server listens on.
        Raises CertificateRejected, which is an ssl.SSLError, for a client that has shown no SVID that is to be believed.
        """
        chain = b"".join((*auth.get(_LEAF, ()), *auth.get(_CHAIN, ())))
        names = auth.get("ssl_requested_server_name", ())
        return Connection(
            remote_address=_address(peer),
            local_port=port,
            tls=auth.get("transport_security_type", (b"",))[0] in (b"ssl", b"tls"),
            peer=self._peer(chain, self._contexts) if chain and self._contexts is not None else None,
            server_name=names[0].decode("ascii", "replace") if names else "",
        )

    def forget(self) -> None:
        """In a forked child."""
        self._lock = threading.Lock()

    def _peer(self, chain: bytes, contexts: TlsContexts) -> Peer:
        trust, now = contexts.trust, self._wall()
        with self._lock:
            if trust is not self._trust:
                self._trust, self._peers = trust, {}
            known, peers = self._peers.get(chain), self._peers
        if known is not None and now <= known.not_after + SKEW:
            return known
        try:
            sent = tuple(dict.fromkeys(pem.certificates(chain)))  # the leaf may be in both
        except ValueError as error:
            raise CertificateRejected.because("well-formed", str(error)) from error
        peer = verify_peer(anchored(sent, trust), trust, None, "client", now=now)
        with self._lock:
            if len(peers) >= MAX_PEERS:
                peers.clear()
            peers[chain] = peer
        return peer


def _configuration(material: Material | None, trust: TrustBundles) -> Any:
    """None: there is nothing to show, or nobody to trust."""
    import grpc

    roots = [root for domain in trust.roots.values() for root in domain]
    if material is None or not roots:
        return None
    return grpc.ssl_server_certificate_configuration([(material.key.pem(), material.chain_pem)], pem.encode(roots))


def _address(peer: str) -> str:
    """The IP address in ``ipv4:10.0.0.7:4711`` or ``ipv6:%5B::1%5D:4711``; empty for what has none (``unix:``)."""
    family, _, rest = peer.partition(":")
    if family not in ("ipv4", "ipv6"):
        return ""
    address = unquote(rest).rpartition(":")[0].strip("[]")
    return address.removeprefix("::ffff:") if "." in address else address
