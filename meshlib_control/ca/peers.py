"""Who is at the other end of an mTLS connection to the control service, by its certificate.

gRPC has verified the chain with the roots of the own trust domain when the connection began.  What it does not check are the
rules of SPIFFE, and that all of it is still so: a connection may be older than a revocation, and outlive its certificate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from cryptography import x509

from meshlib.lowlevel import SpiffeId, svid_of
from meshlib_control.ca.certificates import attested_at, der, leads_to, not_after, not_before
from meshlib_control.ca.errors import CallerRefused

MAX_CHAIN = 10


@dataclass(frozen=True, slots=True)
class ControlPeer:
    """Verified.  Times in Unix seconds; `attested_at`: when it last proved who it is by other means than a certificate."""

    identity: SpiffeId
    not_before: float
    not_after: float
    serial: int
    attested_at: float | None


AuthContext = Mapping[str, Iterable[bytes]]
"""What gRPC's ``context.auth_context()`` gives."""


def is_encrypted(context: AuthContext) -> bool:
    return [bytes(value) for value in context.get("transport_security_type", ())] == [b"ssl"]


def has_certificate(context: AuthContext) -> bool:
    return bool(list(context.get("x509_pem_cert", ())))


def peer_of(context: AuthContext, trust_domain: str, roots: Sequence[bytes], now: float) -> ControlPeer:
    """The caller of an RPC.  `roots`: DER, those that are trusted now; `now`: Unix seconds.  Raises `CallerRefused`."""
    leaf, others = _certificates(context)
    try:
        identity = svid_of(der(leaf)).id
    except ValueError as error:
        raise CallerRefused(str(error)) from error
    if identity.trust_domain != trust_domain:
        raise CallerRefused(f"{identity} is of another trust domain")
    if not not_before(leaf) <= now < not_after(leaf):
        raise CallerRefused(f"the certificate of {identity} is not valid now")
    if not leads_to(leaf, others, [x509.load_der_x509_certificate(root) for root in roots]):
        raise CallerRefused(f"the certificate of {identity} does not lead to a root that is trusted now")
    return ControlPeer(identity, not_before(leaf), not_after(leaf), leaf.serial_number, attested_at(leaf))


def address_of(peer: str) -> str:
    """The IP address in gRPC's name of a peer: ``ipv4:10.0.0.7:51234``, ``ipv6:%5B::1%5D:51234``; else empty."""
    match = re.fullmatch(r"ipv[46]:\[?([0-9a-fA-F.:]+?)\]?:\d+", unquote(peer))
    return match[1] if match else ""


def _certificates(context: AuthContext) -> tuple[x509.Certificate, list[x509.Certificate]]:
    """The leaf, and what the caller sent along (whether gRPC repeats the leaf there depends on its TLS library)."""
    try:
        leaf = x509.load_pem_x509_certificate(b"".join(context.get("x509_pem_cert", ())))
        chain = b"".join(context.get("x509_pem_cert_chain", ()))
        others = x509.load_pem_x509_certificates(chain)[:MAX_CHAIN] if chain else []
    except ValueError as error:
        raise CallerRefused("the caller has no certificate that can be read") from error
    return leaf, [each for each in others if each != leaf]
