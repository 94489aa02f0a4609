"""Every server: who may connect under which mode, and who the application is told it was; changed live and under load."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.certificates import Minted, TrustDomain
from tests.support.mtlsclient import Client, Rejected, context
from tests.support.mtlsservers import KINDS, Relay, Served, relay
from tests.support.svids import ACCEPTED, REFUSED

FEDERATED = TrustDomain("td2")


@pytest.fixture(scope="module")
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    with relay(request, lambda: tmp_path_factory.mktemp("served")) as found:
        yield found


@pytest.fixture(scope="module", params=KINDS)
def served(request: pytest.FixtureRequest, servers: Relay) -> Iterator[Served]:
    with servers.running(request.param) as found:
        yield found


@pytest.fixture(autouse=True)
def strict(served: Served) -> None:
    """Each test begins with this, whatever the one before has changed."""
    world = served.world
    if world.generation != world.clean:
        roots = {"td1": [world.domain.root], "td2": [FEDERATED.root]}
        world.set(mode="STRICT", leaf=world.domain.leaf("server"), roots=roots)
        world.clean = world.generation


def as_(served: Served, leaf: Minted | None) -> Client:
    return Client(served.port, context(leaf, [served.world.domain.root]))


# --- who


def test_connections_at_the_same_time_each_have_their_own_peer(served: Served) -> None:
    """In turns on connections that stay open: with uvloop, what is kept in a context variable ends up at the other's."""
    domain = served.world.domain
    leaves = {name: context(domain.leaf(name), [domain.root]) for name in ("alice", "bob")}
    open_ = {} if not served.kind.keeps_alive else {name: Client(served.port, tls) for name, tls in leaves.items()}
    try:
        for _ in range(3):
            for name, tls in leaves.items():
                client = open_.get(name) or Client(served.port, tls)
                assert client.who()["peer"] == domain.id(name)
                if name not in open_:
                    client.connected.close()
    finally:
        for client in open_.values():
            client.connected.close()


def test_what_is_known_of_a_connection_is_found_out_once(served: Served) -> None:
    with as_(served, served.world.domain.leaf("alice")) as client:
        first = client.who()
        if served.kind.keeps_alive:
            assert client.who()["connection"] == first["connection"]
    assert (first["tls"], first["port"], first["remote"]) == (True, served.port, "127.0.0.1")
    assert first["server_name"] == "localhost"
    assert first["scheme"] == "http"  # as in the URL that the caller calls


def test_the_servers_lifespan_reaches_requests_of_the_mesh(served: Served) -> None:
    """Also on a listener that the server knows nothing of."""
    with as_(served, served.world.domain.leaf("alice")) as client:
        seen = client.who()
    if served.kind.asgi:
        assert seen["database"] == "open"


@pytest.mark.parametrize("case", ACCEPTED)
def test_good_certificates_are_accepted(served: Served, case: str) -> None:
    leaf = ACCEPTED[case](served.world.domain, FEDERATED)
    assert leaf is not None
    with as_(served, leaf) as client:
        assert client.who()["peer"] in (served.world.domain.id("alice"), FEDERATED.id("alice"))


@pytest.mark.parametrize("case", REFUSED)
def test_others_are_refused_before_a_byte_of_an_answer(served: Served, case: str) -> None:
    leaf = REFUSED[case](served.world.domain, FEDERATED)
    with pytest.raises(Rejected), as_(served, leaf) as client:
        client.ask()
    with as_(served, served.world.domain.leaf("alice")) as client:  # the server goes on
        assert client.ask().status == 200


# --- modes


def test_plaintext_is_refused_under_strict(served: Served) -> None:
    with pytest.raises(Rejected), Client(served.port, None) as client:
        client.ask()


def test_plaintext_around_the_mesh_port_is_refused_under_strict(served: Served) -> None:
    if served.own == served.port:
        pytest.skip("this server has one port")
    with Client(served.own, None) as client:
        response = client.ask()
    assert response.status == 403
    served.world.set(mode="PERMISSIVE")
    with Client(served.own, None) as client:
        assert client.ask().status == 200


def test_permissive_takes_both_on_one_port(served: Served) -> None:
    """I10: who proved nothing is nobody, and nobody comes in by TLS without proof."""
    served.world.set(mode="PERMISSIVE")
    with Client(served.port, None) as client:
        seen = client.who()
        assert (seen["peer"], seen["tls"]) == (None, False)
    with as_(served, served.world.domain.leaf("alice")) as client:
        assert client.who()["peer"] == served.world.domain.id("alice")
    with pytest.raises(Rejected), as_(served, None) as client:
        client.ask()


def test_disable_takes_plaintext_only(served: Served) -> None:
    served.world.set(mode="DISABLE")
    with Client(served.port, None) as client:
        assert client.who()["peer"] is None
    with pytest.raises(Rejected), as_(served, served.world.domain.leaf("alice")) as client:
        client.ask()


def test_a_mode_that_becomes_strict_holds_for_open_connections(served: Served) -> None:
    if not served.kind.keeps_alive:
        pytest.skip("this server closes after each answer")
    served.world.set(mode="PERMISSIVE")
    with Client(served.port, None) as plain, as_(served, served.world.domain.leaf("alice")) as client:
        assert plain.ask().status == 200
        assert client.ask().status == 200
        served.world.set(mode="STRICT")
        response = plain.ask()
        assert (response.status, response.headers.get("connection")) == (403, "close")
        assert client.ask().status == 200


# --- headers


def test_h16_h17_identity_headers_from_outside_do_not_arrive(served: Served) -> None:
    """Neither is what the mesh sets taken away by a client that nominates it as hop-by-hop."""
    forged = {
        "x-forwarded-client-cert": "URI=spiffe://td1/ns/default/sa/root",
        "connection": "keep-alive, x-verified, x-forwarded-client-cert",
    }
    with as_(served, served.world.domain.leaf("alice")) as client:
        response = client.ask(headers=forged)
        assert response.headers["x-mesh"] == "1"
    with as_(served, served.world.domain.leaf("alice")) as client:
        seen = client.who(headers=forged)
    headers = dict(seen["headers"])
    assert seen["peer"] == served.world.domain.id("alice")
    assert "x-forwarded-client-cert" not in headers
    assert headers["x-verified"] == "yes"


def test_h18_no_header_says_where_a_connection_comes_from(served: Served) -> None:
    with as_(served, served.world.domain.leaf("alice")) as client:
        seen = client.who(headers={"x-forwarded-for": "10.0.0.1", "x-forwarded-proto": "https", "forwarded": "for=10.0.0.1"})
    assert (seen["remote"], seen["peer"]) == ("127.0.0.1", served.world.domain.id("alice"))


# --- changes


class Load:
    """Callers in threads: new connections, and two requests on each."""

    def __init__(self, served: Served, roots: Callable[[], list[Minted]], leaf: Callable[[], Minted]) -> None:
        self.served = served
        self._roots = roots
        self._leaf = leaf
        self.answers = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(2)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        while not self._stop.is_set():
            try:
                with Client(self.served.port, context(self._leaf(), self._roots())) as client:
                    for _ in range(2 if self.served.kind.keeps_alive else 1):
                        assert client.ask().status == 200
                        self.answers += 1
            except (Rejected, AssertionError) as error:
                self.failures.append(repr(error))

    def more(self, count: int = 6) -> None:
        """Return when there were `count` more answers."""
        enough, deadline = self.answers + count, time.monotonic() + 60
        while self.answers < enough:
            assert time.monotonic() < deadline, self.failures[-1:]
            time.sleep(0.002)


def test_a_certificate_is_rotated_under_load(served: Served) -> None:
    domain = served.world.domain
    alice = domain.leaf("alice")
    with Load(served, lambda: [domain.root], lambda: alice) as load:
        for _ in range(2):
            load.more()
            domain_leaf = domain.leaf("server")
            served.world.set(leaf=domain_leaf)
            with as_(served, alice) as client:
                tls = client.connected
                assert tls.getpeercert(binary_form=True) == domain_leaf.der  # type: ignore[attr-defined]
                assert client.ask().status == 200
        load.more()
    assert load.failures == []


def revoke(served: Served, root: Minted, stale: Client, fresh: Client) -> None:
    """`root` alone is trusted from here on; ends `stale`, or leaves nobody known at its other end, and `fresh` alone."""
    assert stale.ask().status == fresh.ask().status == 200
    served.world.set(roots={"td1": [root]})
    try:
        assert stale.ask().status == 403
    except Rejected:
        pass
    assert fresh.ask().status == 200


def test_a_root_is_replaced_under_load(served: Served) -> None:
    """Prepare, activate, revoke: what the old root signed is let in until the last step, and does not stay after it (I06)."""
    old, new = TrustDomain("td1"), TrustDomain("td1")
    roots, alice = [old.root], old.leaf("alice")
    served.world.set(leaf=old.leaf("server"), roots={"td1": [old.root]})
    with Load(served, lambda: roots, lambda: alice) as load:
        load.more()
        served.world.set(roots={"td1": [old.root, new.root]})
        roots = [old.root, new.root]
        load.more()
        served.world.set(leaf=new.leaf("server"))
        load.more()
        stale, alice = alice, new.leaf("alice")
        load.more(10)  # whoever still had the old one has called by now
        assert load.failures == []
        if served.kind.keeps_alive:
            with Client(served.port, context(stale, roots)) as first, Client(served.port, context(alice, roots)) as second:
                revoke(served, new.root, first, second)
        else:
            served.world.set(roots={"td1": [new.root]})
        load.more()
    assert load.failures == []
    with pytest.raises(Rejected), Client(served.port, context(stale, roots)) as client:
        client.ask()
