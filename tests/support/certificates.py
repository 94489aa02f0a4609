"""Certificate authorities for tests of TLS, made on the spot and trusted by nobody else.

`Authority` writes files of plain DNS certificates.  `TrustDomain` is the CA of a SPIFFE trust domain in memory; `mint` makes
one certificate with whatever is asked for, also what no CA should ever sign.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshlib.model.identity import TrustBundles

_PEM = serialization.Encoding.PEM
_DER = serialization.Encoding.DER

SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign",
    "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Minted:
    """A certificate, its key, and who signed it (None: itself)."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    issuer: Minted | None = None

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(_DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(_PEM)

    @property
    def chain(self) -> tuple[Minted, ...]:
        """Leaf first, without the root."""
        if self.issuer is None:
            return ()
        return (self, *self.issuer.chain)

    @property
    def chain_der(self) -> tuple[bytes, ...]:
        return tuple(each.der for each in self.chain)

    @property
    def chain_pem(self) -> bytes:
        return b"".join(each.pem for each in self.chain)

    @property
    def root(self) -> Minted:
        return self if self.issuer is None else self.issuer.root

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Files of the chain and of the key: ``NAME.pem``, ``NAME.key``."""
        files = folder / f"{name}.pem", folder / f"{name}.key"
        files[0].write_bytes(self.chain_pem or self.pem)
        files[1].write_bytes(self.key_pem)
        files[1].chmod(0o600)
        return files


def mint(
    issuer: Minted | None,
    *,
    uris: Iterable[str] = (),
    dns: Iterable[str] = (),
    sans: Iterable[x509.GeneralName] = (),
    ca: bool = False,
    path_length: int | None = None,
    usages: Iterable[str] | None = None,
    usage_critical: bool = True,
    extended: Iterable[x509.ObjectIdentifier] | None = (SERVER, CLIENT),
    begins: timedelta = timedelta(minutes=-5),
    ends: timedelta = timedelta(hours=1),
    permitted: Iterable[x509.GeneralName] = (),
    raw: Iterable[tuple[str, bytes]] = (),
    key: ec.EllipticCurvePrivateKey | None = None,
    name: str = "",
    now: datetime | None = None,
) -> Minted:
    """A certificate that `issuer` signs (None: itself).  Validity is relative to `now`.

    `usages`: names as in `x509.KeyUsage`; None: what is right for a leaf or a CA; empty: no key usage extension at all.
    `extended` None: no extended key usage extension.  `permitted`: name constraints.  `raw`: further extensions by their OID,
    which may be nonsense.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    now = now or datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
    )
    signer = key if issuer is None else issuer.key
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    names = [*(x509.UniformResourceIdentifier(uri) for uri in uris), *(x509.DNSName(each) for each in dns), *sans]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not name)
    wanted = frozenset((("key_cert_sign", "crl_sign") if ca else ("digital_signature",)) if usages is None else usages)
    if wanted:
        usage = x509.KeyUsage(**{each: each in wanted for each in _USAGES})
        builder = builder.add_extension(usage, critical=usage_critical)
    if extended is not None and not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(extended)), critical=False)
    constraints = list(permitted)
    if constraints:
        builder = builder.add_extension(x509.NameConstraints(constraints, None), critical=True)
    for oid, value in raw:
        builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=False)
    return Minted(builder.sign(signer, hashes.SHA256()), key, issuer)


class TrustDomain:
    """Root and intermediate (`signer`) of a trust domain.  `rotate` makes new ones; what was issued before keeps its chain."""

    def __init__(self, name: str = "cluster.local", *, intermediate: bool = True) -> None:
        self.name = name
        self._intermediate = intermediate
        self.rotate()

    def rotate(self) -> None:
        """Another root, and another intermediate below it."""
        self.root = mint(
            None, uris=[f"spiffe://{self.name}"], ca=True, name=f"{self.name} root",
            begins=timedelta(days=-1), ends=timedelta(days=10),
        )  # fmt: skip
        self.signer = self.new_signer() if self._intermediate else self.root

    def new_signer(self) -> Minted:
        """Another intermediate of the same root."""
        return mint(
            self.root, uris=[f"spiffe://{self.name}"], ca=True, path_length=0, name=f"{self.name} intermediate",
            begins=timedelta(days=-1), ends=timedelta(days=5),
        )  # fmt: skip

    def id(self, account: str = "reviews", namespace: str = "default") -> str:
        return f"spiffe://{self.name}/ns/{namespace}/sa/{account}"

    def leaf(
        self, account: str = "reviews", namespace: str = "default", *, begins: timedelta = timedelta(minutes=-5),
        ends: timedelta = timedelta(hours=1), now: datetime | None = None, key: ec.EllipticCurvePrivateKey | None = None,
    ) -> Minted:  # fmt: skip
        """A good SVID of a workload, with the DNS name that meshlib's CA gives beside the URI."""
        dns = [f"{account}.{namespace}.{self.name}"]
        return mint(self.signer, uris=[self.id(account, namespace)], dns=dns, begins=begins, ends=ends, now=now, key=key)

    @property
    def bundle(self) -> TrustBundles:
        """This domain's root alone."""
        return bundles(self)


def bundles(*domains: TrustDomain, **roots: Minted) -> TrustBundles:
    """The roots of several trust domains, each for its own."""
    found = {domain.name: (domain.root.der,) for domain in domains}
    found.update({name: (root.der,) for name, root in roots.items()})
    return TrustBundles(found)


class Authority:
    """`file` is its own certificate: what a client that trusts it is given."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._root = mint(None, ca=True, path_length=0, name="tests")
        self.file = folder / "authority.pem"
        self.file.write_bytes(self._root.pem)

    def issue(self, host: str) -> tuple[Path, Path]:
        """Files of a certificate for `host` and of its key."""
        return mint(self._root, dns=[host]).write(self._folder, host)
