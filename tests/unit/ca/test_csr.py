"""Requests: the key and its proof are taken, and nothing else; T01 of the threat model."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID

from meshlib_control.ca.csr import read_csr
from meshlib_control.ca.errors import CsrRefused
from meshlib_control.ca.model import CaSettings
from tests.support.authority import REVIEWS, TRUST_DOMAIN, certificate, new_request, running_authority

KEY = ec.generate_private_key(ec.SECP256R1())
PLAIN, _ = new_request(KEY)


def request(
    *extensions: x509.ExtensionType, key: object = KEY, subject: str = "", hash_algorithm: hashes.HashAlgorithm | None = None
) -> bytes:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, subject)] if subject else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    algorithm = (
        None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hash_algorithm or hashes.SHA256()
    )
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]


def body(pem: bytes) -> bytes:
    return base64.b64decode(b"".join(pem.splitlines()[1:-1]))


def pem(der: bytes, label: str = "CERTIFICATE REQUEST") -> bytes:
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{text}-----END {label}-----\n".encode()


def flipped(position: int) -> bytes:
    der = bytearray(body(PLAIN))
    der[position] ^= 0xFF
    return pem(bytes(der))


def of_another_key() -> bytes:
    """The public key of one request under the signature of another."""
    other = ec.generate_private_key(ec.SECP256R1())
    ours = KEY.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    theirs = other.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return pem(body(PLAIN).replace(ours, theirs))


MALFORMED: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "no PEM": lambda: b"hello",
    "DER": lambda: body(PLAIN),
    "not base64": lambda: b"-----BEGIN CERTIFICATE REQUEST-----\n????\n-----END CERTIFICATE REQUEST-----\n",
    "cut short": lambda: pem(body(PLAIN)[:-20]),
    "cut off": lambda: PLAIN[:-40],
    "something after it": lambda: PLAIN + b"x",
    "two requests": lambda: PLAIN + PLAIN,
    "a private key": lambda: KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ),
    "a certificate's label": lambda: pem(body(PLAIN), "CERTIFICATE"),
    "a public key in a request's clothes": lambda: pem(
        KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    ),
    "broken signature": lambda: flipped(-1),
    "changed content": lambda: flipped(8),
    "signed by another key": lambda: of_another_key(),
    "trailing DER": lambda: pem(body(PLAIN) + b"\x00\x00"),
    "too large": lambda: request(subject="x" * 64) + b"\n" * 20_000,
    "RSA 1024": lambda: request(key=rsa.generate_private_key(65537, 1024)),
    "RSA exponent 3": lambda: request(key=rsa.generate_private_key(3, 2048)),
    "P-192": lambda: request(key=ec.generate_private_key(ec.SECP192R1())),
    "secp256k1": lambda: request(key=ec.generate_private_key(ec.SECP256K1())),
    "brainpool": lambda: request(key=ec.generate_private_key(ec.BrainpoolP256R1())),
    "DSA": lambda: request(key=dsa.generate_private_key(2048)),
    "Ed25519": lambda: request(key=ed25519.Ed25519PrivateKey.generate()),
    "Ed448": lambda: request(key=ed448.Ed448PrivateKey.generate()),
    "SHA-224": lambda: request(hash_algorithm=hashes.SHA224()),
}


@pytest.mark.parametrize("make", MALFORMED.values(), ids=MALFORMED.keys())
def test_T01_malformed(make: Callable[[], bytes]) -> None:
    csr = make()
    with pytest.raises(CsrRefused):
        read_csr(csr)


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-256", "P-384", "P-521", "RSA 2048"],
)
def test_strong_keys_are_taken(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    assert read_csr(request(key=key)).key == key.public_key()


def test_text_and_windows_line_ends_are_read() -> None:
    assert read_csr(PLAIN.decode().replace("\n", "\r\n")).key == KEY.public_key()


def test_openssl_calls_it_new() -> None:
    """Old versions of OpenSSL write BEGIN NEW CERTIFICATE REQUEST."""
    assert read_csr(PLAIN.replace(b"CERTIFICATE REQUEST", b"NEW CERTIFICATE REQUEST")).key == KEY.public_key()


def test_no_message_repeats_what_was_sent() -> None:
    with pytest.raises(CsrRefused) as caught:
        read_csr(b"CANARY")
    assert "CANARY" not in str(caught.value)


GREEDY = {
    "another SPIFFE ID": (x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://cluster.local/ns/a/sa/admin")]),),
    "two SPIFFE IDs": (
        x509.SubjectAlternativeName(
            [
                x509.UniformResourceIdentifier("spiffe://cluster.local/ns/default/sa/reviews"),
                x509.UniformResourceIdentifier("spiffe://cluster.local/ns/a/sa/admin"),
            ]
        ),
    ),
    "a SPIFFE ID with NUL": (
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://cluster.local/ns/a/sa/b\x00.evil")]),
    ),
    "DNS, IP and mail names": (
        x509.SubjectAlternativeName(
            [x509.DNSName("evil.test"), x509.DNSName("*"), x509.IPAddress(ip_address("10.0.0.1")), x509.RFC822Name("a@b.test")]
        ),
    ),
    "a CA": (x509.BasicConstraints(ca=True, path_length=None),),
    "signing": (
        x509.KeyUsage(
            digital_signature=True, content_commitment=True, key_encipherment=True, data_encipherment=True, key_agreement=True,
            key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        ),
    ),
    "every usage": (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE, ExtendedKeyUsageOID.CODE_SIGNING]),),
    "constraints": (x509.NameConstraints([x509.DNSName("")], None),),
    "an unknown critical extension": (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),),
    "its own time of attestation": (
        x509.UnrecognizedExtension(
            x509.ObjectIdentifier("1.2.840.113556.1.8000.2554.1.1.1.1.1.1.1"), b"\x18\x0f20990101000000Z"
        ),
    ),
    "policies": (x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("2.5.29.32.0"), None)]),),
}  # fmt: skip


@pytest.mark.parametrize("extensions", GREEDY.values(), ids=GREEDY.keys())
async def test_T01_wishes_are_ignored(extensions: tuple[x509.ExtensionType, ...]) -> None:
    """C06: the certificate for such a request is the one that a plain request gets."""
    async with running_authority(settings=CaSettings(TRUST_DOMAIN)) as authority:
        plain = certificate(authority.issue(PLAIN, REVIEWS, caller="test").chain_pem[0])
        greedy = authority.issue(request(*extensions, subject="admin"), REVIEWS, caller="test")
        issued = certificate(greedy.chain_pem[0])
    assert issued.subject == plain.subject == x509.Name([])
    assert [(each.oid, each.critical) for each in issued.extensions] == [(each.oid, each.critical) for each in plain.extensions]
    timed = re.compile(r"1\.2\.840\.113556.*")
    for ours, theirs in zip(plain.extensions, issued.extensions, strict=True):
        if not timed.fullmatch(ours.oid.dotted_string):
            assert theirs.value == ours.value


async def test_T01_attributes_are_ignored() -> None:
    """A challenge password, which RFC 2986 allows in a request."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"changeit")
    csr = builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    async with running_authority() as authority:
        issued = certificate(authority.issue(csr, REVIEWS, caller="test").chain_pem[0])
    assert issued.not_valid_after_utc > datetime.now(UTC)
