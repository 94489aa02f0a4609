"""A gRPC call on its way into the server's flow, the same for servers with threads and for asyncio's."""

from __future__ import annotations

import logging
import ssl
import time
from typing import Any, NamedTuple

import grpc

from meshlib import Mesh, Peer, RequestContext, current_request
from meshlib.lowlevel import Refusal, ServerRequest, Serving, code_of_status, headers_of, is_method
from meshlib_integrations._grpc_channel import CODES

logger = logging.getLogger("meshlib")

CREDENTIALS_TIMEOUT = 30.0
"""Seconds that a server waits for the process's first certificate."""

GRACE = 30.0
"""Seconds that calls in flight are given when the server stops."""

_LONGEST = 366 * 86400.0
"""Seconds; what is longer is no deadline but a number (``grpc-timeout: 99999999H``)."""

_CONTENT_TYPE = (b"content-type", b"application/grpc")
_NEVER = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
"""HTTP/2 has no such fields (RFC 9113 section 8.2.2); who sends one wants some reader to see another request."""


class Refused(Exception):
    """The call is not let in; what its client is told."""

    def __init__(self, code: grpc.StatusCode, details: str, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.metadata = metadata


class Metadatum(NamedTuple):
    """As gRPC's own."""

    key: str
    value: str | bytes


class Gate:
    """Of one server.  `port`: what it listens on, whose policies hold (0: the Mesh's own)."""

    def __init__(self, mesh: Mesh, port: int | None) -> None:
        self.mesh = mesh
        self._port = port

    def begin(self, method: str, context: Any) -> Serving:
        """As far as the first authorizer, if there is one to be asked.  Raises Refused."""
        mesh = self.mesh
        if not is_method(method):
            self._note(context, f"{method[:200]!r} is not the canonical form of any method")
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, "malformed method")
        try:
            port = self._port or mesh.settings.port or 0
            connection = mesh.grpc_serving.connection(context.auth_context(), context.peer(), port)
        except ssl.SSLError as error:
            self._note(context, error)
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, "the client's certificate was refused") from error
        headers = [pair for pair in headers_of(context.invocation_metadata() or ()) if pair[0] != b"host"]
        if not _NEVER.isdisjoint(name for name, _ in headers):
            self._note(context, "a field of HTTP/1.1's connections in its metadata")
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, "malformed metadata")
        headers.append(_CONTENT_TYPE)
        request = ServerRequest("POST", method.encode("ascii"), headers, http_version="2", connection=connection, grpc=True)
        return mesh.serve(request)

    def admitted(self, serving: Serving, context: Any, *, streams: bool = False) -> Seen:
        """What the application gets in the place of gRPC's context.  `streams`: how long it lasts is no matter of load.

        Raises Refused.
        """
        if serving.refusal is not None:
            raise _refused(serving.refusal)
        if streams and serving.stay is not None:
            serving.stay.end(sampled=False)
        remaining = context.time_remaining()
        if remaining is not None and remaining < _LONGEST:
            deadline, until = serving.context.deadline, time.monotonic() + remaining
            serving.context.deadline = until if deadline is None else min(deadline, until)
        return Seen(context, serving)

    def _note(self, context: Any, reason: object) -> None:
        self.mesh.listening.note_refused(context.peer(), reason)


class Seen:
    """A `grpc.ServicerContext` with ``meshlib``, the call's `meshlib.RequestContext`, and the metadata as policies left it."""

    def __init__(self, context: Any, serving: Serving) -> None:
        inspection = serving.inspection
        assert inspection is not None  # there is one without a refusal
        self._context = context
        self._changes = inspection.header_changes
        added = (*inspection.response_headers, *(inspection.response_set or {}).items())
        self._added = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in added)
        self.meshlib = serving.context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def invocation_metadata(self) -> Any:
        """Without what nobody outside may say, and with what policies have added."""
        metadata = self._context.invocation_metadata()
        if not self._changes:
            return metadata
        kept = [pair for pair in metadata or () if pair[0].encode("latin-1") not in self._changes]
        set_ = [(name, value) for name, value in self._changes.items() if value is not None and name != _CONTENT_TYPE[0]]
        return (*kept, *(Metadatum(name.decode("latin-1"), value.decode("latin-1")) for name, value in set_))

    def send_initial_metadata(self, initial_metadata: Any) -> Any:
        """With what authorizers have for the client."""
        added, self._added = self._added, ()
        return self._context.send_initial_metadata((*added, *initial_metadata))

    @property
    def unsent(self) -> bool:
        """There is something for the client that the application has not sent along yet."""
        return bool(self._added)


grpc.ServicerContext.register(Seen)


def announce(mesh: Mesh, port: int | None) -> None:
    """The server listens: tell the mesh."""
    listening = mesh.listening
    mesh.start()
    if listening.contexts is not None and not listening.speaks_mtls:
        logger.warning(
            "this process has an identity, but its gRPC server has no port with server_credentials(mesh): callers in the mesh "
            "are refused under STRICT"
        )
    mesh.serve_started(port)


def server_credentials(mesh: Mesh, timeout: float = CREDENTIALS_TIMEOUT) -> grpc.ServerCredentials:
    """For ``server.add_secure_port``: mTLS with the process's identity, whose certificates are followed for each handshake.

    Every client must have a certificate of the mesh.  Blocks for at most `timeout` seconds until there is a first certificate.
    Raises errors.ConfigError for a process without an identity, errors.NotReady.
    """
    credentials = mesh.grpc_serving.credentials(timeout)
    mesh.listening.speaks_mtls = True
    return credentials


def peer(context: Any) -> Peer | None:
    """Who has sent the call that is being served, proved by the certificate of its connection.  None: nobody proved anything.

    `context`: what the servicer was called with.
    """
    found = getattr(context, "meshlib", None)
    served = found if isinstance(found, RequestContext) else current_request()
    return served.peer if served is not None else None


def framed(message: bytes) -> bytes:
    """A message as it is in the body (gRPC over HTTP/2, Length-Prefixed-Message)."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def _refused(refusal: Refusal) -> Refused:
    code = CODES[code_of_status(refusal.status)]
    metadata = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in refusal.headers)
    return Refused(code, refusal.body[:1024].decode("utf-8", "replace"), metadata)
