"""The mesh's certificate authority in tests: requests, keys, and an authority over any store."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshlib.lowlevel import SpiffeId
from meshlib_control.ca.authority import CertificateAuthority
from meshlib_control.ca.keys import KeyEncryptionKey
from meshlib_control.ca.model import CaSettings
from meshlib_control.store.memory import MemoryStore
from meshlib_control.store.model import Store

TRUST_DOMAIN = "cluster.local"
REVIEWS = SpiffeId.of_workload(TRUST_DOMAIN, "default", "reviews")
RATINGS = SpiffeId.of_workload(TRUST_DOMAIN, "default", "ratings")


class SettableClock:
    """Unix seconds that only a test moves."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def new_kek() -> KeyEncryptionKey:
    return KeyEncryptionKey(secrets.token_bytes(32), "test")


def new_request(key: ec.EllipticCurvePrivateKey | None = None) -> tuple[bytes, bytes]:
    """A CSR and its private key, PEM."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM), private_pem(key)


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


@asynccontextmanager
async def running_authority(
    store: Store | None = None,
    kek: KeyEncryptionKey | None = None,
    settings: CaSettings | None = None,
    clock: SettableClock | None = None,
) -> AsyncIterator[CertificateAuthority]:
    """By the real clock, if none is given."""
    arguments = {"clock": clock} if clock else {}
    authority = CertificateAuthority(
        store or MemoryStore(), kek or new_kek(), settings or CaSettings(TRUST_DOMAIN), **arguments
    )
    await authority.start()
    try:
        yield authority
    finally:
        await authority.close()
