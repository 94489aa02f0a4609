"""The CA API over real TLS: enrolment with a token, renewal with the certificate, refusals, limits, and what the log shows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest

from meshlib.xds.proto import ca_pb2
from meshlib_control.ca.attestation import Attestation
from meshlib_control.ca.authority import CertificateAuthority
from meshlib_control.ca.credentials import ControlCredentials
from meshlib_control.ca.json_tokens import JsonTokens
from meshlib_control.ca.limits import CaLimits
from meshlib_control.ca.model import CaSettings
from meshlib_control.ca.peers import peer_of
from meshlib_control.ca.service import SERVICE, CertificateService
from meshlib_control.ca.tokens import JoinTokens
from meshlib_control.store.memory import MemoryStore
from tests.support.authority import REVIEWS, TRUST_DOMAIN, certificate, new_kek, new_request, running_authority

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
        import time

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
