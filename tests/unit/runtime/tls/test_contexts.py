"""What contexts are made of, and that they follow identity and trust.  Handshakes happen in memory."""

from __future__ import annotations

import gc
import ssl
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

from meshlib.model.cluster import UpstreamTls
from meshlib.model.identity import TrustBundles
from meshlib.runtime.identity.static import StaticIdentity
from meshlib.runtime.tls import loading
from meshlib.runtime.tls.contexts import ALPN, TlsContexts
from meshlib.runtime.tls.errors import IdentityMissing
from meshlib.runtime.tls.objects import TlsObject, TlsSocket, peer_of, sent_chain, verified_chain
from tests.support.certificates import TrustDomain, bundles, mint
from tests.support.tls import careless, contexts, material, member

DOMAIN = TrustDomain()


class Pair:
    """Both ends of one connection."""

    def __init__(self, client: ssl.SSLContext, server: ssl.SSLContext, *, session: ssl.SSLSession | None = None) -> None:
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(back, there, session=session)
        self.server = server.wrap_bio(there, back, server_side=True)

    def shake_hands(self) -> Pair:
        """Raises what either side raises."""
        for _ in range(6):
            for end in (self.client, self.server):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    pass
        return self

    def send(self, data: bytes) -> bytes:
        self.client.write(data)
        return bytes(self.server.read(4096))


def test_both_sides_know_each_other() -> None:
    us, them = member(DOMAIN, "us"), member(DOMAIN, "them")
    pair = Pair(us.client(UpstreamTls()), them.server())
    assert peer_of(pair.client) is None
    pair.shake_hands()
    assert [str(peer_of(end)) for end in (pair.client, pair.server)] == [DOMAIN.id("them"), DOMAIN.id("us")]
    assert pair.send(b"hello") == b"hello"
    assert (pair.client.version(), pair.client.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")


def test_this_python_tells_the_chain_that_it_verified() -> None:
    """A private method on 3.11 and 3.12, a public one from 3.13: leaf, intermediate and root."""
    pair = Pair(member(DOMAIN, "us").client(UpstreamTls()), member(DOMAIN, "them").server()).shake_hands()
    for end in (pair.client, pair.server):
        assert isinstance(end, TlsObject)
        assert verified_chain(end)[1:] == (DOMAIN.signer.der, DOMAIN.root.der), sys.version
        assert sent_chain(end)[1:] == (DOMAIN.signer.der,)


@pytest.mark.parametrize("known", [True, False])
def test_nothing_is_read_before_the_peer_is_known(tmp_path: Path, *, known: bool) -> None:
    """Some servers leave the handshake to the first read; OpenSSL would do it without us."""
    shown = DOMAIN.leaf("us") if known else mint(DOMAIN.signer, uris=["https://no.spiffe.id"])
    pair = Pair(careless(shown, tmp_path, server=False), member(DOMAIN, "them").server())

    def talk() -> Any:
        for _ in range(6):
            for operation in (lambda: pair.client.write(b"x"), lambda: pair.server.read(10)):
                try:
                    if (got := operation()) == b"x":
                        return got
                except ssl.SSLWantReadError:
                    pass
        return None

    if known:
        assert talk() == b"x"
        assert str(peer_of(pair.server)) == DOMAIN.id("us")
    else:
        with pytest.raises(ssl.SSLCertVerificationError):
            talk()
        assert peer_of(pair.server) is None


def test_a_real_context_by_itself_is_good_for_nothing() -> None:
    """`SSLObject.context` leads to it; without a check, no handshake succeeds."""
    us, them = member(DOMAIN, "us"), member(DOMAIN, "them")
    pair = Pair(us.client(UpstreamTls()), them.server()).shake_hands()
    inner = pair.server.context
    with pytest.raises(ssl.SSLError, match="used by itself"):
        Pair(us.client(UpstreamTls()), inner).shake_hands()


def test_each_side_has_its_own_kind_of_context() -> None:
    us = member(DOMAIN, "us")
    with pytest.raises(ssl.SSLError, match="for clients"):
        us.client(UpstreamTls()).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    with pytest.raises(ssl.SSLError, match="for servers"):
        us.server().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())


def test_equal_values_share_what_is_made_of_them_and_no_longer_than_needed() -> None:
    us = member(DOMAIN, "us")
    first = us.client(UpstreamTls(identities=frozenset({"a", "b"})))
    assert us.client(UpstreamTls(identities=frozenset({"b", "a"}))) is first
    assert us.client(UpstreamTls()) is not first
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None


def test_the_engine_is_not_moved_by_what_others_negotiate() -> None:
    """httpcore sets ALPN on the context at every connect."""
    us, them = member(DOMAIN, "us"), member(DOMAIN, "them")
    facade = us.client(UpstreamTls())
    side = us.upstream(UpstreamTls())
    facade.set_alpn_protocols(["h2"])
    assert side.alpn == ALPN
    assert Pair(facade, them.server()).shake_hands().client.selected_alpn_protocol() is None


def test_a_facade_presents_what_is_current() -> None:
    old, new = DOMAIN.leaf("us"), DOMAIN.leaf("us")
    identity = StaticIdentity(material(old, DOMAIN.bundle))
    us, them = TlsContexts(identity), member(DOMAIN, "them")
    facade, server = us.client(UpstreamTls()), them.server()
    before = us.generation
    assert Pair(facade, server).shake_hands().server.getpeercert(binary_form=True) == old.der
    identity.set(material(new, DOMAIN.bundle))
    assert us.generation == before + 1
    assert Pair(facade, server).shake_hands().server.getpeercert(binary_form=True) == new.der


def test_changes_are_told_once_and_equal_trust_is_none() -> None:
    us = member(DOMAIN, "us")
    told: list[int] = []
    stop = us.listen(lambda: told.append(us.generation))
    us.set_trust(DOMAIN.bundle)
    us.set_trust(bundles(DOMAIN))
    assert len(told) == 1
    us.set_trust(bundles(DOMAIN, TrustDomain("x")))
    assert len(told) == 2
    stop()
    us.set_trust(DOMAIN.bundle)
    assert len(told) == 2


def test_federated_domains_are_trusted_for_themselves() -> None:
    other = TrustDomain("other")
    us, them = contexts(DOMAIN.leaf("us"), bundles(DOMAIN, other)), contexts(other.leaf("them"), bundles(DOMAIN, other))
    pair = Pair(us.client(UpstreamTls()), them.server()).shake_hands()
    assert [str(peer_of(end)) for end in (pair.client, pair.server)] == [other.id("them"), DOMAIN.id("us")]


def test_a_bundle_may_name_an_intermediate() -> None:
    """Whatever it names is a root."""
    trust = TrustBundles({DOMAIN.name: (DOMAIN.signer.der,)})
    us, them = contexts(DOMAIN.leaf("us"), trust), contexts(DOMAIN.leaf("them"), trust)
    assert peer_of(Pair(us.client(UpstreamTls()), them.server()).shake_hands().server) is not None


@pytest.mark.parametrize(("minimum", "refused"), [("", False), ("TLSv1_2", False), ("TLSv1_3", True), ("TLSv1_0", False)])
def test_versions_of_tls(minimum: str, *, refused: bool, tmp_path: Path) -> None:
    server = member(DOMAIN, "them").server(minimum)
    client = careless(DOMAIN.leaf("us"), tmp_path, server=False)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    pair = Pair(client, server)
    if refused:
        with pytest.raises(ssl.SSLError):
            pair.shake_hands()
    else:
        assert pair.shake_hands().server.version() == "TLSv1.2"


@pytest.mark.parametrize("server", [False, True])
def test_nothing_below_tls_1_2(*, server: bool) -> None:
    context, _, _ = member(DOMAIN, "us").current(server=server, minimum_version="TLSv1_0", alpn=ALPN)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


# --- resumption (I06)


def test_I06_servers_give_out_no_tickets(tmp_path: Path) -> None:
    server = member(DOMAIN, "them").server()
    client = careless(DOMAIN.leaf("us"), tmp_path, server=False)
    pair = Pair(client, server).shake_hands()
    pair.server.write(b"tickets would come before this")
    assert pair.client.read(4096)
    assert pair.client.session is not None
    assert not pair.client.session.has_ticket
    again = Pair(client, server, session=pair.client.session).shake_hands()
    assert not again.client.session_reused


def test_I06_a_resumed_session_is_verified_by_the_trust_of_today(tmp_path: Path) -> None:
    """TLS 1.2 resumes by number.  Under unchanged trust that is fine; after a change it is a new handshake, which fails."""
    them = member(DOMAIN, "them")
    server = them.server()
    client = careless(DOMAIN.leaf("us"), tmp_path, server=False)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    first = Pair(client, server).shake_hands()
    assert first.send(b"x") == b"x"
    second = Pair(client, server, session=first.client.session).shake_hands()
    assert second.client.session_reused
    assert str(peer_of(second.server)) == DOMAIN.id("us")
    them.set_trust(TrustDomain("elsewhere").bundle)
    with pytest.raises(ssl.SSLError):
        Pair(client, server, session=first.client.session).shake_hands()


def test_I06_a_resumed_session_in_the_same_context_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a context ever outlive its trust: the chain of the session is verified again, signatures included."""
    them = member(DOMAIN, "them")
    server = them.server()
    client = careless(DOMAIN.leaf("us"), tmp_path, server=False)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    first = Pair(client, server).shake_hands()
    monkeypatch.setattr(TlsContexts, "trust", TrustDomain("elsewhere").bundle)
    with pytest.raises(ssl.SSLCertVerificationError, match="own trust domain"):
        Pair(client, server, session=first.client.session).shake_hands()


def test_I06_clients_keep_no_sessions() -> None:
    us, them = member(DOMAIN, "us"), member(DOMAIN, "them")
    facade = us.client(UpstreamTls())
    first = Pair(facade, them.server()).shake_hands()
    second = Pair(facade, them.server(), session=first.client.session).shake_hands()
    assert not second.client.session_reused


# --- no identity (I07), own end


@pytest.mark.parametrize("which", ["client", "server"])
def test_I07_without_material_or_roots_there_is_no_context(which: str) -> None:
    for us, words in (
        (TlsContexts(StaticIdentity(absent="still waiting")), "still waiting"),
        (contexts(DOMAIN.leaf("us"), TrustBundles()), "no root"),
    ):
        facade = us.client(UpstreamTls()) if which == "client" else us.server()
        with pytest.raises(IdentityMissing, match=words):
            facade.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=which == "server")


def test_an_own_certificate_that_has_ended_proves_nothing() -> None:
    minted = DOMAIN.leaf("us")
    now = minted.certificate.not_valid_after_utc.timestamp() - 1
    us = TlsContexts(StaticIdentity(material(minted, DOMAIN.bundle)), wall=lambda: now)
    us.client(UpstreamTls()).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
    now += 2
    with pytest.raises(IdentityMissing, match="has expired"):
        us.client(UpstreamTls()).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())


# --- the key


@pytest.mark.parametrize("way", ["_through_memory", "_through_encrypted_file"])
def test_T17_no_file_with_the_key_is_left_or_readable(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mine = material(DOMAIN.leaf("us"), DOMAIN.bundle)
    seen: list[bytes] = []

    class Context(ssl.SSLContext):
        def load_cert_chain(self, certfile: Any, keyfile: Any = None, password: Any = None) -> None:
            seen.append(Path(certfile).read_bytes())
            super().load_cert_chain(certfile, keyfile, password)

    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    getattr(loading, way)(context, mine)
    assert list(tmp_path.iterdir()) == []
    secret = mine.key.pem().splitlines()[1]
    assert (secret in seen[0]) is (way == "_through_memory")


def test_sockets_are_checked_as_well() -> None:
    assert TlsSocket.verified is False
    assert peer_of(object()) is None
