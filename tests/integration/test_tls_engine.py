"""The engine's connections over mTLS, asynchronous (asyncio and uvloop) and blocking: who is called, what a failure means, and
how long a connection is used."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import pytest
import uvloop

from meshlib.model.cluster import Cluster, UpstreamTls
from meshlib.model.endpoint import Endpoint
from meshlib.model.identity import TrustBundles
from meshlib.model.outcome import Reset
from meshlib.policy.balancing import Host
from meshlib.runtime.http.settings import Timeouts
from meshlib.runtime.identity.static import StaticIdentity
from meshlib.runtime.pools import Pools
from meshlib.runtime.tls.blocking import TlsStream
from meshlib.runtime.tls.contexts import MeshSide, TlsContexts
from meshlib.wire.errors import NoIdentity, TlsFailed, WireError
from meshlib.wire.request import encode_head
from tests.support.certificates import TrustDomain, bundles
from tests.support.tls import contexts, material, member
from tests.support.tls_origin import Origin

T = TypeVar("T")

DOMAIN = TrustDomain()
SERVER = DOMAIN.id("server")
MESH = UpstreamTls(identities=frozenset({SERVER}))
PATIENT = Timeouts(30, 30, 30, pool=30)


class Caller:
    """Sends requests to one endpoint by `Pools`, from a loop or from this thread."""

    def __init__(self, kind: str, pools: Pools, port: int, cluster: Cluster, *, mtls: bool = True) -> None:
        self.kind = kind
        self.cluster = cluster
        self.host = Host(Endpoint("127.0.0.1", port, mtls=mtls))
        self.pools = pools
        self._runner = None if kind == "blocking" else asyncio.Runner(loop_factory=LOOPS[kind])

    def get(self, body: Any = None) -> str:
        """Who the server says that we are."""
        length = None if body is not None and not isinstance(body, bytes) else len(body or b"")
        head = encode_head("POST" if body else "GET", "/", [], authority="server", body_length=length)
        if self._runner is None:
            response = self.pools.blocking(self.host, self.cluster).send(head, body, timeouts=PATIENT, whole=True)
            return response.read().decode()
        return self.run(self._get(head, body))

    async def _get(self, head: bytes, body: Any) -> str:
        pool = self.pools.for_loop(self.host, self.cluster, asyncio.get_running_loop())
        response = await pool.send(head, body, timeouts=PATIENT, whole=True)
        return (await response.read()).decode()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        assert self._runner is not None
        return self._runner.run(coroutine)

    def pool(self) -> str:
        if self._runner is not None:
            self.run(asyncio.sleep(0.01))  # what other threads have told the loop
        return repr(next(iter(self.host.shells.values())).pool)

    def close(self) -> None:
        if self._runner is None:
            self.pools.drain([self.host])
        else:
            self.run(self._drain())
            self._runner.close()
        self.pools.close()

    async def _drain(self) -> None:
        self.pools.close_loop([self.host], asyncio.get_running_loop())
        await asyncio.sleep(0.01)


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
KINDS = [*LOOPS, "blocking"]


@contextmanager
def calling(
    kind: str, port: int, *, us: TlsContexts | None, tls: UpstreamTls | None = MESH, auto: bool = False, mtls: bool = True
) -> Iterator[Caller]:
    caller = Caller(kind, Pools(us), port, Cluster("server", tls=tls, auto_mtls=auto), mtls=mtls)
    try:
        yield caller
    finally:
        caller.close()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- which connections are TLS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("auto", "mtls", "encrypted"), [(False, False, True), (True, True, True), (True, False, False)])
def test_tls_where_the_cluster_says_so(kind: str, *, auto: bool, mtls: bool, encrypted: bool) -> None:
    """For all endpoints, or with auto mTLS for those of the mesh."""
    context = member(DOMAIN, "server").server() if encrypted else None
    with Origin(context) as origin, calling(kind, origin.port, us=member(DOMAIN, "us"), auto=auto, mtls=mtls) as caller:
        assert caller.get() == (DOMAIN.id("us") if encrypted else "nobody")


@pytest.mark.parametrize("kind", KINDS)
def test_an_endpoint_that_joins_the_mesh_is_called_over_tls(kind: str) -> None:
    """What was open in plaintext takes no new requests."""
    with Origin(None) as plain, calling(kind, plain.port, us=member(DOMAIN, "us"), auto=True, mtls=False) as caller:
        assert caller.get() == "nobody"
        caller.host.endpoint = Endpoint("127.0.0.1", plain.port, mtls=True)
        with pytest.raises(TlsFailed):
            caller.get()  # the server has not joined, but nobody falls back
        caller.host.endpoint = Endpoint("127.0.0.1", plain.port, mtls=False)
        assert caller.get() == "nobody"
        assert plain.requests == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("us", ["no identity", "not yet", "no roots", "expired"])
def test_I07_never_in_plaintext_instead(kind: str, us: str) -> None:
    """Without a certificate or without roots nothing is sent, and no system's roots step in; nobody but us is to blame."""
    leaf = DOMAIN.leaf("us", ends=timedelta(seconds=-1), begins=timedelta(hours=-1)) if us == "expired" else DOMAIN.leaf("us")
    identities = {
        "no identity": None,
        "not yet": TlsContexts(StaticIdentity(absent="waiting for the CA")),
        "no roots": contexts(leaf, TrustBundles()),
        "expired": contexts(leaf, DOMAIN.bundle),
    }
    words = {"no identity": "insecure_dev", "not yet": "waiting for the CA", "no roots": "no root", "expired": "expired"}
    with Origin(None) as origin, calling(kind, origin.port, us=identities[us]) as caller:
        with pytest.raises(NoIdentity, match=words[us]) as caught:
            caller.get()
        assert (caught.value.reset, caught.value.sent, origin.requests) == (Reset.LOCAL, False, 0)
        assert "opening=0" in caller.pool()
    with Origin(member(DOMAIN, "server").server()) as origin, calling(kind, origin.port, us=member(DOMAIN, "us")) as caller:
        assert caller.get() == DOMAIN.id("us")


# --- what a failure means


@pytest.mark.parametrize("kind", KINDS)
def test_the_wrong_server_gets_no_request(kind: str) -> None:
    with Origin(member(DOMAIN, "other").server()) as origin, calling(kind, origin.port, us=member(DOMAIN, "us")) as caller:
        with pytest.raises(TlsFailed, match=r"secure naming.*sa/other") as caught:
            caller.get(b"body")
        assert (caught.value.reset, caught.value.sent, origin.requests) == (Reset.CONNECT_FAILURE, False, 0)


@contextmanager
def refusing_server(them: TlsContexts) -> Iterator[int]:
    """Sends its alert and keeps the connection until the client ends it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connected, _ = listening.accept()
            connected.settimeout(30)
            with connected:
                try:
                    TlsStream(MeshSide(them), connected).shake_hands(30)
                except OSError:
                    while connected.recv(65536):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_server_that_refuses_our_certificate_has_taken_nothing(kind: str, *, streamed: bool) -> None:
    """In TLS 1.3 its alert comes after our request was written: never authorised, so safe to send to another endpoint, unless
    the body cannot be had again."""
    stranger = TrustDomain("elsewhere")
    them = contexts(DOMAIN.leaf("server"), stranger.bundle)

    def pieces() -> Any:
        if kind == "blocking":
            return iter([b"x"])

        async def again() -> Any:
            yield b"x"

        return again()

    with refusing_server(them) as port, calling(kind, port, us=member(DOMAIN, "us")) as caller:
        with pytest.raises(TlsFailed, match="alert unknown ca") as caught:
            caller.get(pieces() if streamed else b"x")
        assert caught.value.reset is Reset.CONNECT_FAILURE
        assert caught.value.responded is False
        assert streamed or caught.value.sent is False


@pytest.mark.parametrize("kind", KINDS)
def test_an_end_without_an_alert_proves_nothing(kind: str) -> None:
    """The control: a fresh connection that just ends may have been served."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connected, _ = listening.accept()
            with connected:
                stream = TlsStream(MeshSide(member(DOMAIN, "server")), connected)
                stream.shake_hands(30)
                stream.recv(65536)

        thread = threading.Thread(target=serve)
        thread.start()
        with calling(kind, listening.getsockname()[1], us=member(DOMAIN, "us")) as caller:
            with pytest.raises(WireError) as caught:
                caller.get(b"x")
            assert (caught.value.reset, caught.value.sent) == (Reset.CONNECTION_TERMINATION, True)
        thread.join()


@pytest.mark.parametrize("kind", KINDS)
def test_a_plaintext_server_is_no_server_of_the_mesh(kind: str) -> None:
    with Origin(None) as origin, calling(kind, origin.port, us=member(DOMAIN, "us")) as caller:
        with pytest.raises(TlsFailed):
            caller.get(b"secret")
        assert origin.requests == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_does_not_shake_hands_ends_with_the_connect_timeout(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        us = member(DOMAIN, "us")
        caller = Caller(kind, Pools(us), listening.getsockname()[1], Cluster("server", tls=MESH, connect_timeout=0.2))
        with pytest.raises(WireError) as caught:
            caller.get()
        assert (caught.value.reset, caught.value.sent) == (Reset.CONNECT_TIMEOUT, False)
        caller.close()


# --- rotation


def test_I06_trust_that_changed_ends_idle_connections() -> None:
    """Each engine keeps its connection while nothing changes, and lets go of it when the roots do."""
    for kind in KINDS:
        old, new = TrustDomain(), TrustDomain()
        us = contexts(old.leaf("us"), bundles(old))
        tls = UpstreamTls()
        server = contexts(old.leaf("server"), old.bundle).server()
        with Origin(server) as origin, calling(kind, origin.port, us=us, tls=tls) as caller:
            assert [caller.get(), caller.get()] == [old.id("us")] * 2
            assert len(origin.peers) == 1
            us.set_trust(new.bundle)
            until(lambda: "idle=0" in caller.pool())
            with pytest.raises(TlsFailed):
                caller.get()
            us.set_trust(bundles(old))
            assert caller.get() == old.id("us")


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_in_flight_outlives_the_change(kind: str) -> None:
    us = member(DOMAIN, "us")
    with Origin(member(DOMAIN, "server").server(), delay=0.3) as origin, calling(kind, origin.port, us=us) as caller:

        def change() -> None:
            until(lambda: origin.requests)
            us.set_trust(DOMAIN_AND_ANOTHER)

        changed = threading.Thread(target=change)
        changed.start()
        assert caller.get() == DOMAIN.id("us")
        changed.join()
        until(lambda: "idle=0 busy=0" in caller.pool())


DOMAIN_AND_ANOTHER = bundles(DOMAIN, TrustDomain("another"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_a_connection_is_used_no_longer_than_its_certificates(kind: str, whose: str) -> None:
    short = timedelta(seconds=2)
    ours = DOMAIN.leaf("us", ends=short) if whose == "ours" else DOMAIN.leaf("us")
    theirs = DOMAIN.leaf("server", ends=short) if whose == "theirs" else DOMAIN.leaf("server")
    identity = StaticIdentity(material(ours, DOMAIN.bundle))
    server = contexts(theirs, DOMAIN.bundle).server()
    with Origin(server) as origin, calling(kind, origin.port, us=TlsContexts(identity)) as caller:
        assert caller.get() == DOMAIN.id("us")
        caller.pools.sweep()
        assert "idle=1" in caller.pool()

        def closed() -> bool:
            caller.pools.sweep()  # blocking pools have no clock of their own
            return "idle=0" in caller.pool()

        until(closed)
        assert len(origin.peers) == 1


ROTATIONS = ["leaf", "intermediate", "root"]


@pytest.mark.parametrize("kind", KINDS)
def test_rotation_under_load_fails_no_request(kind: str) -> None:
    """Leaves, then the intermediate, then the root in four steps (prepare, activate, revoke), on both sides, one after the
    other, while requests go on; then nobody believes the old root any more."""
    domain = TrustDomain()
    mine = StaticIdentity(material(domain.leaf("us"), domain.bundle))
    yours = StaticIdentity(material(domain.leaf("server"), domain.bundle))
    us, them = TlsContexts(mine), TlsContexts(yours)
    old_root = domain.root
    with Origin(them.server()) as origin, calling(kind, origin.port, us=us, tls=UpstreamTls()) as caller:
        served = 0

        def some() -> None:
            nonlocal served
            for _ in range(20):
                assert caller.get() == domain.id("us")
                served += 1

        some()
        for signer in (None, domain.new_signer()):
            domain.signer = signer or domain.signer
            for identity, account in ((mine, "us"), (yours, "server")):
                identity.set(material(domain.leaf(account), domain.bundle))
                some()
        domain.rotate()
        both = TrustBundles({domain.name: (old_root.der, domain.root.der)})
        for side in (us, them):
            side.set_trust(both)
            some()
        for identity, account in ((mine, "us"), (yours, "server")):
            identity.set(material(domain.leaf(account), both))
            some()
        for side in (us, them):
            side.set_trust(domain.bundle)
            some()
        assert served == origin.requests == 220
        # One connection for each of our changes that was followed by a request, and none for theirs.
        assert len(origin.peers) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_behind(kind: str) -> None:
    """100 rotations: contexts, facades and connections of before are gone."""
    import gc
    import weakref

    identity = StaticIdentity(material(DOMAIN.leaf("us"), DOMAIN.bundle))
    us = TlsContexts(identity)
    with Origin(member(DOMAIN, "server").server()) as origin, calling(kind, origin.port, us=us) as caller:
        caller.get()
        first = weakref.ref(us.current(server=False, minimum_version="", alpn=("http/1.1",))[0])
        for _ in range(10):
            identity.set(material(DOMAIN.leaf("us"), DOMAIN.bundle))
            caller.get()
        gc.collect()
        assert first() is None
        assert caller.pool().count("idle=1 busy=0") == 1
