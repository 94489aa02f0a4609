"""What a process proves its identity with: an X.509-SVID, its private key, and the roots that came with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from meshlib.model.identity import SpiffeId, TrustBundles
from meshlib.runtime.identity import pem
from meshlib.runtime.tls.verify import svid_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey


class PrivateKey:
    """A private key that no repr, log line, pickle or copy gives away.  What leaves it does so by `pem`, by name."""

    __slots__ = ("_key",)

    def __init__(self, key: EllipticCurvePrivateKey | RSAPrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> PrivateKey:
        """A new one on the curve P-256."""
        from cryptography.hazmat.primitives.asymmetric import ec

        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def parse(cls, data: bytes) -> PrivateKey:
        """From PEM.  Raises ValueError; its text shows nothing of the key."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec, rsa

        try:
            key = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError):
            raise ValueError("the private key cannot be read: expected an unencrypted PEM (PKCS #8 or SEC 1)") from None
        if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            return cls(key)
        raise ValueError("the private key is of the wrong kind: expected an elliptic curve key, such as P-256, or RSA")

    def pem(self) -> bytes:
        """PKCS #8, not encrypted: for the TLS library and for a file that only its owner can read."""
        from cryptography.hazmat.primitives import serialization

        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def encrypted_pem(self, password: bytes) -> bytes:
        """PKCS #8, encrypted: for a TLS library that reads only files, where a file cannot be kept in memory."""
        from cryptography.hazmat.primitives import serialization

        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(password)
        )

    def public_der(self) -> bytes:
        """SubjectPublicKeyInfo: what the certificate of this key has as well."""
        from cryptography.hazmat.primitives import serialization

        return self._key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    def request(self, identity: SpiffeId | None) -> bytes:
        """A certificate signing request (PKCS #10, PEM).

        Its SAN is a courtesy to tools; the CA takes the identity from whoever asks.  None: not known yet.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization

        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        if identity is not None:
            name = x509.UniformResourceIdentifier(str(identity))
            builder = builder.add_extension(x509.SubjectAlternativeName([name]), critical=True)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def __repr__(self) -> str:
        return "<PrivateKey redacted>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is not pickled or copied: it stays in the process that made it")


@dataclass(frozen=True, slots=True)
class Material:
    """An SVID and all that belongs to it.  Immutable: a renewal makes a new one."""

    identity: SpiffeId
    chain: tuple[bytes, ...] = field(repr=False)  # DER: the leaf first, then each intermediate; no root
    key: PrivateKey = field(repr=False)
    roots: TrustBundles = field(repr=False)  # as they came with the certificate; those of the snapshot are newer
    not_before: float  # Unix seconds
    not_after: float

    @classmethod
    def of(cls, chain: tuple[bytes, ...], key: PrivateKey, roots: TrustBundles) -> Material:
        """Raises ValueError for a chain whose leaf is no SVID (SPIFFE X.509-SVID section 5.2) or not of this key."""
        if not chain:
            raise ValueError("the certificate chain is empty")
        svid = svid_of(chain[0])
        if svid.public_key != key.public_der():
            raise ValueError(f"the certificate of {svid.id} is not for this private key")
        return cls(svid.id, chain, key, roots, svid.not_before, svid.not_after)

    @property
    def chain_pem(self) -> bytes:
        """As it is sent to peers."""
        return pem.encode(self.chain)

    @property
    def lifetime(self) -> float:
        """Seconds from beginning to end."""
        return self.not_after - self.not_before
