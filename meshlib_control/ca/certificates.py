"""X.509 as the mesh issues it: root, intermediate and workload certificates (SPIFFE X.509-SVID, RFC 5280).

Nothing here reads a clock or decides: times, serials and names are arguments.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshlib.lowlevel import SpiffeId

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

ATTESTED_AT = x509.ObjectIdentifier("1.2.840.113556.1.8000.2554.48787.42066.29938.19268.42448.14699100.15966505")
"""Extension of a workload certificate: when the workload last proved who it is by other means than its certificate.

The arc of a random GUID as Microsoft hands them out to everybody; ITU-T X.667's are too large for Go.  Carried from renewal to
renewal, so that how old that proof may be can be limited without asking a store.  Not critical; only the authority reads it.
"""

MAX_COMMON_NAME = 64  # RFC 5280, appendix A


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs."""

    certificate: x509.Certificate
    key: PrivateKey


@dataclass(frozen=True, slots=True)
class Validity:
    """Unix seconds, both included (RFC 5280, section 4.1.2.5)."""

    not_before: float
    not_after: float


@dataclass(frozen=True, slots=True)
class Workload:
    """What a workload certificate says.  All of it; nothing comes from the request but the key.

    `dns_names`: also IP addresses, for the control service's own certificate.
    """

    identity: SpiffeId
    dns_names: Sequence[str]
    validity: Validity
    serial: int
    attested_at: float


def new_key() -> ec.EllipticCurvePrivateKey:
    """ECDSA P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def new_serial() -> int:
    """128 random bits: no replica has to ask another for one (RFC 5280, section 4.1.2.2: positive, at most 20 octets)."""
    return secrets.randbits(128) or new_serial()


def root_certificate(key: PrivateKey, trust_domain: str, validity: Validity) -> x509.Certificate:
    """Self-signed; signs intermediates only (path length 1), of this trust domain only."""
    name = _name(trust_domain, "root", key.public_key())
    builder = _builder(name, name, key.public_key(), validity, new_serial())
    return _sign(_signing(builder, trust_domain, path_length=1), key, x509_key_id(key.public_key()))


def intermediate_certificate(key: PublicKey, issuer: Issuer, trust_domain: str, validity: Validity) -> x509.Certificate:
    """Signs workload certificates (path length 0), of this trust domain only."""
    name = _name(trust_domain, "intermediate", key)
    builder = _builder(name, issuer.certificate.subject, key, validity, new_serial())
    return _sign(_signing(builder, trust_domain, path_length=0), issuer.key, issuer_key_id(issuer.certificate))


def workload_certificate(key: PublicKey, issuer: Issuer, workload: Workload) -> x509.Certificate:
    """An X.509-SVID: one URI SAN, ``digitalSignature``, server and client.

    The subject is empty and the alternative names are therefore critical (RFC 5280, section 4.2.1.6).
    """
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(workload.identity))]
    names += [_general_name(name) for name in workload.dns_names]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        _builder(x509.Name([]), issuer.certificate.subject, key, workload.validity, workload.serial)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.UnrecognizedExtension(ATTESTED_AT, _generalized_time(workload.attested_at)), critical=False)
    )
    return _sign(builder, issuer.key, issuer_key_id(issuer.certificate))


def attested_at(certificate: x509.Certificate) -> float | None:
    """Unix seconds; None for a certificate without the extension, or with one that is not ours."""
    try:
        extension = certificate.extensions.get_extension_for_oid(ATTESTED_AT).value
        assert isinstance(extension, x509.UnrecognizedExtension)
        tag, length, text = extension.value[:1], extension.value[1:2], extension.value[2:]
        if tag != b"\x18" or length != bytes([len(text)]):
            return None
        return datetime.strptime(text.decode("ascii"), "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except (x509.ExtensionNotFound, ValueError):
        return None


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def key_bytes(key: PrivateKey) -> bytes:
    """PKCS #8, DER, in clear: for the memory of this process, and for sealing."""
    return key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def key_pem(key: PrivateKey) -> bytes:
    """PKCS #8, PEM, in clear: for TLS in this process."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def public_bytes(key: object) -> bytes:
    """SubjectPublicKeyInfo, DER."""
    assert isinstance(key, PublicKey)
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """By name and signature alone."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def leads_to(leaf: x509.Certificate, intermediates: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]) -> bool:
    """Whether signatures lead from the leaf over some of the intermediates, in any order, to one of the roots.

    A workload's certificate is no intermediate, whatever its key has signed.
    """
    current, others = leaf, [each for each in intermediates if _may_sign(each)]
    while not any(issued(current, root) for root in roots):
        issuer = next((each for each in others if issued(current, each)), None)
        if issuer is None:
            return False
        others.remove(issuer)
        current = issuer
    return True


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def not_after(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()


def not_before(certificate: x509.Certificate) -> float:
    return certificate.not_valid_before_utc.timestamp()


def x509_key_id(key: PublicKey) -> x509.AuthorityKeyIdentifier:
    """Of a self-signed certificate."""
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)


def issuer_key_id(certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """The identifier that the issuer's certificate has, which need not be the hash that we would take."""
    try:
        identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
        return x509_key_id(key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _builder(subject: x509.Name, issuer: x509.Name, key: PublicKey, validity: Validity, serial: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(datetime.fromtimestamp(int(validity.not_before), UTC))
        .not_valid_after(datetime.fromtimestamp(int(validity.not_after), UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _signing(builder: x509.CertificateBuilder, trust_domain: str, *, path_length: int) -> x509.CertificateBuilder:
    """What makes a signer: X.509-SVID sections 2 and 4, and the constraint that keeps it to its trust domain."""
    domain = x509.UniformResourceIdentifier(trust_domain)
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.NameConstraints(permitted_subtrees=[domain], excluded_subtrees=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(SpiffeId(trust_domain)))]), critical=False
        )
    )


def _sign(builder: x509.CertificateBuilder, key: PrivateKey, issuer: x509.AuthorityKeyIdentifier) -> x509.Certificate:
    large = isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > 256
    return builder.add_extension(issuer, critical=False).sign(key, hashes.SHA384() if large else hashes.SHA256())


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _name(trust_domain: str, role: str, key: PublicKey) -> x509.Name:
    # The key's beginning keeps the names of successive authorities apart: chains are found by name.
    suffix = f" {role} {x509.SubjectKeyIdentifier.from_public_key(key).digest.hex()[:12]}"
    common = trust_domain[: MAX_COMMON_NAME - len(suffix)] + suffix
    organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "meshlib")
    return x509.Name([organization, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _generalized_time(time: float) -> bytes:
    text = datetime.fromtimestamp(int(time), UTC).strftime("%Y%m%d%H%M%SZ").encode("ascii")
    return b"\x18" + bytes([len(text)]) + text  # DER GeneralizedTime
