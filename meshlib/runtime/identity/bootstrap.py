"""First contact with the certificate authority: is it the right one?  Asked before any credential leaves the process.

The root is known beforehand, by its file or by the SHA-256 of the certificate (DER); the CA's port presents its chain down to
the root, so that a hash is enough.  Nothing is ever trusted because it was there first.
"""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshlib.errors import ConfigError
from meshlib.model.identity import SpiffeId, TrustBundles
from meshlib.runtime.identity import pem
from meshlib.runtime.identity.errors import AuthorityNotTrusted, IssuingFailed
from meshlib.runtime.tls.objects import sent_chain
from meshlib.runtime.tls.verify import CertificateRejected, anchored, svid_of, verify_peer

CONTROL_NAMESPACE: Final = "meshlib-system"
CONTROL_ACCOUNT: Final = "meshlib-control"


def control_id(trust_domain: str) -> SpiffeId:
    """The identity of the control service, which its CA gives to nobody else."""
    return SpiffeId.of_workload(trust_domain, CONTROL_NAMESPACE, CONTROL_ACCOUNT)


def control_name(trust_domain: str) -> str:
    """The same as the DNS name in its certificate, which is what gRPC compares."""
    return f"{CONTROL_ACCOUNT}.{CONTROL_NAMESPACE}.{trust_domain}"


@dataclass(frozen=True, slots=True)
class Anchor:
    """How the root of the CA is known.  With both, its certificate is in the file and has the hash."""

    file: str = ""  # PEM; read at every first contact
    sha256: str = ""  # of the root's DER, in hex

    def __post_init__(self) -> None:
        if not self.file and not self.sha256:
            raise ConfigError(
                "nothing says which certificate authority is the right one: give ca_file (its root as PEM) or ca_sha256 "
                "(what `meshctl ca bundle -o sha256` prints)"
            )
        if self.sha256 and not re.fullmatch(r"[0-9a-f]{64}", self._digest):
            raise ConfigError(f"ca_sha256={self.sha256!r}: expected the SHA-256 of the root certificate, 64 hex digits")

    @property
    def _digest(self) -> str:
        return self.sha256.lower().removeprefix("sha256:").replace(":", "")

    def roots(self, presented: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Of what a server has presented, and of the file: the roots (DER) to believe.  Raises AuthorityNotTrusted."""
        candidates = presented
        if self.file:
            try:
                candidates = pem.certificates(Path(self.file).read_bytes())
            except (OSError, ValueError) as error:
                raise IssuingFailed(f"ca_file={self.file}: {error}") from error
            if not candidates:
                raise IssuingFailed(f"ca_file={self.file}: there is no certificate in it")
        if not self.sha256:
            return candidates
        found = tuple(each for each in candidates if hashlib.sha256(each).hexdigest() == self._digest)
        if not found:
            seen = hashlib.sha256(candidates[-1]).hexdigest() if candidates else "nothing"
            raise AuthorityNotTrusted(f"no root with SHA-256 {self._digest}; the last certificate there has {seen}")
        return found


def verified_roots(address: str, anchor: Anchor, *, now: float, timeout: float) -> tuple[str, tuple[bytes, ...]]:
    """The trust domain and the roots (DER) of the CA at ``host:port``, after it has proved to be the control service.

    Raises IssuingFailed; AuthorityNotTrusted when it answers and is not the right one.
    """
    chain = _presented(address, timeout)
    try:
        trust_domain = svid_of(chain[0]).id.trust_domain
        roots = anchor.roots(chain)
        trust = TrustBundles({trust_domain: roots})
        verify_peer(anchored(chain, trust), trust, frozenset({str(control_id(trust_domain))}), "server", now=now)
    except AuthorityNotTrusted as error:
        raise AuthorityNotTrusted(f"the certificate authority at {address} is not the expected one: {error}") from None
    except CertificateRejected as error:
        hint = "; is the clock of this machine right?" if error.rule in ("expired", "not yet valid") else ""
        raise AuthorityNotTrusted(f"the certificate authority at {address} is not the expected one: {error}{hint}") from None
    return trust_domain, roots


def _presented(address: str, timeout: float) -> tuple[bytes, ...]:
    """The chain of a server, unverified: only the handshake takes place, and nothing is sent."""
    host, _, port = address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # looked at by the caller, with more than OpenSSL knows of
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), timeout) as connected,
            context.wrap_socket(connected) as tls,
        ):
            return sent_chain(tls)
    except OSError as error:
        raise IssuingFailed(f"the certificate authority at {address} cannot be reached: {error}") from error
