"""Who is at the other end of a gRPC connection: SPIFFE's rules in both roles, secure naming, and changes under way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509

from meshlib import Mesh, errors
from meshlib.model.identity import TrustBundles
from meshlib_integrations import grpc_aio
from meshlib_integrations.grpc import MeshChannel, channel, peer
from tests.support.certificates import Minted, TrustDomain, bundles, mint
from tests.support.grpcmesh import (
    BOTH,
    DOMAIN,
    FEDERATED,
    HOST,
    SERVER_STREAM,
    UNARY,
    Member,
    aserving,
    greeter,
    handlers,
    odd_channel,
    odd_serving,
    serving,
    threaded_aserving,
)
from tests.support.svids import ACCEPTED, REFUSED, Case

TRUST = bundles(DOMAIN, FEDERATED)
ROOTS = DOMAIN.root.pem + FEDERATED.root.pem
REFUSALS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED)


def answer(request: bytes, context: Any) -> bytes:
    return str(peer(context)).encode()


async def aanswer(request: bytes, context: Any) -> bytes:
    return str(peer(context)).encode()


# --- the server's side


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with Member("greeter", trust=TRUST) as member, serving(member.mesh, handlers(Unary=answer)) as port:
        yield port


@pytest.fixture(scope="module")
def aio_port() -> Iterator[int]:
    with Member("greeter", trust=TRUST) as member, threaded_aserving(member.mesh, handlers(Unary=aanswer)) as port:
        yield port


def shown(port: int, case: Case) -> str:
    """What a caller with this certificate gets: who it is, or the status."""
    with odd_channel(port, case(DOMAIN, FEDERATED)) as calls:
        try:
            found: bytes = calls.unary_unary(UNARY)(b"", timeout=30)
        except grpc.RpcError as error:
            return "refused" if error.code() in REFUSALS else repr(error)
        return found.decode()


@pytest.mark.parametrize("server", ["port", "aio_port"])
@pytest.mark.parametrize("name", ACCEPTED)
def test_a_server_knows_its_clients(server: str, name: str, request: pytest.FixtureRequest) -> None:
    domain = "td2" if "federated" in name else "td1"
    assert shown(request.getfixturevalue(server), ACCEPTED[name]) == f"spiffe://{domain}/ns/default/sa/alice"


@pytest.mark.parametrize("server", ["port", "aio_port"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_server_refuses(server: str, name: str, request: pytest.FixtureRequest) -> None:
    port = request.getfixturevalue(server)
    assert shown(port, REFUSED[name]) == "refused"
    assert shown(port, ACCEPTED["XV-1 an SVID"]) == DOMAIN.id("alice")


# --- the client's side


def served_by(case: Case) -> Minted:
    """As a server shows it, with a name that gRPC itself would be content with."""
    found = case(DOMAIN, FEDERATED)
    if found is None:
        pytest.skip("a TLS server without a certificate is none")
    return found


def called(caller: Mesh) -> bytes:
    with channel(caller, HOST) as calls:
        found: bytes = calls.unary_unary(UNARY)(b"", timeout=30)
        return found


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_client_takes(name: str) -> None:
    """All that SPIFFE allows, as long as there is a DNS name for gRPC to compare."""
    minted = served_by(ACCEPTED[name])
    domain = "td2" if "federated" in name else "td1"
    with odd_serving(minted, handlers(Unary=lambda request, context: b"here"), ROOTS) as port:
        target = greeter(port, identities=[f"spiffe://{domain}/ns/default/sa/alice"])
        with Member("me", target, trust=TRUST) as me:
            names = minted.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            if names.get_values_for_type(x509.DNSName):
                assert called(me.mesh) == b"here"
            else:
                with pytest.raises(errors.TlsFailed, match="no DNS name"):
                    called(me.mesh)


@pytest.mark.parametrize("name", REFUSED)
def test_a_client_refuses(name: str) -> None:
    """Also what gRPC by itself would accept; and nothing of a call is sent to such a server."""
    minted = served_by(REFUSED[name])
    reached: list[bytes] = []

    def reach(request: bytes, context: Any) -> bytes:
        reached.append(request)
        return b""

    expected = [DOMAIN.id("alice"), FEDERATED.id("alice"), "spiffe://td3/ns/default/sa/alice"]
    with Member("me", trust=TRUST) as me:
        try:
            with odd_serving(minted, handlers(Unary=reach), ROOTS) as port:
                me.call(greeter(port, identities=expected))
                with pytest.raises(errors.ConnectFailed):
                    called(me.mesh)
        except (RuntimeError, ValueError):
            pytest.skip("gRPC serves no such certificate")
        with odd_serving(DOMAIN.leaf("alice"), handlers(Unary=reach), ROOTS) as port:
            me.call(greeter(port, identities=expected))
            called(me.mesh)
    assert reached == [b""]


def _odd(**how: Any) -> Minted:
    """A certificate that only our own rules refuse: gRPC is content with its chain and its name."""
    return mint(DOMAIN.signer, **{"uris": [DOMAIN.id("greeter")], "dns": ["greeter.default.td1"], **how})


@pytest.mark.parametrize(
    "how",
    [
        {"usages": ("digital_signature", "key_cert_sign")},
        {"uris": [DOMAIN.id("greeter"), DOMAIN.id("bob")]},
        {"uris": []},
        {"uris": ["https://td1/ns/default/sa/greeter"]},
        {"uris": [DOMAIN.id("other")]},
    ],
)
def test_what_grpc_accepts_and_spiffe_does_not(how: dict[str, Any]) -> None:
    minted = _odd(**how)
    with odd_serving(minted, handlers(Unary=lambda request, context: b"here")) as port:
        with odd_channel(port, DOMAIN.leaf("me")) as bare:
            assert bare.unary_unary(UNARY)(b"", timeout=30) == b"here"  # gRPC alone
        with Member("me", greeter(port)) as me, pytest.raises(errors.TlsFailed):
            called(me.mesh)


# --- secure naming


def test_I09_an_endpoint_with_another_services_identity() -> None:
    with ExitStack() as stack:
        other, right = (stack.enter_context(Member(account)) for account in ("other", "greeter"))
        wrong, good = (stack.enter_context(serving(each.mesh, handlers(Unary=answer))) for each in (other, right))
        me = stack.enter_context(Member("me", greeter(wrong, retry=None)))
        with pytest.raises(errors.TlsFailed, match="secure naming"):
            called(me.mesh)
        me.call(greeter(good))
        assert called(me.mesh) == DOMAIN.id("me").encode()
        me.call(greeter(wrong, identities=[DOMAIN.id("other")]))
        assert called(me.mesh) == DOMAIN.id("me").encode()


async def test_I09_over_asyncio() -> None:
    async with AsyncExitStack() as stack:
        other, me = stack.enter_context(Member("other")), stack.enter_context(Member("me"))
        port = await stack.enter_async_context(aserving(other.mesh, handlers(Unary=aanswer, Down=aanswer)))
        stack.push_async_callback(me.mesh.aclose_loop)
        calls = await stack.enter_async_context(grpc_aio.channel(me.mesh, HOST))
        me.call(greeter(port, retry=None))
        with pytest.raises(errors.TlsFailed, match="secure naming"):
            await calls.unary_unary(UNARY)(b"")
        with pytest.raises(grpc.aio.AioRpcError):
            await calls.unary_stream(SERVER_STREAM)(b"").read()
        me.call(greeter(port, identities=[DOMAIN.id("other")]))
        assert await calls.unary_unary(UNARY)(b"") == DOMAIN.id("me").encode()


def test_a_service_of_several_identities() -> None:
    """Each endpoint may have any of them, and none but them; who came first decides nothing."""
    with ExitStack() as stack:
        ports = [
            stack.enter_context(serving(stack.enter_context(Member(account)).mesh, handlers(Unary=_named(account))))
            for account in ("first", "second", "third")
        ]
        me = stack.enter_context(Member("me", greeter(*ports, identities=[DOMAIN.id("first"), DOMAIN.id("second")])))
        with channel(me.mesh, HOST) as calls:
            seen = {calls.unary_unary(UNARY)(b"", timeout=30) for _ in range(60)}
    assert seen == {b"first", b"second"}


def _named(account: str) -> Callable[..., bytes]:
    return lambda request, context: account.encode()


# --- changes under way


def counting(calls: MeshChannel, stop: threading.Event, failures: list[Exception]) -> int:
    count = 0
    method, streams = calls.unary_unary(UNARY), calls.stream_stream(BOTH)
    while not stop.is_set():
        try:
            assert method(b"x", timeout=30)
            assert list(streams(iter([b"a", b"b"]), timeout=30))
        except Exception as error:  # whatever it is: it is counted
            failures.append(error)
        count += 1
    return count


def both(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    for _ in requests:
        yield str(peer(context)).encode()


def test_certificates_and_roots_rotate_under_load() -> None:
    """Leaves of both ends, then the root in its steps; unary calls and streams, and not one of them fails."""
    domain = TrustDomain("td1")
    with ExitStack() as stack:
        server = stack.enter_context(Member("greeter", domain=domain))
        port = stack.enter_context(serving(server.mesh, handlers(Unary=answer, Both=both)))
        me = stack.enter_context(Member("me", greeter(port), domain=domain))
        calls = stack.enter_context(channel(me.mesh, HOST))
        stop = threading.Event()
        failures: list[Exception] = []
        counts: list[int] = []
        workers = [threading.Thread(target=lambda: counts.append(counting(calls, stop, failures))) for _ in range(2)]
        for worker in workers:
            worker.start()
        seen: set[bytes] = set()

        def served() -> None:
            """A few calls after the change."""
            seen.update(calls.unary_unary(UNARY)(b"", timeout=30) for _ in range(5))

        members = {me: "me", server: "greeter"}
        for _ in range(2):
            for member, account in members.items():
                member.renew(domain.leaf(account))
                served()
        before = domain.root.der
        domain.rotate()
        for member in members:  # prepare: all know both roots
            member.believe(TrustBundles({domain.name: (before, domain.root.der)}))
            served()
        for member, account in members.items():  # activate: certificates of the new one
            member.renew(domain.leaf(account))
            served()
        for member in members:  # revoke: nobody knows the old one any more
            member.believe(domain.bundle)
            served()
        stop.set()
        for worker in workers:
            worker.join()
        assert failures == []
        assert seen == {domain.id("me").encode()}
        assert min(counts) > 0


def test_a_root_that_is_revoked_ends_trust_at_once() -> None:
    """Also over connections that are open already."""
    old, new = TrustDomain("td1"), TrustDomain("td1")
    with ExitStack() as stack:
        server = stack.enter_context(Member("greeter", domain=old))
        port = stack.enter_context(serving(server.mesh, handlers(Unary=answer)))
        with odd_channel_of(old, port) as calls:
            assert calls.unary_unary(UNARY)(b"", timeout=30) == old.id("me").encode()
            server.believe(new.bundle)
            with pytest.raises(grpc.RpcError) as caught:
                calls.unary_unary(UNARY)(b"", timeout=30)
            assert caught.value.code() in REFUSALS


def odd_channel_of(domain: TrustDomain, port: int) -> Any:
    leaf = domain.leaf("me")
    credentials = grpc.ssl_channel_credentials(domain.root.pem, leaf.key_pem, leaf.chain_pem)
    options = [("grpc.ssl_target_name_override", "greeter.default.td1"), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.secure_channel(f"127.0.0.1:{port}", credentials, options=options)


def test_a_server_that_comes_back_with_another_certificate() -> None:
    """The channel was held to the one before: the call finds out, looks again and is served."""
    with Member("me") as me, channel(me.mesh, HOST) as calls:
        with odd_serving(DOMAIN.leaf("greeter"), handlers(Unary=lambda request, context: b"one")) as port:
            me.call(greeter(port, retry=None))
            assert calls.unary_unary(UNARY)(b"", timeout=30) == b"one"
        with odd_serving(DOMAIN.leaf("greeter"), handlers(Unary=lambda request, context: b"two"), port=port):
            assert calls.unary_unary(UNARY)(b"", timeout=30) == b"two"
        with (
            odd_serving(DOMAIN.leaf("other"), handlers(Unary=lambda request, context: b"three"), port=port),
            pytest.raises(errors.TlsFailed, match="secure naming"),
        ):
            calls.unary_unary(UNARY)(b"", timeout=30)
