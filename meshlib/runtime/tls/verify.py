"""Is this certificate an X.509-SVID of a peer that may be there?  (SPIFFE X.509-SVID sections 3 to 5.)

Python's TLS checks signatures, dates, path lengths and name constraints, and little else: of the certificates that SPIFFE says
must be refused it lets most pass, and it trusts any root for any name.  So after it has verified a chain, all of it is looked
at again here, inside of the handshake and before a byte of the application's is read:

* the leaf: exactly one URI SAN, which is a SPIFFE ID with a path; not a CA; key usage critical, with digitalSignature and
  without keyCertSign and cRLSign; an extended key usage, if there is one, that names both ends; no NUL or other control
  character in any name;
* its signers: CAs, none of which has a SPIFFE ID with a path (that would be a workload's);
* the end of the chain: a root of the leaf's *own* trust domain (bundles of other domains do not count);
* dates, which a resumed session would not look at again;
* secure naming: one of the identities that the caller expects, if it expects any.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NoReturn, TypeVar

from meshlib.model.identity import Peer, SpiffeId, TrustBundles

if TYPE_CHECKING:
    from cryptography import x509

E = TypeVar("E", bound="x509.ExtensionType")

Role = Literal["client", "server"]
"""What the peer is on this connection."""

SKEW: Final = 60.0
"""Seconds that our clock may be off, where the TLS library's own (strict) look at the dates leaves a say in it."""

MAX_CHAIN: Final = 10


class CertificateRejected(ssl.SSLCertVerificationError):
    """A peer's certificate breaks a rule; `rule` names it: "exactly one URI SAN"."""

    rule: str

    @classmethod
    def because(cls, rule: str, detail: str) -> CertificateRejected:
        error = cls(1, f"the peer's certificate was refused ({rule}): {detail}")
        error.rule = rule
        error.verify_code = 50  # X509_V_ERR_APPLICATION_VERIFICATION
        error.verify_message = rule
        return error


@dataclass(frozen=True, slots=True)
class Svid:
    """What a leaf says."""

    id: SpiffeId
    dns_names: tuple[str, ...]
    not_before: float  # Unix seconds
    not_after: float
    public_key: bytes  # DER SubjectPublicKeyInfo


def verify_peer(
    chain: Sequence[bytes],
    trust: TrustBundles,
    expected: frozenset[str] | None,
    role: Role,
    *,
    now: float | None = None,
) -> Peer:
    """The peer whose `chain` (DER, leaf first, root last) the TLS library has verified.

    `expected`: SPIFFE IDs, one of which it must have; None: any of a trusted domain.  `now`: Unix seconds, the clock if None.
    Raises CertificateRejected.
    """
    now = time.time() if now is None else now
    if not 2 <= len(chain) <= MAX_CHAIN:
        reject("chain", f"it has {len(chain)} certificates; expected the leaf, its signers and a root, {MAX_CHAIN} at most")
    svid = svid_of(chain[0])
    if chain[-1] not in trust.roots.get(svid.id.trust_domain, ()):
        known = ", ".join(sorted(trust.roots)) or "none"
        reject("own trust domain", f"{svid.id} does not come from a root of {svid.id.trust_domain} (roots known for: {known})")
    ends = svid.not_after
    for der in chain[1:]:
        ends = min(ends, _check_signer(_load(der), svid.id, now))
    _check_dates(f"{svid.id}", svid.not_before, svid.not_after, now)
    if expected is not None and str(svid.id) not in expected:
        allowed = ", ".join(sorted(expected)[:5]) or "nobody"
        reject("secure naming", f"the {role} is {svid.id}; allowed: {allowed}{', ...' if len(expected) > 5 else ''}")
    return Peer(svid.id, ends, dns_names=svid.dns_names)


def anchored(chain: Sequence[bytes], trust: TrustBundles) -> tuple[bytes, ...]:
    """The path from the leaf to a root of its own trust domain, for a chain (DER, leaf first) as the peer sent it.

    For where the TLS library does not tell which chain it has verified (gRPC), or verified it long ago (a resumed session):
    the signatures are verified here, again.  `verify_peer` looks at the rest.  Raises CertificateRejected.
    """
    if not 1 <= len(chain) <= MAX_CHAIN:
        reject("chain", f"the peer sent {len(chain)} certificates; expected 1 to {MAX_CHAIN}")
    svid = svid_of(chain[0])
    roots = [_load(der) for der in trust.roots.get(svid.id.trust_domain, ())]
    others = [_load(der) for der in chain[1:]]
    path = [_load(chain[0])]
    while True:
        root = next((root for root in roots if _is_issued_by(path[-1], root)), None)
        if root is not None:
            return tuple(_der(certificate) for certificate in (*path, root))
        signer = next((other for other in others if other not in path and _is_issued_by(path[-1], other)), None)
        if signer is None:
            reject("own trust domain", f"{svid.id} does not come from a root of {svid.id.trust_domain}")
        path.append(signer)


def svid_of(der: bytes) -> Svid:
    """Parse a leaf (DER) and apply the rules for leaves.  Raises CertificateRejected, which is a ValueError."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    certificate = _load(der)
    try:
        extensions = certificate.extensions
        _check_leaf_usage(extensions)
        names = _extension(extensions, x509.SubjectAlternativeName)
        identity, dns_names = _names(names.value if names is not None else ())
        public_key = certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except CertificateRejected:
        raise
    except Exception as error:  # the parser's own: whatever it cannot read is refused
        reject("well-formed", f"its extensions or its key cannot be read: {error}")
    return Svid(
        identity,
        dns_names,
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        public_key,
    )


def reject(rule: str, detail: str) -> NoReturn:
    raise CertificateRejected.because(rule, detail)


# --- rules


def _check_leaf_usage(extensions: x509.Extensions) -> None:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    constraints = _extension(extensions, x509.BasicConstraints)
    if constraints is not None and constraints.value.ca:
        reject("leaf is no CA", "basic constraints say cA=true: a signing certificate never authenticates a workload")
    usage = _extension(extensions, x509.KeyUsage)
    if usage is None:
        reject("key usage", "it has none; expected digitalSignature, critical")
    if usage.value.key_cert_sign:
        reject("no keyCertSign", "a leaf must not be allowed to sign certificates")
    if usage.value.crl_sign:
        reject("no cRLSign", "a leaf must not be allowed to sign revocation lists")
    if not usage.value.digital_signature:
        reject("digitalSignature", "its key usage does not allow signatures, which a handshake is made of")
    if not usage.critical:
        reject("key usage is critical", "it is marked as not critical")
    extended = _extension(extensions, x509.ExtendedKeyUsage)
    if extended is not None:
        for purpose, name in ((ExtendedKeyUsageOID.SERVER_AUTH, "serverAuth"), (ExtendedKeyUsageOID.CLIENT_AUTH, "clientAuth")):
            if purpose not in extended.value:
                reject("extended key usage", f"{name} is missing; a workload is both client and server")


def _names(names: Sequence[x509.GeneralName] | x509.SubjectAlternativeName | tuple[()]) -> tuple[SpiffeId, tuple[str, ...]]:
    """The SPIFFE ID and the DNS names."""
    from cryptography import x509

    uris: list[str] = []
    dns: list[str] = []
    for name in names:
        value = name.value
        if isinstance(name, x509.OtherName):
            if b"\0" in value:
                reject("no control characters", "an otherName SAN has a NUL byte")
        elif isinstance(value, str) and not value.isprintable():
            reject("no control characters", f"the SAN {value!r} has a NUL or another control character")
        if isinstance(name, x509.UniformResourceIdentifier):
            uris.append(name.value)
        elif isinstance(name, x509.DNSName):
            dns.append(name.value)
    if len(uris) != 1:
        reject("exactly one URI SAN", f"it has {len(uris)}")
    try:
        identity = SpiffeId.parse(uris[0])
    except ValueError as error:
        reject("SPIFFE ID", str(error))
    if not identity.path:
        reject("SPIFFE ID with a path", f"{identity} names a trust domain, not a workload")
    return identity, tuple(dns)


def _check_signer(certificate: x509.Certificate, leaf: SpiffeId, now: float) -> float:
    """Raises CertificateRejected; gives the end of the certificate, in Unix seconds."""
    from cryptography import x509

    try:
        constraints = _extension(certificate.extensions, x509.BasicConstraints)
        usage = _extension(certificate.extensions, x509.KeyUsage)
        names = _extension(certificate.extensions, x509.SubjectAlternativeName)
        uris = names.value.get_values_for_type(x509.UniformResourceIdentifier) if names is not None else []
    except Exception as error:  # the parser's own
        reject("well-formed", f"a signer of {leaf} cannot be read: {error}")
    if constraints is None or not constraints.value.ca or (usage is not None and not usage.value.key_cert_sign):
        reject("signer is a CA", f"{leaf} was signed by a certificate that may sign none")
    for uri in uris:
        if uri.startswith("spiffe://") and "/" in uri[len("spiffe://") :]:
            reject("signer without a path", f"{leaf} was signed by {uri!r}, which is a workload's identity")
    ends = certificate.not_valid_after_utc.timestamp()
    _check_dates(f"a signer of {leaf}", certificate.not_valid_before_utc.timestamp(), ends, now)
    return ends


def _check_dates(what: str, begins: float, ends: float, now: float) -> None:
    if now < begins - SKEW:
        reject("not yet valid", f"the certificate of {what} begins in {begins - now:.0f} s")
    if now > ends + SKEW:
        reject("expired", f"the certificate of {what} ended {now - ends:.0f} s ago")


# --- reading certificates


def _load(der: bytes) -> x509.Certificate:
    from cryptography import x509

    try:
        return x509.load_der_x509_certificate(der)
    except ValueError as error:
        reject("well-formed", str(error))


def _extension(extensions: x509.Extensions, kind: type[E]) -> x509.Extension[E] | None:
    from cryptography import x509

    try:
        return extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _der(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.DER)
