"""Istio's CA API: ``/istio.v1.auth.IstioCertificateService/CreateCertificate``.

The same service listens on two ports.  On the one that asks for no client certificate, callers prove who they are with a token
(metadata ``authorization: Bearer ...``); on the other one with the certificate that they have, and get the next one.

Refusals are short on purpose: what exactly was wrong with a credential is in the log, not in the answer.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError

from meshlib.xds.proto import ca_pb2
from meshlib_control.ca.attestation import Attestation, Attested
from meshlib_control.ca.authority import CertificateAuthority
from meshlib_control.ca.csr import read_csr
from meshlib_control.ca.errors import CallerRefused, CsrRefused, IdentityBanned, IdentityRefused, IssuingStopped
from meshlib_control.ca.limits import CaLimits, RateLimiter, origin_of
from meshlib_control.ca.model import IssuedCertificate
from meshlib_control.ca.peers import address_of, has_certificate, is_encrypted
from meshlib_control.errors import StoreError

log = logging.getLogger(__name__)

SERVICE = "istio.v1.auth.IstioCertificateService"
METHOD = "CreateCertificate"
MAX_REQUEST = 32 * 1024
"""Bytes of a request: a CSR of the largest size and generous metadata."""

UNAUTHENTICATED = "request authenticate failure"
"""All that a caller learns; Istio's words."""


class _Context(Protocol):
    """What is used of grpc.aio.ServicerContext."""

    def peer(self) -> str: ...

    def auth_context(self) -> dict[str, Sequence[bytes]]: ...

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]] | None: ...

    async def abort(self, code: Any, details: str) -> None: ...


class _Refusal(Exception):
    """The answer to a request that is not served."""

    def __init__(self, code: Any, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class CertificateService:
    """Serves one authority.  `handler` is what a grpc.aio server needs."""

    def __init__(self, authority: CertificateAuthority, attestation: Attestation, *, limits: CaLimits | None = None) -> None:
        rates = limits or CaLimits()
        self._authority = authority
        self._attestation = attestation
        self._addresses = RateLimiter(rates.address)
        self._identities = RateLimiter(rates.identity)

    def handler(self) -> grpc.GenericRpcHandler:
        """For both ports."""
        # The request stays bytes until its size and its sender are known to be fit to parse it for.
        method = grpc.unary_unary_rpc_method_handler(
            self._create_certificate, response_serializer=ca_pb2.IstioCertificateResponse.SerializeToString
        )
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})

    async def _create_certificate(self, request: bytes, context: _Context) -> ca_pb2.IstioCertificateResponse:
        address = address_of(context.peer())
        try:
            issued = await self._serve(request, context, address)
        except _Refusal as refusal:
            await context.abort(refusal.code, refusal.details)
            raise
        return ca_pb2.IstioCertificateResponse(cert_chain=[*issued.chain_pem, issued.roots_pem])

    async def _serve(self, request: bytes, context: _Context, address: str) -> IssuedCertificate:
        try:
            return await self._issue(request, context, address)
        except CsrRefused as error:
            raise _Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        except CallerRefused as error:
            log.warning("no certificate for a caller at %s: %s", address or "an unknown address", error)
            raise _Refusal(grpc.StatusCode.UNAUTHENTICATED, UNAUTHENTICATED) from error
        except (IdentityRefused, IdentityBanned) as error:
            log.warning("no certificate for a caller at %s: %s", address or "an unknown address", error)
            raise _Refusal(grpc.StatusCode.PERMISSION_DENIED, "no certificate is issued for this identity") from error
        except (IssuingStopped, StoreError) as error:
            log.error("no certificate for a caller at %s: %s", address or "an unknown address", error)
            raise _Refusal(grpc.StatusCode.UNAVAILABLE, "the certificate authority cannot issue at the moment") from error

    async def _issue(self, request: bytes, context: _Context, address: str) -> IssuedCertificate:
        peer = dict(context.auth_context())
        if not is_encrypted(peer):
            raise CallerRefused("credentials are taken over TLS only")
        renewal = has_certificate(peer)
        if not renewal and not self._addresses.allow(origin_of(address)):
            raise _Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests from this address; try again later")
        credential = "" if renewal else _bearer(context.invocation_metadata() or ())
        message = _parsed(request)
        # Before a join token is used up, so that neither a client's mistake nor an outage here costs it.
        read_csr(message.csr)
        self._authority.check_issuing()
        caller = self._attestation.certificate(peer) if renewal else await self._attestation.bearer(credential, address=address)
        return self._issued(message, caller)

    def _issued(self, message: ca_pb2.IstioCertificateRequest, caller: Attested) -> IssuedCertificate:
        if caller.repeatable and not self._identities.allow(str(caller.identity)):
            raise _Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests of this identity; try again later")
        return self._authority.issue(
            message.csr,
            caller.identity,
            caller=caller.caller,
            ttl=float(message.validity_duration) if message.validity_duration else None,
            attested_at=caller.at,
        )


def _parsed(request: bytes) -> ca_pb2.IstioCertificateRequest:
    if len(request) > MAX_REQUEST:
        raise CsrRefused(f"the request has {len(request)} bytes; at most {MAX_REQUEST} are read")
    try:
        message = ca_pb2.IstioCertificateRequest.FromString(request)
    except DecodeError as error:
        raise CsrRefused("the request cannot be read") from error
    if message.validity_duration < 0:
        raise CsrRefused(
            f"a validity of {message.validity_duration} s was asked for; expected more than 0, or 0 for the default"
        )
    if "ImpersonatedIdentity" in message.metadata.fields:
        raise CsrRefused("a certificate is issued for the caller itself only, not for an impersonated identity")
    return message


def _bearer(metadata: Sequence[tuple[str, str | bytes]]) -> str:
    values = [value for key, value in metadata if key == "authorization"]
    if len(values) != 1 or not isinstance(values[0], str):
        raise CallerRefused("expected one authorization in the metadata")
    scheme, _, credential = values[0].partition(" ")
    if scheme.lower() != "bearer" or not credential:
        raise CallerRefused("the authorization is no bearer token")
    return credential
