"""Who is at the other end of an mTLS connection: SPIFFE's rules for leaves (XV), and that trust still holds now."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from meshlib.lowlevel import SpiffeId
from meshlib_control.ca import certificates
from meshlib_control.ca.attestation import Attestation
from meshlib_control.ca.certificates import Issuer, Validity, der, pem
from meshlib_control.ca.errors import CallerRefused, IdentityBanned, RequestRefused
from meshlib_control.ca.json_tokens import JsonTokens
from meshlib_control.ca.model import IssuedCertificate
from meshlib_control.ca.peers import AuthContext, address_of, has_certificate, is_encrypted, peer_of
from meshlib_control.ca.tokens import JoinTokens
from meshlib_control.store.memory import MemoryStore
from tests.support.authority import REVIEWS, TRUST_DOMAIN, SettableClock, new_request, running_authority

NOW = 1_800_000_000.0
VALID = Validity(NOW - 3600, NOW + 3600)
ROOT_KEY = certificates.new_key()
ROOT = certificates.root_certificate(ROOT_KEY, TRUST_DOMAIN, VALID)
KEY = certificates.new_key()
ISSUER = Issuer(certificates.intermediate_certificate(KEY.public_key(), Issuer(ROOT, ROOT_KEY), TRUST_DOMAIN, VALID), KEY)
LEAF_KEY = certificates.new_key()

URI = x509.UniformResourceIdentifier
BOTH = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]


def usage(**on: bool) -> x509.KeyUsage:
    names = [
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign",
        "crl_sign", "encipher_only", "decipher_only",
    ]  # fmt: skip
    return x509.KeyUsage(**{name: on.get(name, name == "digital_signature") for name in names})


def leaf(
    *uris: str,
    ca: bool = False,
    key_usage: x509.KeyUsage | None = None,
    usages: Sequence[x509.ObjectIdentifier] = BOTH,
    validity: Validity = VALID,
    names: Sequence[x509.GeneralName] = (),
    without: type[x509.ExtensionType] | None = None,
) -> x509.Certificate:
    """A certificate of the right authority, good but for what a test changes."""
    alternative = [*map(URI, uris or (str(REVIEWS),)), *names]
    extensions: list[x509.ExtensionType] = [
        x509.BasicConstraints(ca=ca, path_length=None),
        key_usage or usage(),
        x509.ExtendedKeyUsage(usages),
        x509.SubjectAlternativeName(alternative),
    ]
    builder = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(ISSUER.certificate.subject)
    builder = builder.public_key(LEAF_KEY.public_key()).serial_number(1)
    builder = builder.not_valid_before(datetime.fromtimestamp(validity.not_before, UTC))
    builder = builder.not_valid_after(datetime.fromtimestamp(validity.not_after, UTC))
    for extension in extensions:
        if without is None or not isinstance(extension, without):
            builder = builder.add_extension(extension, critical=True)
    return builder.sign(KEY, hashes.SHA256())


def context(certificate: x509.Certificate, *chain: x509.Certificate) -> AuthContext:
    """As gRPC gives it."""
    return {
        "transport_security_type": [b"ssl"],
        "x509_pem_cert": [pem(certificate).encode()],
        "x509_pem_cert_chain": [pem(each).encode() for each in chain or (ISSUER.certificate,)],
    }


def peer(certificate: x509.Certificate, now: float = NOW) -> SpiffeId:
    return peer_of(context(certificate), TRUST_DOMAIN, [der(ROOT)], now).identity


GOOD = {
    "plain": leaf(),
    "with DNS names": leaf(names=[x509.DNSName("reviews.test")]),
    "without extended usages": leaf(without=x509.ExtendedKeyUsage),
    "without basic constraints": leaf(without=x509.BasicConstraints),
    "with more usages": leaf(key_usage=usage(digital_signature=True, key_encipherment=True, key_agreement=True)),
}


@pytest.mark.parametrize("certificate", GOOD.values(), ids=GOOD.keys())
def test_I01_svids_are_accepted(certificate: x509.Certificate) -> None:
    assert peer(certificate) == REVIEWS


BAD = {
    "XV: a CA": (leaf(ca=True), "leaf is no CA"),
    "XV: keyCertSign": (leaf(key_usage=usage(digital_signature=True, key_cert_sign=True)), "no keyCertSign"),
    "XV: cRLSign": (leaf(key_usage=usage(digital_signature=True, crl_sign=True)), "no cRLSign"),
    "XV: no digitalSignature": (leaf(key_usage=usage(digital_signature=False, key_agreement=True)), "digitalSignature"),
    "XV: no key usage": (leaf(without=x509.KeyUsage), "key usage"),
    "XV: two URIs": (leaf(str(REVIEWS), "spiffe://cluster.local/ns/default/sa/other"), "exactly one URI SAN"),
    "XV: the same URI twice": (leaf(str(REVIEWS), str(REVIEWS)), "exactly one URI SAN"),
    "XV: no names": (leaf(without=x509.SubjectAlternativeName), "exactly one URI SAN"),
    "XV: https": (leaf("https://cluster.local/ns/default/sa/reviews"), "SPIFFE ID"),
    "XV: no path": (leaf("spiffe://cluster.local"), "SPIFFE ID with a path"),
    "XV: a root path": (leaf("spiffe://cluster.local/"), "no SPIFFE path"),
    "XV: dots": (leaf("spiffe://cluster.local/ns/../sa/reviews"), "no SPIFFE path"),
    "XV: server only": (leaf(usages=BOTH[:1]), "extended key usage"),
    "XV: client only": (leaf(usages=BOTH[1:]), "extended key usage"),
    "another trust domain": (leaf("spiffe://other.test/ns/default/sa/reviews"), "another trust domain"),
    "I02: NUL": (leaf("spiffe://cluster.local/ns/default/sa/reviews\x00.evil"), "no control characters"),
    "expired": (leaf(validity=Validity(NOW - 3600, NOW)), "not valid now"),
    "not yet valid": (leaf(validity=Validity(NOW + 1, NOW + 3600)), "not valid now"),
}


@pytest.mark.parametrize(("certificate", "why"), BAD.values(), ids=BAD.keys())
def test_I01_what_is_no_svid_is_refused(certificate: x509.Certificate, why: str) -> None:
    with pytest.raises(CallerRefused, match=why):
        peer(certificate)


def test_F25_a_root_that_is_trusted_no_more_is_noticed_on_connections_that_are_open() -> None:
    other = certificates.root_certificate(certificates.new_key(), TRUST_DOMAIN, VALID)
    assert peer_of(context(leaf()), TRUST_DOMAIN, [der(other), der(ROOT)], NOW)
    for roots in ([], [der(other)]):
        with pytest.raises(CallerRefused, match="does not lead to a root that is trusted now"):
            peer_of(context(leaf()), TRUST_DOMAIN, roots, NOW)


def test_the_order_of_the_chain_does_not_matter() -> None:
    """Whether the leaf or the root is among it depends on the TLS library and the client."""
    certificate = leaf()
    for chain in itertools.permutations((certificate, ISSUER.certificate, ROOT)):
        assert peer_of(context(certificate, *chain), TRUST_DOMAIN, [der(ROOT)], NOW).identity == REVIEWS


@pytest.mark.parametrize(
    "change", [{"x509_pem_cert": []}, {"x509_pem_cert": [b"garbage"]}, {"x509_pem_cert_chain": [b"garbage"]}], ids=repr
)
def test_a_context_without_a_certificate_is_nobody(change: dict[str, list[bytes]]) -> None:
    with pytest.raises(CallerRefused, match="no certificate that can be read"):
        peer_of({**context(leaf()), **change}, TRUST_DOMAIN, [der(ROOT)], NOW)


def test_what_a_context_says_of_its_connection() -> None:
    assert is_encrypted(context(leaf()))
    assert has_certificate(context(leaf()))
    contexts: list[AuthContext] = [{}, {"transport_security_type": [b"insecure"]}, {"transport_security_type": []}]
    for insecure in contexts:
        assert not is_encrypted(insecure)
        assert not has_certificate(insecure)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("ipv4:10.0.0.7:51234", "10.0.0.7"),
        ("ipv6:%5B::1%5D:51234", "::1"),
        ("ipv6:[fd00::1]:80", "fd00::1"),
        ("unix:/run/socket", ""),
        ("", ""),
    ],
)
def test_addresses_in_grpcs_names(name: str, address: str) -> None:
    assert address_of(name) == address


# Renewal with the certificate that one has


def presented(issued: IssuedCertificate) -> AuthContext:
    chain = [each.encode() for each in issued.chain_pem]
    return {"transport_security_type": [b"ssl"], "x509_pem_cert": chain[:1], "x509_pem_cert_chain": chain[1:]}


async def test_T04_a_renewal_is_for_the_same_identity_and_keeps_the_time_of_the_proof() -> None:
    clock = SettableClock()
    async with running_authority(clock=clock) as authority:
        attestation = Attestation(
            authority,
            JoinTokens(MemoryStore(), TRUST_DOMAIN),
            JsonTokens([], TRUST_DOMAIN),
            clock=clock,
            max_chain_age=100_000.0,
        )
        issued = authority.issue(new_request()[0], REVIEWS, caller="join token")
        proved = clock.now
        for _ in range(2):
            clock.now += 43_200
            caller = attestation.certificate(presented(issued))
            assert (caller.identity, caller.at) == (REVIEWS, proved)
            issued = authority.issue(new_request()[0], caller.identity, caller=caller.caller, attested_at=caller.at)
        clock.now += 43_200
        with pytest.raises(CallerRefused, match="proved itself too long ago"):
            attestation.certificate(presented(issued))


async def test_T04_an_old_certificate_of_a_banned_identity_gets_nothing() -> None:
    async with running_authority() as authority:
        attestation = Attestation(authority, JoinTokens(MemoryStore(), TRUST_DOMAIN), JsonTokens([], TRUST_DOMAIN))
        stolen = presented(authority.issue(new_request()[0], REVIEWS, caller="test"))

        def renew() -> IssuedCertificate:
            caller = attestation.certificate(stolen)
            return authority.issue(new_request()[0], caller.identity, caller=caller.caller, attested_at=caller.at)

        assert renew()
        await authority.ban(REVIEWS)
        with pytest.raises(IdentityBanned):
            renew()


async def test_T04_a_certificate_of_a_revoked_root_gets_nothing() -> None:
    async with running_authority() as authority:
        attestation = Attestation(authority, JoinTokens(MemoryStore(), TRUST_DOMAIN), JsonTokens([], TRUST_DOMAIN))
        old = presented(authority.issue(new_request()[0], REVIEWS, caller="test"))
        for step in (authority.prepare, authority.activate, authority.taint):
            await step()
            assert attestation.certificate(old).identity == REVIEWS
        await authority.revoke()
        with pytest.raises(CallerRefused, match="does not lead to a root"):
            attestation.certificate(old)


async def test_the_control_service_renews_nothing_here() -> None:
    """Its own certificate names the one identity that this way is closed to."""
    async with running_authority() as authority:
        attestation = Attestation(authority, JoinTokens(MemoryStore(), TRUST_DOMAIN), JsonTokens([], TRUST_DOMAIN))
        chain = authority.control_identity().chain_pem
        caller = attestation.certificate(
            {"x509_pem_cert": [chain.split(b"-----END")[0] + b"-----END CERTIFICATE-----\n"], "x509_pem_cert_chain": [chain]}
        )
        with pytest.raises(RequestRefused):
            authority.issue(new_request()[0], caller.identity, caller=caller.caller)


def test_C06_a_workload_signs_for_nobody() -> None:
    """Its certificate leads to a root, and so would everything that its key has signed."""
    thief = leaf("spiffe://cluster.local/ns/default/sa/thief")
    builder = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(thief.subject).serial_number(2)
    builder = builder.public_key(LEAF_KEY.public_key()).add_extension(usage(), critical=True)
    builder = builder.not_valid_before(datetime.fromtimestamp(VALID.not_before, UTC))
    builder = builder.not_valid_after(datetime.fromtimestamp(VALID.not_after, UTC))
    forged = builder.add_extension(x509.SubjectAlternativeName([URI(str(REVIEWS))]), critical=True).sign(
        LEAF_KEY, hashes.SHA256()
    )
    roots = [der(ROOT)]
    assert peer_of(context(thief, ISSUER.certificate), TRUST_DOMAIN, roots, NOW).identity.service_account == "thief"
    with pytest.raises(CallerRefused, match="does not lead to a root"):
        peer_of(context(forged, thief, ISSUER.certificate), TRUST_DOMAIN, roots, NOW)
