"""The certificate authority and its join tokens over REST: views, and what is done with them."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from meshlib import SpiffeId
from meshlib_control.admin.authority_views import (
    AuthorityView,
    BanRequest,
    BanView,
    BundleView,
    IssuedList,
    IssuedView,
    RootView,
    StepRequest,
    TokenCreated,
    TokenList,
    TokenRequest,
    TokenView,
)
from meshlib_control.admin.problems import Problem, not_found
from meshlib_control.admin.requests import answer, body, number
from meshlib_control.ca.authority import CertificateAuthority
from meshlib_control.ca.errors import CaError, RequestRefused
from meshlib_control.ca.issue_log import IssueRecord
from meshlib_control.ca.model import AuthorityStatus, CaStatus
from meshlib_control.ca.own import read_own
from meshlib_control.ca.tokens import JoinTokens, TokenError, TokenRecord

STEPS = ("prepare", "activate", "taint", "revoke", "restore")


def authority_routes(authority: CertificateAuthority, tokens: JoinTokens) -> list[Route]:
    """Everything below ``/v1/ca`` and ``/v1/tokens``."""
    desk = _Desk(authority, tokens)
    return [
        Route("/v1/ca", desk.status, methods=["GET"]),
        Route("/v1/ca/bundle", desk.bundle, methods=["GET"]),
        Route("/v1/ca/rotation", desk.step, methods=["POST"]),
        Route("/v1/ca/bans", desk.ban, methods=["POST"]),
        Route("/v1/ca/bans/delete", desk.unban, methods=["POST"]),
        Route("/v1/ca/issued", desk.issued, methods=["GET"]),
        Route("/v1/tokens", desk.tokens, methods=["GET"]),
        Route("/v1/tokens", desk.create, methods=["POST"]),
        Route("/v1/tokens/{id}", desk.revoke, methods=["DELETE"]),
    ]


class _Desk:
    def __init__(self, authority: CertificateAuthority, tokens: JoinTokens) -> None:
        self._authority = authority
        self._tokens = tokens

    async def status(self, _request: Request) -> Response:
        return answer(_authority(self._authority.status()))

    async def bundle(self, _request: Request) -> Response:
        found = self._authority.trust_bundle
        hashes = [hashlib.sha256(root).hexdigest() for root in found.der]
        return answer(BundleView(found.trust_domain, found.pem, hashes))

    async def step(self, request: Request) -> Response:
        asked = await body(request, StepRequest)
        wanted = asked.step
        if bool(asked.chain) != bool(asked.key) or (asked.chain and wanted != "prepare"):
            raise Problem(
                400, "half of an authority, or one too many", where="chain and key", next_step="Give both, for `prepare` alone."
            )
        if wanted not in STEPS:
            raise Problem(
                400,
                f"{wanted!r} is no step of a rotation",
                where="step",
                next_step=f"One of {', '.join(STEPS)}, in this order.",
            )
        try:
            if asked.chain:
                own = await asyncio.to_thread(read_own, Path(asked.chain), Path(asked.key))
                return answer(_authority(await self._authority.prepare(own)))
            return answer(_authority(await getattr(self._authority, wanted)()))
        except CaError as error:
            raise _problem(error) from error

    async def ban(self, request: Request) -> Response:
        wanted = await body(request, BanRequest)
        try:
            await self._authority.ban(_identity(wanted.identity), by=wanted.by, reason=wanted.reason)
        except RequestRefused as error:
            raise _refused(error) from error
        return answer(_authority(self._authority.status()))

    async def unban(self, request: Request) -> Response:
        wanted = await body(request, BanRequest)
        if not await self._authority.unban(_identity(wanted.identity)):
            raise not_found(f"{wanted.identity} is not banned", "See `meshctl ca status`.")
        return answer(_authority(self._authority.status()))

    async def issued(self, request: Request) -> Response:
        limit = number(request, "limit", default=100) or 100
        records = await self._authority.log.records()
        return answer(IssuedList([_issued(record) for record in reversed(records[-limit:])]))

    async def tokens(self, _request: Request) -> Response:
        return answer(TokenList([_token(record) for record in await self._tokens.list()]))

    async def create(self, request: Request) -> Response:
        wanted = await body(request, TokenRequest)
        try:
            identity = SpiffeId.of_workload(self._authority.trust_domain, wanted.namespace, wanted.service_account)
            self._authority.check_identity(identity)
            made = await self._tokens.create(identity, ttl=wanted.ttl, cidr=wanted.cidr, author=wanted.author)
        except (RequestRefused, TokenError, ValueError) as error:
            raise _refused(error) from error
        return answer(TokenCreated(made.id, made.secret, str(made.identity), _time(made.expires)), status=201)

    async def revoke(self, request: Request) -> Response:
        wanted: str = request.path_params["id"]
        try:
            await self._tokens.revoke(wanted)
        except TokenError as error:
            raise not_found(str(error), "See `meshctl token list`.") from error
        return answer(TokenList([_token(record) for record in await self._tokens.list()]))


def _identity(text: str) -> SpiffeId:
    try:
        return SpiffeId.parse(text if "://" in text else f"spiffe://{text}")
    except ValueError as error:
        raise _refused(error) from error


def _problem(error: CaError) -> Problem:
    return Problem(409, error.what, where=error.where, why=error.why, next_step=error.next_step)


def _refused(error: Exception) -> Problem:
    return Problem(422, "the certificate authority does not do this", why=str(error), next_step="Correct the request.")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _authority(status: CaStatus) -> AuthorityView:
    return AuthorityView(
        trust_domain=status.trust_domain,
        epoch=status.epoch,
        issuing=status.issuing,
        roots=[_root(each) for each in status.authorities],
        bans=[BanView(each.identity, _time(each.time), each.by, each.reason) for each in status.bans],
        problems=list(status.problems),
    )


def _root(each: AuthorityStatus) -> RootView:
    return RootView(
        sha256=each.id,
        phase=each.phase.value,
        since=_time(each.since),
        root_expires=_time(each.root_not_after),
        signing_expires=_time(each.signing_not_after),
        renewable=each.root_key_here,
    )


def _issued(record: IssueRecord) -> IssuedView:
    return IssuedView(record.serial, record.identity, record.caller, _time(record.issued), _time(record.not_after))


def _token(record: TokenRecord) -> TokenView:
    used = _time(record.used) if record.used else ""
    return TokenView(record.id, record.identity, _time(record.expires), record.cidr, used, record.by)
