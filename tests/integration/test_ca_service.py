"""The CA API over real TLS: enrolment with a token, renewal with the certificate, refusals, limits, and what the log shows."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshlib.xds.proto import ca_pb2
from meshlib_control.ca import state
from meshlib_control.ca.attestation import Attestation
from meshlib_control.ca.authority import CertificateAuthority
from meshlib_control.ca.credentials import ControlCredentials
from meshlib_control.ca.json_tokens import JsonTokens
from meshlib_control.ca.limits import CaLimits, Rate
from meshlib_control.ca.model import CaSettings
from meshlib_control.ca.peers import peer_of
from meshlib_control.ca.service import SERVICE, CertificateService
from meshlib_control.ca.tokens import JoinTokens
from meshlib_control.store.memory import MemoryStore
from tests.support.authority import (
    RATINGS,
    REVIEWS,
    TRUST_DOMAIN,
    SettableClock,
    certificate,
    new_kek,
    new_request,
    running_authority,
)
from tests.support.polling import eventually

CONTROL_NAME = f"meshlib-control.meshlib-system.{TRUST_DOMAIN}"
PATIENCE = 60.0


@dataclass
class Workload:
    """A key with its certificate."""

    key: bytes
    chain: list[str] = field(default_factory=list)
    roots: str = ""

    @property
    def channel_credentials(self) -> Any:
        return grpc.ssl_channel_credentials(self.roots.encode(), self.key, "".join(self.chain).encode())


@dataclass
class Mesh:
    authority: CertificateAuthority
    tokens: JoinTokens
    bootstrap: str
    mutual: str
    exits: AsyncExitStack

    async def enrol(self, credential: str, **request: Any) -> Workload:
        roots = self.authority.trust_bundle.pem
        credentials = grpc.ssl_channel_credentials(roots.encode())
        return await self._create(self.bootstrap, credentials, [("authorization", f"Bearer {credential}")], **request)

    async def renew(self, workload: Workload, **request: Any) -> Workload:
        return await self._create(self.mutual, workload.channel_credentials, [], **request)

    async def _create(
        self, address: str, credentials: Any, metadata: list[tuple[str, str]], *, csr: bytes = b"", duration: int = 0
    ) -> Workload:
        made, key = new_request()
        message = ca_pb2.IstioCertificateRequest(csr=(csr or made).decode(), validity_duration=duration)
        options = [("grpc.ssl_target_name_override", CONTROL_NAME), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
            call = channel.unary_unary(
                f"/{SERVICE}/CreateCertificate",
                request_serializer=ca_pb2.IstioCertificateRequest.SerializeToString,
                response_deserializer=ca_pb2.IstioCertificateResponse.FromString,
            )
            response = await call(message, metadata=metadata, timeout=PATIENCE)
        *chain, roots = response.cert_chain
        return Workload(key, chain, roots)


async def meshed(exits: AsyncExitStack, *, limits: CaLimits | None = None, max_chain_age: float | None = None) -> Mesh:
    store = MemoryStore()
    authority = await exits.enter_async_context(running_authority(store, new_kek(), CaSettings(TRUST_DOMAIN)))
    tokens = JoinTokens(store, TRUST_DOMAIN)
    attestation = Attestation(authority, tokens, JsonTokens([], TRUST_DOMAIN), max_chain_age=max_chain_age)
    service = CertificateService(authority, attestation, limits=limits)
    credentials = ControlCredentials(authority)
    addresses = []
    for mutual in (False, True):
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers((service.handler(), whoami(authority)))
        port = server.add_secure_port("127.0.0.1:0", credentials.server(client_certificates=mutual))
        await server.start()
        exits.push_async_callback(server.stop, None)
        addresses.append(f"127.0.0.1:{port}")
    return Mesh(authority, tokens, addresses[0], addresses[1], exits)


def whoami(authority: CertificateAuthority) -> grpc.GenericRpcHandler:
    """What other services of the port do: go by the verified peer."""

    async def answer(request: bytes, context: Any) -> bytes:
        bundle = authority.trust_bundle
        return str(peer_of(context.auth_context(), TRUST_DOMAIN, bundle.der, time.time()).identity).encode()

    return grpc.method_handlers_generic_handler("test.Peer", {"Get": grpc.unary_unary_rpc_method_handler(answer)})


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    async with AsyncExitStack() as exits:
        yield await meshed(exits)


async def refused(attempt: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await attempt
    return caught.value


async def test_a_join_token_gets_a_certificate_and_the_certificate_the_next_one(mesh: Mesh) -> None:
    token = await mesh.tokens.create(REVIEWS)
    first = await mesh.enrol(token.secret)
    assert len(first.chain) == 2
    assert first.roots == mesh.authority.trust_bundle.pem
    second = await mesh.renew(first)
    assert certificate(second.chain[0]).serial_number != certificate(first.chain[0]).serial_number
    await mesh.authority.log.flush()
    records = [record for record in await mesh.authority.log.records() if record.identity == str(REVIEWS)]
    assert [record.caller.split()[0] for record in records] == ["join", "certificate"]
    assert token.id in records[0].caller
    assert records[1].caller.endswith(f"{certificate(first.chain[0]).serial_number:032x}")


async def test_a_token_is_good_for_one_enrolment(mesh: Mesh) -> None:
    token = await mesh.tokens.create(REVIEWS)
    assert await mesh.enrol(token.secret)
    error = await refused(mesh.enrol(token.secret))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAUTHENTICATED, "request authenticate failure")


async def test_a_mistake_in_the_request_does_not_cost_the_token(mesh: Mesh) -> None:
    token = await mesh.tokens.create(REVIEWS)
    error = await refused(mesh.enrol(token.secret, csr=b"garbage"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await mesh.enrol(token.secret)


@pytest.mark.parametrize("credential", ["mjt_unknown", "a.b.c", "", "x", "mjt_" + "A" * 100])
async def test_T02_what_proves_nothing_gets_nothing(mesh: Mesh, credential: str) -> None:
    error = await refused(mesh.enrol(credential))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAUTHENTICATED, "request authenticate failure")


@pytest.mark.parametrize(
    "metadata", [[], [("authorization", "Basic mjt_x")], [("authorization", "Bearer a"), ("authorization", "Bearer b")]]
)
async def test_odd_metadata_proves_nothing(mesh: Mesh, metadata: list[tuple[str, str]]) -> None:
    credentials = grpc.ssl_channel_credentials(mesh.authority.trust_bundle.pem.encode())
    error = await refused(mesh._create(mesh.bootstrap, credentials, metadata))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_C06_the_certificate_is_for_the_caller_whatever_the_request_says(mesh: Mesh) -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(RATINGS))]), critical=True)
    csr = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    token = await mesh.tokens.create(REVIEWS)
    leaf = certificate((await mesh.enrol(token.secret, csr=csr)).chain[0])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(REVIEWS)]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize(("asked", "given"), [(0, 86400), (3600, 3600), (100 * 86400, 86400), (2**62, 86400)])
async def test_the_lifetime_is_capped_by_policy(mesh: Mesh, asked: int, given: int) -> None:
    token = await mesh.tokens.create(REVIEWS)
    leaf = certificate((await mesh.enrol(token.secret, duration=asked)).chain[0])
    lasting = (leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds()
    assert abs(lasting - given - 60) <= 2


async def test_a_negative_lifetime_is_refused(mesh: Mesh) -> None:
    token = await mesh.tokens.create(REVIEWS)
    error = await refused(mesh.enrol(token.secret, duration=-1))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await mesh.enrol(token.secret)


async def test_a_huge_request_is_refused(mesh: Mesh) -> None:
    token = await mesh.tokens.create(REVIEWS)
    error = await refused(mesh.enrol(token.secret, csr=b"x" * 40_000))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_impersonation_is_refused(mesh: Mesh) -> None:
    """Istio's node agents ask for others; here everybody asks for himself."""
    first = await mesh.enrol((await mesh.tokens.create(REVIEWS)).secret)
    options = [("grpc.ssl_target_name_override", CONTROL_NAME)]
    message = ca_pb2.IstioCertificateRequest(csr=new_request()[0].decode())
    message.metadata["ImpersonatedIdentity"] = str(RATINGS)
    async with grpc.aio.secure_channel(mesh.mutual, first.channel_credentials, options=options) as channel:
        call = channel.unary_unary(f"/{SERVICE}/CreateCertificate", request_serializer=type(message).SerializeToString)
        error = await refused(call(message, timeout=PATIENCE))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_T04_a_banned_identity_neither_enrols_nor_renews(mesh: Mesh) -> None:
    first = await mesh.enrol((await mesh.tokens.create(REVIEWS)).secret)
    assert await mesh.renew(first)
    await mesh.authority.ban(REVIEWS)
    for attempt in (mesh.renew(first), mesh.enrol((await mesh.tokens.create(REVIEWS)).secret)):
        error = await refused(attempt)
        assert (error.code(), error.details()) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "no certificate is issued for this identity",
        )
    assert await mesh.enrol((await mesh.tokens.create(RATINGS)).secret)


async def test_the_port_with_client_certificates_takes_no_caller_without_one(mesh: Mesh) -> None:
    token = await mesh.tokens.create(REVIEWS)
    credentials = grpc.ssl_channel_credentials(mesh.authority.trust_bundle.pem.encode())
    error = await refused(mesh._create(mesh.mutual, credentials, [("authorization", f"Bearer {token.secret}")]))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert await mesh.enrol(token.secret)


async def test_the_port_with_client_certificates_takes_none_of_another_authority(mesh: Mesh) -> None:
    async with running_authority() as stranger:
        request, key = new_request()
        issued = stranger.issue(request, REVIEWS, caller="test")
    error = await refused(mesh.renew(Workload(key, list(issued.chain_pem), mesh.authority.trust_bundle.pem)))
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_T16_a_client_with_another_root_does_not_send_its_token(mesh: Mesh) -> None:
    async with running_authority() as stranger:
        credentials = grpc.ssl_channel_credentials(stranger.trust_bundle.pem.encode())
    token = await mesh.tokens.create(REVIEWS)
    error = await refused(mesh._create(mesh.bootstrap, credentials, [("authorization", f"Bearer {token.secret}")]))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert [record.used for record in await mesh.tokens.list()] == [0.0]


async def test_T06_without_tls_there_is_no_certificate() -> None:
    async with AsyncExitStack() as exits:
        mesh = await meshed(exits)
        attestation = Attestation(mesh.authority, mesh.tokens, JsonTokens([], TRUST_DOMAIN))
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers((CertificateService(mesh.authority, attestation).handler(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        exits.push_async_callback(server.stop, None)
        token = await mesh.tokens.create(REVIEWS)
        message = ca_pb2.IstioCertificateRequest(csr=new_request()[0].decode())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary(f"/{SERVICE}/CreateCertificate", request_serializer=type(message).SerializeToString)
            error = await refused(call(message, metadata=[("authorization", f"Bearer {token.secret}")], timeout=PATIENCE))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert [record.used for record in await mesh.tokens.list()] == [0.0]


async def test_attempts_from_one_address_are_limited() -> None:
    async with AsyncExitStack() as exits:
        mesh = await meshed(exits, limits=CaLimits(address=Rate(0.0, 3.0)))
        first = await mesh.enrol((await mesh.tokens.create(REVIEWS)).secret)
        for _ in range(2):
            assert (await refused(mesh.enrol("mjt_guess"))).code() is grpc.StatusCode.UNAUTHENTICATED
        token = await mesh.tokens.create(REVIEWS)
        assert (await refused(mesh.enrol(token.secret))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await mesh.renew(first)  # who has a certificate is not counted among strangers


async def test_renewals_of_one_identity_are_limited() -> None:
    async with AsyncExitStack() as exits:
        mesh = await meshed(exits, limits=CaLimits(identity=Rate(0.0, 2.0)))
        reviews = await mesh.enrol((await mesh.tokens.create(REVIEWS)).secret)
        ratings = await mesh.enrol((await mesh.tokens.create(RATINGS)).secret)
        for _ in range(2):
            assert await mesh.renew(reviews)
        assert (await refused(mesh.renew(reviews))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await mesh.renew(ratings)


async def test_a_chain_of_renewals_ends() -> None:
    async with AsyncExitStack() as exits:
        mesh = await meshed(exits, max_chain_age=0.0)
        first = await mesh.enrol((await mesh.tokens.create(REVIEWS)).secret)
        assert (await refused(mesh.renew(first))).code() is grpc.StatusCode.UNAUTHENTICATED
        assert await mesh.enrol((await mesh.tokens.create(REVIEWS)).secret)


async def test_F11_while_nothing_is_issued_no_token_is_used_up(mesh: Mesh) -> None:
    token = await mesh.tokens.create(REVIEWS)
    store = mesh.authority._store
    entry = await store.get(state.STATE)
    assert entry is not None
    await store.delete(state.STATE)
    await eventually(lambda: not mesh.authority.status().issuing)
    assert (await refused(mesh.enrol(token.secret))).code() is grpc.StatusCode.UNAVAILABLE
    await store.put(state.STATE, entry.value)
    await eventually(lambda: mesh.authority.status().issuing)
    assert await mesh.enrol(token.secret)


async def identity_at(mesh: Mesh, workload: Workload, roots: str = "") -> bytes:
    """Whom a service on the mTLS port takes the workload for."""
    credentials = Workload(workload.key, workload.chain, roots or workload.roots).channel_credentials
    options = [("grpc.ssl_target_name_override", CONTROL_NAME), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(mesh.mutual, credentials, options=options) as channel:
        answer: bytes = await channel.unary_unary("/test.Peer/Get")(b"", timeout=PATIENCE)
    return answer


async def test_F25_a_rotation_under_the_feet_of_the_ports(mesh: Mesh) -> None:
    """Both ports follow each step without a restart: what they present, and whom they let in."""
    authority = mesh.authority
    old = await mesh.enrol((await mesh.tokens.create(REVIEWS)).secret)
    await authority.prepare()
    await authority.activate()
    new = await mesh.enrol((await mesh.tokens.create(RATINGS)).secret)
    assert new.chain[1] != old.chain[1]
    both = authority.trust_bundle.pem
    assert await identity_at(mesh, old, both) == str(REVIEWS).encode()
    assert await identity_at(mesh, new, both) == str(RATINGS).encode()
    await authority.taint()
    # From the taint on the control service shows a certificate of the new root, which all trust by now.
    assert await identity_at(mesh, new, both.removeprefix(old.roots)) == str(RATINGS).encode()
    renewed = await mesh.renew(Workload(old.key, old.chain, both))
    await authority.revoke()
    assert await identity_at(mesh, renewed) == str(REVIEWS).encode()
    error = await refused(identity_at(mesh, Workload(old.key, old.chain, both)))
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_T04_an_open_connection_does_not_outlive_the_trust_in_its_certificate(mesh: Mesh) -> None:
    old = await mesh.enrol((await mesh.tokens.create(REVIEWS)).secret)
    options = [("grpc.ssl_target_name_override", CONTROL_NAME), ("grpc.use_local_subchannel_pool", 1)]
    message = ca_pb2.IstioCertificateRequest(csr=new_request()[0].decode())
    async with grpc.aio.secure_channel(mesh.mutual, old.channel_credentials, options=options) as channel:
        call = channel.unary_unary(f"/{SERVICE}/CreateCertificate", request_serializer=type(message).SerializeToString)
        assert await call(message, timeout=PATIENCE)
        for step in (mesh.authority.prepare, mesh.authority.activate, mesh.authority.taint, mesh.authority.revoke):
            await step()
        assert (await refused(call(message, timeout=PATIENCE))).code() is grpc.StatusCode.UNAUTHENTICATED


async def test_T17_no_secret_is_in_the_log(mesh: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    """At the finest level, over everything that goes well and wrong."""
    with caplog.at_level(logging.DEBUG):
        token = await mesh.tokens.create(REVIEWS)
        workload = await mesh.enrol(token.secret)
        await refused(mesh.enrol(token.secret))
        await mesh.renew(workload)
        canary = f"{'e' * 20}.{'CANARY' * 10}.AAAA"
        await refused(mesh.enrol(canary))
        await refused(mesh.enrol("mjt_CANARYCANARY"))
        await refused(mesh.enrol(token.secret, csr=b"CANARY" + workload.key))
        identity = mesh.authority.control_identity()
    text = "\n".join([caplog.text, *(str(vars(record)) for record in caplog.records)])
    assert str(REVIEWS) in text
    assert token.id in text
    for secret in (token.secret, "CANARY", "PRIVATE KEY", *workload.key.decode().split("\n")[1:2]):
        assert secret not in text
    assert identity.key_pem.decode().split("\n")[1] not in text


async def test_the_control_services_certificate_is_renewed_at_half_its_life() -> None:
    clock = SettableClock(time.time())
    async with running_authority(clock=clock) as authority:
        credentials = ControlCredentials(authority, clock=clock)
        first = credentials.identity
        clock.now += 43_100
        assert credentials.identity is first
        clock.now += 200
        second = credentials.identity
        assert second.key_pem != first.key_pem
        assert second.not_after > first.not_after


async def test_a_certificate_that_cannot_be_renewed_is_used_on(caplog: pytest.LogCaptureFixture) -> None:
    clock = SettableClock(time.time())
    async with running_authority(clock=clock) as authority:
        credentials = ControlCredentials(authority, clock=clock)
        first = credentials.identity
    clock.now += 50_000
    assert credentials.identity is first
    assert "is not renewed" in caplog.text
