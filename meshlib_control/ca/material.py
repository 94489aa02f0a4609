"""Certificates and keys of an authority: made, sealed for the store, opened again for signing."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from meshlib_control.ca import certificates
from meshlib_control.ca.certificates import Issuer, PrivateKey, Validity, der, not_after, not_before, pem, public_bytes
from meshlib_control.ca.errors import KeyUnusable
from meshlib_control.ca.keys import KeyEncryptionKey, Sealed
from meshlib_control.ca.own import OwnAuthority, check_own
from meshlib_control.ca.state import Authority, Phase, key_path, root_id


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Seconds.  `backdate`: how far a clock may be behind ours."""

    root: float = 3650 * 86400.0
    intermediate: float = 30 * 86400.0
    backdate: float = 60.0


@dataclass(frozen=True, slots=True)
class Signer:
    """An authority ready to sign.  `chain`: the signing certificate and the others below the root (PEM)."""

    authority: str
    issuer: Issuer = field(repr=False)
    chain: tuple[str, ...]
    not_before: float
    not_after: float  # of the whole chain, the root included
    renewable: bool


class Workshop:
    """Makes authorities, and opens them again."""

    def __init__(self, kek: KeyEncryptionKey, trust_domain: str, lifetimes: Lifetimes) -> None:
        self._kek = kek
        self._trust_domain = trust_domain
        self._lifetimes = lifetimes

    def make(self, phase: Phase, now: float, *, epoch: int = 1) -> Authority:
        """A new root with an intermediate."""
        key = certificates.new_key()
        root = certificates.root_certificate(key, self._trust_domain, self._validity(now, self._lifetimes.root))
        return self._below(Issuer(root, key), phase, now, epoch)

    def adopt(self, own: OwnAuthority, phase: Phase, now: float, *, epoch: int = 1) -> Authority:
        """What the operator brought: a root gets an intermediate, an intermediate signs itself.  Raises `MaterialRefused`."""
        check_own(own, self._trust_domain, now)
        if own.is_root:
            return self._below(Issuer(own.root, own.key), phase, now, epoch)
        chain = tuple(pem(each) for each in own.chain[:-1])
        return Authority(root_id(der(own.root)), phase, now, pem(own.root), chain, self._sealed(own.key, epoch))

    def intermediate(self, authority: Authority, now: float, *, epoch: int) -> tuple[tuple[str, ...], Sealed]:
        """The next one below a root that is here: its chain and sealed key.  Raises `KeyUnusable`."""
        assert authority.root_key is not None
        root = _read(authority.root)
        return self._signing(Issuer(root, self._opened(root, authority.root_key)), now, epoch)

    def signer(self, authority: Authority) -> Signer:
        """Raises `KeyUnusable`."""
        chain = [_read(each) for each in authority.chain]
        key = self._opened(chain[0], authority.key)
        every = [*chain, _read(authority.root)]
        return Signer(
            authority=authority.id,
            issuer=Issuer(chain[0], key),
            chain=authority.chain,
            not_before=not_before(chain[0]),
            not_after=min(not_after(each) for each in every),
            renewable=authority.root_key is not None,
        )

    def _below(self, root: Issuer, phase: Phase, now: float, epoch: int) -> Authority:
        chain, key = self._signing(root, now, epoch)
        root_key = self._sealed(root.key, epoch)
        return Authority(root_id(der(root.certificate)), phase, now, pem(root.certificate), chain, key, root_key)

    def _signing(self, root: Issuer, now: float, epoch: int) -> tuple[tuple[str, ...], Sealed]:
        key = certificates.new_key()
        validity = self._validity(now, self._lifetimes.intermediate, limit=not_after(root.certificate))
        certificate = certificates.intermediate_certificate(key.public_key(), root, self._trust_domain, validity)
        return (pem(certificate),), self._sealed(key, epoch)

    def _validity(self, now: float, lifetime: float, limit: float = float("inf")) -> Validity:
        return Validity(now - self._lifetimes.backdate, min(now + lifetime, limit))

    def _sealed(self, key: PrivateKey, epoch: int) -> Sealed:
        return self._kek.seal(key_path(public_bytes(key.public_key())), epoch, certificates.key_bytes(key))

    def _opened(self, certificate: x509.Certificate, sealed: Sealed) -> PrivateKey:
        public = public_bytes(certificate.public_key())
        path = key_path(public)
        key = serialization.load_der_private_key(self._kek.unseal(path, sealed), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) or public_bytes(key.public_key()) != public:
            raise KeyUnusable(
                "a private key does not belong to its certificate",
                where=f"{path} in the store",
                why="its public half is another one",
                next_step="Restore the store from a backup.",
            )
        return key


def _read(text: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(text.encode("ascii"))
