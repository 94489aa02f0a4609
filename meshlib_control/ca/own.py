"""Bring your own authority: a root, or an intermediate with its chain, as PEM files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from meshlib_control.ca.certificates import PrivateKey, issued, not_after, not_before, public_bytes
from meshlib_control.ca.csr import strong
from meshlib_control.ca.errors import CsrRefused, MaterialRefused


@dataclass(frozen=True, slots=True)
class OwnAuthority:
    """What an operator brought: `chain` from the certificate that `key` belongs to up to the root."""

    chain: tuple[x509.Certificate, ...]
    key: PrivateKey = field(repr=False)
    origin: str = ""

    @property
    def is_root(self) -> bool:
        return len(self.chain) == 1

    @property
    def root(self) -> x509.Certificate:
        return self.chain[-1]


def read_own(certificate: Path, key: Path, roots: Path | None = None) -> OwnAuthority:
    """Bring your own: a root, or an intermediate with its chain.  Raises `MaterialRefused`.

    `certificate`: PEM, the certificate of `key` first, each followed by its issuer; `roots`: where the root is, if not there.
    """
    chain = _certificates(certificate)
    private = _private_key(key)
    if roots is not None and not _self_signed(chain[-1]):
        found = [each for each in _certificates(roots) if issued(chain[-1], each)]
        if not found:
            raise _unfit(str(roots), f"none of its certificates issued the last one of {certificate}", "Give the root of it.")
        chain.append(found[0])
    return OwnAuthority(tuple(chain), private, str(certificate))


def check_own(own: OwnAuthority, trust_domain: str, now: float) -> None:
    """Raises `MaterialRefused` when certificates of this authority would not be accepted by anybody, or should not be."""
    where = own.origin or "own certificate authority"
    if public_bytes(own.key.public_key()) != public_bytes(own.chain[0].public_key()):
        raise _unfit(where, "the key is not that of the first certificate", "Put the certificate of the key first.")
    if not _self_signed(own.root):
        raise _unfit(where, "the chain does not end in a root (a self-signed certificate)", "Add the root, or give it apart.")
    for certificate, issuer in zip(own.chain, own.chain[1:], strict=False):
        if not issued(certificate, issuer):
            raise _unfit(where, f"{_named(certificate)} is not issued by the one after it", "Order the chain, leaf to root.")
    for position, certificate in enumerate(own.chain):
        _check_signing(certificate, trust_domain, now, where, below=position + (1 if own.is_root else 0))


def _check_signing(certificate: x509.Certificate, trust_domain: str, now: float, where: str, *, below: int) -> None:
    """`below`: how many signing certificates there will be under this one."""
    name = _named(certificate)
    try:
        strong(certificate.public_key())
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except CsrRefused as error:
        raise _unfit(where, f"{name}: {error}", "Use P-256, or RSA of 2048 bits and more.") from error
    except x509.ExtensionNotFound as error:
        raise _unfit(where, f"{name} lacks basic constraints or key usage", "Issue it as a CA certificate.") from error
    if not constraints.ca or not usage.key_cert_sign:
        raise _unfit(where, f"{name} may not sign certificates (cA, keyCertSign)", "Issue it as a CA certificate.")
    if constraints.path_length is not None and constraints.path_length < below:
        raise _unfit(where, f"{name} allows a path of {constraints.path_length} below it, and {below} are needed", "Raise it.")
    if not not_before(certificate) <= now < not_after(certificate):
        raise _unfit(where, f"{name} is not valid now", "Renew it, or set the clock.")
    if not _permits(certificate, trust_domain):
        raise _unfit(where, f"{name} is constrained to other names than those of {trust_domain}", "Permit this trust domain.")


def _permits(certificate: x509.Certificate, trust_domain: str) -> bool:
    """Whether URI and DNS names of the trust domain pass the name constraints (RFC 5280, section 4.2.1.10)."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return True
    for kind, matches in ((x509.UniformResourceIdentifier, _uri_matches), (x509.DNSName, _dns_matches)):
        permitted = [each.value for each in constraints.permitted_subtrees or () if isinstance(each, kind)]
        excluded = [each.value for each in constraints.excluded_subtrees or () if isinstance(each, kind)]
        if permitted and not any(matches(trust_domain, each) for each in permitted):
            return False
        if any(matches(trust_domain, each) for each in excluded):
            return False
    return True


def _uri_matches(host: str, constraint: str) -> bool:
    return host.endswith(constraint) if constraint.startswith(".") else host == constraint


def _dns_matches(domain: str, constraint: str) -> bool:
    return not constraint or f".{domain}".endswith("." + constraint.removeprefix("."))


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise _unfit(str(path), error.strerror or str(error), "Give a PEM file that this service may read.") from error
    except ValueError as error:
        raise _unfit(str(path), "it holds no certificates in PEM form", "Convert it to PEM.") from error


def _private_key(path: Path) -> PrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise _unfit(str(path), error.strerror or str(error), "Give a PEM file that this service may read.") from error
    except TypeError as error:
        raise _unfit(str(path), "the key has a passphrase", "Decrypt it: `openssl pkey -in KEY -out KEY.clear`.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _unfit(str(path), "it holds no private key in PEM form", "Convert it to PKCS #8 PEM.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise _unfit(str(path), "it is neither an ECDSA nor an RSA key", "Use P-256.")
    return key


def _self_signed(certificate: x509.Certificate) -> bool:
    return issued(certificate, certificate)


def _named(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or f"certificate {certificate.serial_number:x}"


def _unfit(where: str, why: str, next_step: str) -> MaterialRefused:
    return MaterialRefused("this certificate authority cannot be used", where=where, why=why, next_step=next_step)
