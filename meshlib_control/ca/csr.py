"""Certificate signing requests (PKCS #10, RFC 2986): a public key and the proof that the caller has the private one.

Everything else in a request - names, extensions, usages - is ignored, and never parsed.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from meshlib_control.ca.certificates import PublicKey
from meshlib_control.ca.errors import CsrRefused

MAX_CSR = 16 * 1024
"""Bytes of PEM: four times an RSA-8192 request with generous names."""

CURVES = ("secp256r1", "secp384r1", "secp521r1")
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192  # beyond, checking the signature is work that the caller could make us do for nothing
MIN_EXPONENT = 65537

_PEM = re.compile(rb"-----BEGIN (NEW )?CERTIFICATE REQUEST-----[^-]*-----END (NEW )?CERTIFICATE REQUEST-----\s*")
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


@dataclass(frozen=True, slots=True)
class Request:
    """`digest`: SHA-256 of the DER, in hex, by which the log of issued certificates knows it."""

    key: PublicKey
    digest: str


def read_csr(text: str | bytes) -> Request:
    """Raises `CsrRefused` for what is not exactly one well-signed request with a strong key."""
    raw = text.encode() if isinstance(text, str) else text
    if len(raw) > MAX_CSR:
        raise CsrRefused(f"the CSR has {len(raw)} bytes; at most {MAX_CSR} are read")
    if not _PEM.fullmatch(raw.lstrip()):
        raise CsrRefused("expected one CSR in PEM form (-----BEGIN CERTIFICATE REQUEST-----), and nothing else")
    try:
        request = x509.load_pem_x509_csr(raw)
        key = strong(request.public_key())
        if not isinstance(request.signature_hash_algorithm, _HASHES):
            raise CsrRefused("the CSR is not signed with SHA-256, SHA-384 or SHA-512")
        valid = request.is_signature_valid
        digest = hashlib.sha256(request.public_bytes(serialization.Encoding.DER)).hexdigest()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CsrRefused("the CSR cannot be read") from error
    if not valid:
        raise CsrRefused("the CSR is not signed by the key that it holds")
    return Request(key, digest)


def strong(key: object) -> PublicKey:
    """The key, if it is one that certificates are issued for.  Raises `CsrRefused`."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in CURVES:
            raise CsrRefused(f"elliptic curve {key.curve.name} is not taken; use P-256")
        return key
    if isinstance(key, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            raise CsrRefused(f"an RSA key of {key.key_size} bits is not taken; use {MIN_RSA_BITS} to {MAX_RSA_BITS}, or P-256")
        if key.public_numbers().e < MIN_EXPONENT:
            raise CsrRefused(f"an RSA key with an exponent below {MIN_EXPONENT} is not taken")
        return key
    raise CsrRefused("only ECDSA and RSA keys are taken; use P-256")
