"""Which kind a name in a certificate is of (I03), and when a certificate is good (F24); handshakes happen in memory."""

from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from meshlib.model.cluster import UpstreamTls
from meshlib.runtime.tls.objects import peer_of
from meshlib.runtime.tls.outside import _is_named
from meshlib.runtime.tls.verify import CertificateRejected, verify_peer
from tests.support.certificates import TrustDomain, mint
from tests.support.tls import careless, member

DOMAIN = TrustDomain()
THEM = DOMAIN.id("them")


def peer_met(ours: ssl.SSLContext, theirs: ssl.SSLContext, *, we_serve: bool) -> str:
    """Who we say is there.  Raises what either side raises."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    us = ours.wrap_bio(back, there, server_side=we_serve)
    ends = us, theirs.wrap_bio(there, back, server_side=not we_serve)
    for _ in range(6):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return str(peer_of(us))


def test_I03_only_a_uri_is_an_identity() -> None:
    """What looks like one in a name of another kind is none, alone or beside the real one."""
    others = [
        x509.DNSName(THEM),
        x509.RFC822Name("them@default.cluster.local"),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
    ]
    chain = (DOMAIN.signer.der, DOMAIN.root.der)
    assert verify_peer((mint(DOMAIN.signer, uris=[THEM]).der, *chain), DOMAIN.bundle, None, "server").uri == THEM
    with pytest.raises(CertificateRejected, match="exactly one URI SAN"):
        verify_peer((mint(DOMAIN.signer, sans=others).der, *chain), DOMAIN.bundle, None, "server")
    beside = mint(DOMAIN.signer, uris=[DOMAIN.id("thief")], sans=others)
    assert verify_peer((beside.der, *chain), DOMAIN.bundle, None, "server").uri == DOMAIN.id("thief")
    with pytest.raises(CertificateRejected, match="secure naming"):
        verify_peer((beside.der, *chain), DOMAIN.bundle, frozenset({THEM}), "server")


@pytest.mark.parametrize(
    ("wanted", "kind", "value", "same"),
    [
        ("a.test", "DNS", "a.test", True),
        ("a.test", "URI", "a.test", False),
        ("a.test", "email", "a.test", False),
        ("a.test", "DNS", "a.test\0.evil", False),
        ("10.0.0.1", "IP Address", "10.0.0.1", True),
        ("10.0.0.1", "DNS", "10.0.0.1", False),
        ("spiffe://td/x", "URI", "spiffe://td/x", True),
        ("spiffe://td/x", "DNS", "spiffe://td/x", False),
        ("spiffe://td/x", "URI", "spiffe://td/x\0.evil", False),
    ],
)
def test_I03_names_of_outside_hosts(wanted: str, kind: str, value: str, *, same: bool) -> None:
    assert _is_named(wanted, ((kind, value),)) is same


MINUTES = timedelta(minutes=1)

TIMES = {
    "now": (-5, 60, True),
    "as our CA makes it: begun a minute ago": (-1, 1440, True),
    "about to end": (-60, 1, True),
    "ended five minutes ago": (-60, -5, False),
    "begins in five minutes": (5, 60, False),
    "ended a day ago": (-2880, -1440, False),
}


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("case", TIMES)
def test_F24_certificates_are_good_between_their_times(case: str, role: str, tmp_path: Path) -> None:
    begins, ends, good = TIMES[case]
    shown = DOMAIN.leaf("them", begins=begins * MINUTES, ends=ends * MINUTES)
    we_serve = role == "client"
    us = member(DOMAIN, "us")
    ours = us.server() if we_serve else us.client(UpstreamTls())
    theirs = careless(shown, tmp_path, server=not we_serve)
    if good:
        assert peer_met(ours, theirs, we_serve=we_serve) == THEM
        return
    with pytest.raises(ssl.SSLCertVerificationError, match=r"expired|not yet valid"):
        peer_met(ours, theirs, we_serve=we_serve)


@pytest.mark.parametrize(("skew", "good"), [(0, True), (55, True), (-55, True), (600, False), (-600, False)])
def test_F24_clocks_may_be_a_minute_apart(skew: int, *, good: bool) -> None:
    """The certificate of a CA whose clock is ahead or behind; it begins a minute before its time by that clock."""
    begins, ends = timedelta(seconds=skew - 60), timedelta(seconds=skew + (0 if skew < 0 else 600))
    minted = DOMAIN.leaf("them", begins=begins, ends=ends)
    chain = (*minted.chain_der, DOMAIN.root.der)
    if good:
        assert verify_peer(chain, DOMAIN.bundle, None, "server").uri == THEM
        return
    with pytest.raises(CertificateRejected):
        verify_peer(chain, DOMAIN.bundle, None, "server")
