"""The certificate authority of a running service, and what the other parts need of it: callers, credentials, trust."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.routing import Route

from meshlib import SpiffeId
from meshlib_control.admin.authority import authority_routes
from meshlib_control.ca.attestation import Attestation
from meshlib_control.ca.authority import CertificateAuthority
from meshlib_control.ca.credentials import ControlCredentials
from meshlib_control.ca.issuers import read_issuers
from meshlib_control.ca.json_tokens import JsonTokens
from meshlib_control.ca.keys import generated_kek, kek_from
from meshlib_control.ca.model import CaSettings
from meshlib_control.ca.own import read_own
from meshlib_control.ca.peers import peer_of
from meshlib_control.ca.service import CertificateService
from meshlib_control.ca.tokens import JoinTokens
from meshlib_control.compile.trust import Trust
from meshlib_control.errors import ControlServiceError
from meshlib_control.serve.identity import Callers
from meshlib_control.serve.server import GrpcServer
from meshlib_control.settings import Address, Security, ca_key_file, ca_witness_file
from meshlib_control.store.model import Store
from meshlib_control.tasks import cancel, spawn

log = logging.getLogger(__name__)

PRUNE_INTERVAL = 3600.0  # seconds

Fetch = Callable[[str], Awaitable[bytes]]


class Identities:
    """Build, `start`, use, `close`."""

    def __init__(self, store: Store, settings: Security, listen: Address, *, fetch: Fetch | None = None) -> None:
        """`listen`: where clients connect to; `fetch`: gets the key sets of JWT issuers.  Raises `CaError`."""
        kek = kek_from(settings.ca_key) if settings.ca_key else generated_kek(ca_key_file(settings.data))
        own = read_own(settings.ca_chain, settings.ca_chain_key) if settings.ca_chain and settings.ca_chain_key else None
        self._settings = settings
        self.authority = CertificateAuthority(
            store,
            kek,
            CaSettings(
                trust_domain=settings.trust_domain,
                max_ttl=settings.certificate_ttl,
                control_names=_names(listen),
                witness=ca_witness_file(settings.data),
                own=own,
            ),
        )
        self.tokens = JoinTokens(store, settings.trust_domain, kek=kek)
        issuers = read_issuers(settings.jwt_issuers) if settings.jwt_issuers else ()
        self._json_tokens = JsonTokens(issuers, settings.trust_domain, fetch=fetch)
        self.callers = Callers(self._identify, self.authority.is_banned)
        self._credentials: ControlCredentials | None = None
        self._server: GrpcServer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.ca_address = ""

    async def start(self) -> None:
        """Open the authority and hand out certificates.  Raises `CaError`, `StoreError` and `PortUnavailable`."""
        await self.authority.start()
        self._credentials = ControlCredentials(self.authority)
        self._server = GrpcServer([self.service().handler()], self.credentials(client_certificates=False))
        address = self._settings.ca_listen
        self.ca_address = str(Address(address.host, await self._server.start(str(address))))
        self._tasks = [spawn(self._prune(), "join tokens: pruning")]

    async def close(self) -> None:
        """Idempotent."""
        await cancel(self._tasks)
        if self._server is not None:
            await self._server.stop()
        await self.authority.close()

    def service(self) -> CertificateService:
        """For a port: this one's callers prove who they are as the port's credentials have it."""
        age = self._settings.max_chain_age or None
        attestation = Attestation(self.authority, self.tokens, self._json_tokens, max_chain_age=age)
        return CertificateService(self.authority, attestation)

    def credentials(self, *, client_certificates: bool) -> Any:
        """Of a gRPC port."""
        assert self._credentials is not None, "credentials exist after start"
        return self._credentials.server(client_certificates=client_certificates)

    def routes(self) -> list[Route]:
        """Of the REST API."""
        return authority_routes(self.authority, self.tokens)

    @property
    def trust(self) -> Trust:
        """Whom the mesh trusts, without what MeshConfig adds."""
        bundle = self.authority.trust_bundle
        return Trust(domain=bundle.trust_domain, roots={bundle.trust_domain: bundle.pem})

    @property
    def problems(self) -> list[str]:
        """What an operator should look at."""
        return [f"certificate authority: {problem}" for problem in self.authority.status().problems] + [
            *self._json_tokens.problems
        ]

    def _identify(self, context: Any) -> SpiffeId:
        authority = self.authority
        return peer_of(dict(context.auth_context()), authority.trust_domain, authority.trust_bundle.der, time.time()).identity

    async def _prune(self) -> None:
        while True:
            await asyncio.sleep(PRUNE_INTERVAL)
            try:
                await self.tokens.prune()
            except ControlServiceError as error:
                log.warning("pruning join tokens: %s; trying again later", error)


def _names(listen: Address) -> tuple[str, ...]:
    """Names and addresses by which TLS clients that know nothing of SPIFFE may call this service."""
    names = ["localhost", "127.0.0.1", socket.gethostname()]
    if listen.host not in ("0.0.0.0", "::"):
        names.append(listen.host)
    return tuple(dict.fromkeys(names))
