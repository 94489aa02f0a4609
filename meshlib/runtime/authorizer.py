"""Asks external authorizers, as calls within the mesh: found, balanced, encrypted and retried like any other.

Over HTTP through the mesh's own client; over gRPC through channels to the authorizer's endpoints (`authorizer_grpc`).
"""

from __future__ import annotations

from meshlib.errors import MeshError
from meshlib.flow.server import Check
from meshlib.model.authorization import AuthorizerAnswer, BodyStart, ExternalAuthorization
from meshlib.model.snapshot import Snapshot
from meshlib.runtime.authorizer_grpc import GrpcAuthorizers
from meshlib.runtime.client import Client, Control
from meshlib.runtime.tls.contexts import TlsContexts

MAX_ANSWER = 1024 * 1024
"""Bytes of an answer's body; a longer one is no answer."""


class MeshAuthorizers:
    """One per process.  All methods may be called from any thread."""

    def __init__(self, control: Control, client: Client, tls: TlsContexts | None = None) -> None:
        """`tls` None: a process without an identity, which can ask in plaintext only."""
        self._control = control
        self._client = client
        self._grpc = GrpcAuthorizers(control, tls)

    def publish(self, snapshot: Snapshot) -> None:
        """Ask early where the authorizers are that the ports' policies name: the first request need not wait for that."""
        for listener in snapshot.inbound.values():
            for item in listener.filters:
                if isinstance(item, ExternalAuthorization):
                    self._control.request(item.authority)

    def ask(self, check: Check, body: BodyStart) -> AuthorizerAnswer:
        """Never raises for what goes wrong on the way: that is an answer with an `error`."""
        if check.filter.grpc:
            return self._grpc.ask(check, body)
        try:
            exchange = self._client.exchange(check.dialogue.compose(check.inspection, body))
            if exchange is None:
                return _outside(check)
            try:
                data = b""
                for chunk in exchange:
                    data += chunk
                    if len(data) > MAX_ANSWER:
                        return AuthorizerAnswer(error=f"an answer of more than {MAX_ANSWER} bytes")
            finally:
                exchange.close()
        except MeshError as error:
            return AuthorizerAnswer(error=str(error))
        return check.dialogue.read(exchange.status, exchange.headers, data)

    async def aask(self, check: Check, body: BodyStart) -> AuthorizerAnswer:
        """`ask` without blocking the event loop."""
        if check.filter.grpc:
            return await self._grpc.aask(check, body)
        try:
            exchange = await self._client.aexchange(check.dialogue.compose(check.inspection, body))
            if exchange is None:
                return _outside(check)
            try:
                data = b""
                async for chunk in exchange:
                    data += chunk
                    if len(data) > MAX_ANSWER:
                        return AuthorizerAnswer(error=f"an answer of more than {MAX_ANSWER} bytes")
            finally:
                await exchange.aclose()
        except MeshError as error:
            return AuthorizerAnswer(error=str(error))
        return check.dialogue.read(exchange.status, exchange.headers, data)

    def close(self) -> None:
        """Close the channels."""
        self._grpc.close()


def _outside(check: Check) -> AuthorizerAnswer:
    return AuthorizerAnswer(error=f"{check.filter.authority} is not part of the mesh")
