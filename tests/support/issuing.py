"""A certificate authority without a network: what a workload's identity asks, answered by a `TrustDomain`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from meshlib.model.identity import TrustBundles
from meshlib.runtime.identity.errors import CredentialRefused, IssuingFailed
from meshlib.runtime.identity.issuer import Issued
from meshlib.runtime.identity.material import Material
from meshlib.testing import FakeClock
from tests.support.certificates import CLIENT, SERVER, TrustDomain

START = 1_800_000_000.0


class Clock(FakeClock):
    """Both clocks of a process; the wall's may be set."""

    def __init__(self) -> None:
        super().__init__(1000.0)
        self.offset = START - 1000.0

    def wall(self) -> float:
        return self.now + self.offset


class FakeIssuer:
    """`up` False: cannot be reached.  `token` False: it was used.  `banned`: certificates are no proof any more."""

    def __init__(self, clock: Clock, domain: TrustDomain, *, life: float = 1000.0) -> None:
        self.domain = domain
        self.life = life
        self.up = True
        self.token = True
        self.banned = False
        self.account = "reviews"
        self.calls: list[str] = []
        self.renewed_by: list[Material] = []
        self.trusted: list[TrustBundles] = []
        self._clock = clock

    def enrol(self, request: bytes) -> Issued:
        self._answer("enrol")
        if not self.token:
            raise CredentialRefused("the token was used")
        self.token = False
        return self._issue(request)

    def renew(self, request: bytes, current: Material, trust: TrustBundles) -> Issued:
        self._answer("renew")
        self.renewed_by.append(current)
        self.trusted.append(trust)
        if self.banned:
            raise CredentialRefused("banned")
        return self._issue(request)

    def forget(self) -> None:
        """Holds nothing."""

    def _answer(self, call: str) -> None:
        self.calls.append(call)
        if not self.up:
            raise IssuingFailed("control:15012: UNAVAILABLE")

    def _issue(self, request: bytes) -> Issued:
        public = x509.load_pem_x509_csr(request).public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        now = datetime.fromtimestamp(self._clock.wall(), UTC)
        signer = self.domain.signer
        identity = x509.UniformResourceIdentifier(self.domain.id(self.account))
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(signer.certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(seconds=self.life))
            .add_extension(x509.SubjectAlternativeName([identity]), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([SERVER, CLIENT]), critical=False)
        )
        from cryptography.hazmat.primitives import hashes

        leaf = builder.sign(signer.key, hashes.SHA256()).public_bytes(Encoding.DER)
        return Issued((leaf, *signer.chain_der), (self.domain.root.der,))
