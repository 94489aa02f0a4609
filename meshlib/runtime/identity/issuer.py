"""Gets certificates from the control service: Istio's CA API over gRPC, which is imported on first use."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from meshlib.model.identity import TrustBundles
from meshlib.runtime.fork import keep_for_ever
from meshlib.runtime.identity import pem
from meshlib.runtime.identity.bootstrap import Anchor, control_name, verified_roots
from meshlib.runtime.identity.errors import CredentialRefused, IssuingFailed
from meshlib.runtime.identity.material import Material

if TYPE_CHECKING:
    import grpc

METHOD: Final = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
TIMEOUT: Final = 10.0
"""Seconds for one call, the time to connect included."""

_REFUSALS: Final = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})


@dataclass(frozen=True, slots=True)
class Issued:
    """DER: the leaf and its intermediates, and the roots of the own trust domain."""

    chain: tuple[bytes, ...]
    roots: tuple[bytes, ...]


class Issuer(Protocol):
    """Gives a certificate for a signing request (PEM).  Both methods block, and raise IssuingFailed."""

    def enrol(self, request: bytes) -> Issued:
        """By the credential of this process."""
        ...

    def renew(self, request: bytes, current: Material, trust: TrustBundles) -> Issued:
        """By the certificate that it has.  `trust`: the newest roots that are known."""
        ...

    def forget(self) -> None:
        """In a forked child: what was open is the parent's."""
        ...


class ControlIssuer:
    """The CA of the control service."""

    def __init__(
        self,
        bootstrap: str,
        targets: tuple[str, ...],
        *,
        token_file: str = "",
        anchor: Anchor | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`bootstrap`: ``host:port`` that takes tokens and JWTs; `targets`: those that take certificates, tried in turn."""
        self._bootstrap = bootstrap
        self._targets = targets
        self._token_file = token_file
        self._anchor = anchor
        self._wall = wall
        self._next = 0
        self._channel: grpc.Channel | None = None

    def enrol(self, request: bytes) -> Issued:
        if not self._token_file:
            raise IssuingFailed("there is nothing to prove who this process is: give token_file, or a filled identity_dir")
        if self._anchor is None:
            raise IssuingFailed("nothing says which certificate authority is the right one: give ca_file or ca_sha256")
        credential = self._credential()  # before anything is opened: a missing file is the likeliest mistake
        trust_domain, roots = verified_roots(self._bootstrap, self._anchor, now=self._wall(), timeout=TIMEOUT)
        import grpc

        credentials = grpc.ssl_channel_credentials(pem.encode(roots))
        metadata = (("authorization", f"Bearer {credential}"),)
        return self._call(self._bootstrap, credentials, control_name(trust_domain), request, metadata)

    def renew(self, request: bytes, current: Material, trust: TrustBundles) -> Issued:
        import grpc

        trust_domain = current.identity.trust_domain
        roots = trust.roots.get(trust_domain) or current.roots.roots.get(trust_domain, ())
        credentials = grpc.ssl_channel_credentials(pem.encode(roots), current.key.pem(), current.chain_pem)
        failures = []
        for _ in self._targets:
            target = self._targets[self._next]
            try:
                return self._call(target, credentials, control_name(trust_domain), request, ())
            except CredentialRefused:
                raise
            except IssuingFailed as error:
                failures.append(str(error))
                self._next = (self._next + 1) % len(self._targets)
        raise IssuingFailed("; ".join(failures))

    def forget(self) -> None:
        keep_for_ever(self._channel)
        self._channel = None

    def _credential(self) -> str:
        """Read anew each time: JWTs are replaced by the platform, tokens by people."""
        try:
            text = Path(self._token_file).read_text().strip()
        except (OSError, ValueError) as error:
            raise IssuingFailed(f"token_file={self._token_file}: {error}") from error
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            raise IssuingFailed(f"token_file={self._token_file}: expected one join token or JWT in it")
        return text

    def _call(
        self,
        target: str,
        credentials: grpc.ChannelCredentials,
        name: str,
        request: bytes,
        metadata: tuple[tuple[str, str], ...],
    ) -> Issued:
        import grpc

        from meshlib.runtime.channel import OPTIONS
        from meshlib.xds.proto import ca_pb2

        options = (*OPTIONS, ("grpc.ssl_target_name_override", name))
        self._channel = channel = grpc.secure_channel(target, credentials, options=options)
        try:
            call = channel.unary_unary(
                METHOD,
                request_serializer=ca_pb2.IstioCertificateRequest.SerializeToString,
                response_deserializer=ca_pb2.IstioCertificateResponse.FromString,
            )
            message = ca_pb2.IstioCertificateRequest(csr=request.decode("ascii"))
            response: ca_pb2.IstioCertificateResponse = call(message, timeout=TIMEOUT, metadata=metadata)
        except grpc.RpcError as error:
            raise _failure(target, error) from None  # gRPC's error would show the metadata's debug text
        finally:
            self._channel = None
            channel.close()
        return _issued(target, response.cert_chain)


def _issued(target: str, chain: Sequence[str]) -> Issued:
    if len(chain) < 2:
        raise IssuingFailed(f"{target} answered with {len(chain)} certificates; expected a chain and the roots")
    try:
        *leaf_first, roots = [pem.certificates(each) for each in chain]
    except ValueError as error:
        raise IssuingFailed(f"{target} answered with what is no certificate: {error}") from error
    return Issued(tuple(der for each in leaf_first for der in each), roots)


def _failure(target: str, error: grpc.RpcError) -> IssuingFailed:
    code = getattr(error, "code", None)
    status = code().name if callable(code) else "UNKNOWN"
    details = getattr(error, "details", None)
    text = f"{target}: {status}: {details() if callable(details) else error}"
    return CredentialRefused(text) if status in _REFUSALS else IssuingFailed(text)
