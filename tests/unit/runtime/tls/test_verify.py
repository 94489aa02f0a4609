"""The verifier by itself: chains that OpenSSL would have passed, and which rule each refusal names."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.model.identity import SpiffeId, TrustBundles
from meshlib.runtime.tls.verify import CertificateRejected, anchored, svid_of, verify_peer
from tests.support.certificates import CLIENT, SERVER, Minted, TrustDomain, bundles, mint

OURS, THEIRS = TrustDomain("td1"), TrustDomain("td2")
TRUST = bundles(OURS, THEIRS)
SERVICE = OURS.id("reviews")


def chain(minted: Minted) -> tuple[bytes, ...]:
    return (*minted.chain_der, minted.root.der)


def leaf(**changes: Any) -> Minted:
    arguments: dict[str, Any] = {"issuer": OURS.signer, "uris": [SERVICE]} | changes
    return mint(**arguments)


def test_a_good_peer() -> None:
    minted = OURS.leaf("reviews")
    peer = verify_peer(chain(minted), TRUST, frozenset({SERVICE}), "server")
    assert (peer.uri, peer.dns_names) == (SERVICE, ("reviews.default.td1",))
    assert peer.not_after == minted.certificate.not_valid_after_utc.timestamp()


def test_the_end_of_a_peer_is_the_end_of_its_chain() -> None:
    """A leaf that outlives its intermediate proves nothing after that."""
    signer = mint(OURS.root, uris=["spiffe://td1"], ca=True, name="short", ends=timedelta(minutes=5))
    peer = verify_peer(chain(mint(signer, uris=[SERVICE])), TRUST, None, "client")
    assert peer.not_after == signer.certificate.not_valid_after_utc.timestamp()


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"ca": True, "usages": ["digital_signature"]}, "leaf is no CA"),
        ({"usages": ["digital_signature", "key_cert_sign"]}, "no keyCertSign"),
        ({"usages": ["digital_signature", "crl_sign"]}, "no cRLSign"),
        ({"usages": ["key_agreement"]}, "digitalSignature"),
        ({"usages": []}, "key usage"),
        ({"usage_critical": False}, "key usage is critical"),
        ({"extended": [SERVER]}, "extended key usage"),
        ({"extended": [CLIENT]}, "extended key usage"),
        ({"uris": []}, "exactly one URI SAN"),
        ({"uris": [SERVICE, SERVICE]}, "exactly one URI SAN"),
        ({"uris": ["https://td1/x"]}, "SPIFFE ID"),
        ({"uris": ["spiffe://td1"]}, "SPIFFE ID with a path"),
        ({"uris": ["spiffe://td1/x\0y"]}, "no control characters"),
        ({"sans": [x509.RFC822Name("a\0@b.test")]}, "no control characters"),
        ({"sans": [x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x0c\x03a\0b")]}, "no control characters"),
        ({"uris": [], "raw": [("2.5.29.17", b"nonsense")]}, "well-formed"),
        ({"uris": ["spiffe://td3/x"]}, "own trust domain"),
        ({"uris": ["spiffe://td2/x"]}, "own trust domain"),
        ({"begins": timedelta(hours=-3), "ends": timedelta(hours=-1)}, "expired"),
        ({"begins": timedelta(hours=1), "ends": timedelta(hours=2)}, "not yet valid"),
    ],
)
def test_the_rule_is_named(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(CertificateRejected) as caught:
        verify_peer(chain(leaf(**changes)), TRUST, None, "server")
    assert caught.value.rule == rule
    assert rule in str(caught.value)


@pytest.mark.parametrize(
    ("signer", "rule"),
    [
        ({"uris": ["spiffe://td1/ns/default/sa/signer"], "ca": True}, "signer without a path"),
        ({"uris": ["spiffe://td1/"], "ca": True}, "signer without a path"),
        ({"uris": ["spiffe://td1"], "ca": False}, "signer is a CA"),
        ({"uris": ["spiffe://td1"], "ca": True, "usages": ["digital_signature"]}, "signer is a CA"),
        ({"raw": [("2.5.29.17", b"nonsense")], "ca": True}, "well-formed"),
        ({"ca": True, "begins": timedelta(hours=-3), "ends": timedelta(hours=-1)}, "expired"),
    ],
)
def test_signers_have_rules_too(signer: dict[str, Any], rule: str) -> None:
    """Whatever verified the chain before."""
    made: dict[str, Any] = {"issuer": OURS.root, "name": "signer"} | signer
    with pytest.raises(CertificateRejected) as caught:
        verify_peer(chain(mint(mint(**made), uris=[SERVICE])), TRUST, None, "server")
    assert caught.value.rule == rule


@pytest.mark.parametrize("names", [["spiffe://td1"], [], ["https://ca.test/x"]])
def test_signers_need_no_identity(names: list[str]) -> None:
    signer = mint(OURS.root, uris=names, ca=True, name="signer")
    assert verify_peer(chain(mint(signer, uris=[SERVICE])), TRUST, None, "server")


def test_a_minute_of_skew_is_forgiven() -> None:
    minted = OURS.leaf("reviews")
    ends = minted.certificate.not_valid_after_utc.timestamp()
    assert verify_peer(chain(minted), TRUST, None, "server", now=ends + 59)
    with pytest.raises(CertificateRejected, match="expired"):
        verify_peer(chain(minted), TRUST, None, "server", now=ends + 61)


def test_secure_naming_names_who_is_there_and_who_may_be() -> None:
    with pytest.raises(CertificateRejected, match=r"secure naming.*sa/ratings; allowed: spiffe://td1/ns/default/sa/reviews"):
        verify_peer(chain(OURS.leaf("ratings")), TRUST, frozenset({SERVICE}), "server")


@pytest.mark.parametrize("length", [0, 1, 11])
def test_chains_of_no_or_too_many_certificates(length: int) -> None:
    der = OURS.leaf("reviews").der
    with pytest.raises(CertificateRejected, match="chain"):
        verify_peer([der] * length, TRUST, None, "server")


def test_garbage_is_refused_as_such() -> None:
    with pytest.raises(CertificateRejected, match="well-formed"):
        svid_of(b"no certificate")


# --- chains that nobody has verified yet


@pytest.mark.parametrize("count", [0, 11])
def test_a_chain_is_not_searched_without_end(count: int) -> None:
    with pytest.raises(CertificateRejected, match="chain"):
        anchored([OURS.leaf("reviews").der] * count, TRUST)


@pytest.mark.parametrize("shown", ["leaf first", "with the root", "others between", "intermediates in the wrong order"])
def test_the_way_to_the_own_root_is_found(shown: str) -> None:
    middle = mint(OURS.root, uris=["spiffe://td1"], ca=True, name="middle")
    lower = mint(middle, uris=["spiffe://td1"], ca=True, name="lower")
    minted = mint(lower, uris=[SERVICE])
    sent = {
        "leaf first": [minted, lower, middle],
        "with the root": [minted, lower, middle, OURS.root],
        "others between": [minted, THEIRS.signer, lower, OURS.signer, middle],
        "intermediates in the wrong order": [minted, middle, lower],
    }[shown]
    found = anchored([each.der for each in sent], TRUST)
    assert found == (minted.der, lower.der, middle.der, OURS.root.der)
    assert verify_peer(found, TRUST, None, "client").uri == SERVICE


def test_no_way_to_the_own_root() -> None:
    """A forged issuer name, another domain's CA, a missing intermediate."""
    forged = mint(TrustDomain("td1").signer, uris=[SERVICE])
    for sent in (forged.chain_der, leaf(uris=[THEIRS.id("x")]).chain_der, (OURS.leaf("reviews").der,)):
        with pytest.raises(CertificateRejected, match="own trust domain"):
            anchored(sent, TRUST)


def test_certificates_in_a_circle_come_to_an_end() -> None:
    first = mint(None, ca=True, name="a")
    second = mint(first, ca=True, name="b")
    circle = mint(second, ca=True, name="a", key=first.key)
    with pytest.raises(CertificateRejected):
        anchored([mint(circle, uris=[SERVICE]).der, circle.der, second.der, first.der], TRUST)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.characters(min_codepoint=0, max_codepoint=127), max_size=60))
def test_only_spiffe_ids_are_identities(text: str) -> None:
    """Whatever follows the scheme: the certificate is refused, or what comes out is exactly what went in."""
    uri = f"spiffe://td1/{text}"
    try:
        der = leaf(uris=[uri]).der
    except ValueError:
        return
    try:
        found = svid_of(der)
    except CertificateRejected:
        with pytest.raises(ValueError):  # the reason differs
            assert SpiffeId.parse(uri).path == ""
        return
    assert str(found.id) == uri


def test_no_roots_no_peer() -> None:
    with pytest.raises(CertificateRejected, match="roots known for: none"):
        verify_peer(chain(OURS.leaf("reviews")), TrustBundles(), None, "server")
