"""The certificates themselves: what OpenSSL and Python's ssl say of them, and that nothing is in them but the template."""

from __future__ import annotations

import ssl
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.lowlevel import SpiffeId
from meshlib_control.ca import certificates
from meshlib_control.ca.certificates import ATTESTED_AT, Issuer, Validity, Workload, attested_at, pem
from meshlib_control.ca.names import dns_name, workload_id
from tests.support.authority import REVIEWS, TRUST_DOMAIN

NOW = datetime.now(UTC).timestamp()
YEAR = Validity(NOW - 60, NOW + 365 * 86400)
DAY = Validity(NOW - 60, NOW + 86400)


def hierarchy(trust_domain: str = TRUST_DOMAIN) -> tuple[x509.Certificate, Issuer]:
    """The root, and who signs below it."""
    root_key, key = certificates.new_key(), certificates.new_key()
    root = certificates.root_certificate(root_key, trust_domain, YEAR)
    intermediate = certificates.intermediate_certificate(key.public_key(), Issuer(root, root_key), trust_domain, YEAR)
    return root, Issuer(intermediate, key)


ROOT, ISSUER = hierarchy()


def leaf(identity: SpiffeId = REVIEWS, issuer: Issuer = ISSUER, **changes: object) -> x509.Certificate:
    values = {"dns_names": (dns_name(identity),), "validity": DAY, "serial": certificates.new_serial(), "attested_at": NOW}
    workload = Workload(identity, **{**values, **changes})  # type: ignore[arg-type]
    return certificates.workload_certificate(certificates.new_key().public_key(), issuer, workload)


def openssl(folder: Path, certificate: x509.Certificate, *options: str) -> str:
    """What ``openssl verify`` says, with strict RFC 5280 checks."""
    for name, content in (("root", ROOT), ("intermediate", ISSUER.certificate), ("leaf", certificate)):
        (folder / f"{name}.pem").write_text(pem(content))
    files = ["-CAfile", "root.pem", "-untrusted", "intermediate.pem", "leaf.pem"]
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", *options, *files], cwd=folder, capture_output=True, text=True, check=False
    )
    return "OK" if done.returncode == 0 else done.stderr + done.stdout


@pytest.mark.parametrize("purpose", ["sslclient", "sslserver"])
def test_openssl_accepts_the_chain(tmp_path: Path, purpose: str) -> None:
    assert openssl(tmp_path, leaf(), "-purpose", purpose) == "OK"
    assert openssl(tmp_path, leaf(), "-verify_hostname", "reviews.default.cluster.local") == "OK"
    assert "hostname mismatch" in openssl(tmp_path, leaf(), "-verify_hostname", "ratings.default.cluster.local")


def test_openssl_refuses_a_leaf_of_another_trust_domain(tmp_path: Path) -> None:
    """The name constraint holds even if this authority were made to sign it (T11)."""
    foreign = leaf(SpiffeId.of_workload("other.test", "default", "reviews"))
    assert "permitted subtree violation" in openssl(tmp_path, foreign)


def test_openssl_refuses_what_a_leaf_signs(tmp_path: Path) -> None:
    key = certificates.new_key()
    below = certificates.workload_certificate(
        key.public_key(), ISSUER, Workload(REVIEWS, (dns_name(REVIEWS),), DAY, certificates.new_serial(), NOW)
    )
    forged = leaf(issuer=Issuer(below, key))
    (tmp_path / "below.pem").write_text(pem(below))
    assert "invalid CA certificate" in openssl(tmp_path, forged, "-untrusted", "below.pem")


def test_openssl_refuses_a_second_intermediate(tmp_path: Path) -> None:
    """Path length 0."""
    key = certificates.new_key()
    second = certificates.intermediate_certificate(key.public_key(), ISSUER, TRUST_DOMAIN, YEAR)
    (tmp_path / "second.pem").write_text(pem(second))
    assert "path length constraint exceeded" in openssl(tmp_path, leaf(issuer=Issuer(second, key)), "-untrusted", "second.pem")


def test_python_completes_a_mutual_handshake(tmp_path: Path) -> None:
    """The loopback of two `ssl` objects, both with certificates of this authority."""

    def context(purpose: int) -> ssl.SSLContext:
        key = certificates.new_key()
        workload = Workload(REVIEWS, (dns_name(REVIEWS),), DAY, certificates.new_serial(), NOW)
        own = certificates.workload_certificate(key.public_key(), ISSUER, workload)
        (tmp_path / "chain.pem").write_text(pem(own) + pem(ISSUER.certificate))
        (tmp_path / "key.pem").write_bytes(certificates.key_pem(key))
        made = ssl.SSLContext(purpose)
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(cadata=pem(ROOT))
        made.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
        return made

    client_in, client_out, server_in, server_out = (ssl.MemoryBIO() for _ in range(4))
    server = context(ssl.PROTOCOL_TLS_SERVER).wrap_bio(server_in, server_out, server_side=True)
    client = context(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(client_in, client_out, server_hostname=dns_name(REVIEWS))
    for _ in range(6):
        for side, out, into in ((client, client_out, server_in), (server, server_out, client_in)):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
            into.write(out.read())
    for side in (client, server):
        names = side.getpeercert()
        assert names is not None
        assert ("URI", str(REVIEWS)) in names["subjectAltName"]


def extension(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> x509.Extension[x509.ExtensionType]:
    return certificate.extensions.get_extension_for_oid(oid)


@pytest.mark.parametrize(("certificate", "path_length"), [(ROOT, 1), (ISSUER.certificate, 0)], ids=["root", "intermediate"])
def test_signing_certificates(certificate: x509.Certificate, path_length: int) -> None:
    """X509-SVID sections 2 to 4: a CA of one trust domain, whose ID has no path."""
    constraints = extension(certificate, ExtensionOID.BASIC_CONSTRAINTS)
    assert (constraints.critical, constraints.value) == (True, x509.BasicConstraints(ca=True, path_length=path_length))
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.digital_signature) == (True, True, False)
    names = extension(certificate, ExtensionOID.NAME_CONSTRAINTS)
    expected = x509.NameConstraints([x509.UniformResourceIdentifier(TRUST_DOMAIN)], None)
    assert (names.critical, names.value) == (True, expected)
    alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(alternative) == [x509.UniformResourceIdentifier(f"spiffe://{TRUST_DOMAIN}")]
    assert extension(certificate, ExtensionOID.SUBJECT_KEY_IDENTIFIER)
    assert extension(certificate, ExtensionOID.AUTHORITY_KEY_IDENTIFIER)
    assert certificate.subject


def test_each_names_its_issuers_key() -> None:
    def ids(certificate: x509.Certificate) -> tuple[bytes, bytes | None]:
        own = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        return own, certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier

    assert ids(leaf())[1] == ids(ISSUER.certificate)[0]
    assert ids(ISSUER.certificate)[1] == ids(ROOT)[0] == ids(ROOT)[1]


def test_authorities_of_one_trust_domain_have_different_names() -> None:
    """Chains are found by name: two roots with one name would shadow each other during a rotation."""
    assert hierarchy()[0].subject != hierarchy()[0].subject


def test_names_fit_however_long_the_trust_domain() -> None:
    root, issuer = hierarchy("a" * 60 + "." + "b" * 60 + "." + "c" * 60)
    assert root.subject != issuer.certificate.subject


names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


@settings(max_examples=60, deadline=None)
@given(
    namespace=names,
    account=st.lists(names, min_size=1, max_size=3).map(".".join),
    lasting=st.integers(1, 90 * 86400),
    proved=st.integers(0, 4_000_000_000),
    key=st.sampled_from([ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)]),
)
def test_T01_issued_is_within_the_template(
    namespace: str, account: str, lasting: int, proved: int, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
) -> None:
    """Property: whoever it is for, a certificate has exactly these extensions, with exactly these values."""
    identity = workload_id(TRUST_DOMAIN, namespace, account)
    serial = certificates.new_serial()
    validity = Validity(NOW - 60, NOW + lasting)
    issued = certificates.workload_certificate(
        key.public_key(), ISSUER, Workload(identity, (dns_name(identity),), validity, serial, float(proved))
    )
    assert issued.subject == x509.Name([])
    assert issued.issuer == ISSUER.certificate.subject
    assert issued.serial_number == serial < 1 << 128
    assert issued.public_key() == key.public_key()
    assert issued.not_valid_before_utc.timestamp() == int(NOW - 60)
    assert issued.not_valid_after_utc.timestamp() == int(NOW + lasting)
    found = {each.oid: (each.critical, each.value) for each in issued.extensions}
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    alternative = [x509.UniformResourceIdentifier(str(identity)), x509.DNSName(f"{account}.{namespace}.{TRUST_DOMAIN}")]
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    assert found.pop(ExtensionOID.BASIC_CONSTRAINTS) == (True, x509.BasicConstraints(ca=False, path_length=None))
    assert found.pop(ExtensionOID.KEY_USAGE) == (True, usage)
    assert found.pop(ExtensionOID.EXTENDED_KEY_USAGE) == (False, x509.ExtendedKeyUsage(both))
    assert found.pop(ExtensionOID.SUBJECT_ALTERNATIVE_NAME) == (True, x509.SubjectAlternativeName(alternative))
    assert set(found) == {ATTESTED_AT, ExtensionOID.SUBJECT_KEY_IDENTIFIER, ExtensionOID.AUTHORITY_KEY_IDENTIFIER}
    assert attested_at(issued) == proved
    issued.verify_directly_issued_by(ISSUER.certificate)


def test_serials_are_128_random_bits() -> None:
    serials = {certificates.new_serial() for _ in range(2000)}
    assert len(serials) == 2000
    assert max(serials).bit_length() == 128
    assert min(serials) > 0


def test_a_time_of_attestation_that_is_none_is_not_taken_for_one() -> None:
    for value in (b"", b"\x18\x0f", b"\x18\x0fyesterday......", b"\x17\x0d270101000000Z", b"\x18\x0e20270101000000Z"):
        key = certificates.new_key()
        name = x509.Name([])
        builder = certificates._builder(name, name, key.public_key(), DAY, 1)
        certificate = builder.add_extension(x509.UnrecognizedExtension(ATTESTED_AT, value), critical=False)
        assert attested_at(certificate.sign(key, hashes.SHA256())) is None


def test_a_chain_is_found_in_any_order() -> None:
    other_root, other = hierarchy()
    issued = leaf()
    assert certificates.leads_to(issued, [other.certificate, ROOT, ISSUER.certificate], [ROOT])
    assert not certificates.leads_to(issued, [ISSUER.certificate], [other_root])
    assert not certificates.leads_to(issued, [], [ROOT])
    assert not certificates.leads_to(issued, [ISSUER.certificate], [])


def test_arcs_of_the_extension_fit_everybodys_integers() -> None:
    """Go refuses to parse certificates with larger ones."""
    assert all(int(arc) < 1 << 28 for arc in ATTESTED_AT.dotted_string.split("."))
