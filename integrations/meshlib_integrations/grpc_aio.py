"""meshlib in `grpc.aio`: the twin of `meshlib_integrations.grpc`, where everything is explained.

Client: ``channel(mesh, "ratings:9080")`` is a `grpc.aio.Channel`.  Server::

    server = grpc.aio.server(interceptors=server_interceptors(mesh))
    add_GreeterServicer_to_server(Greeter(), server)
    server.add_secure_port("0.0.0.0:9080", server_credentials(mesh))
    await serve(server, mesh)
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any

import grpc
import grpc.aio

from meshlib import Mesh
from meshlib_integrations._grpc_aio_calls import Calls, template
from meshlib_integrations._grpc_aio_handlers import wrapped
from meshlib_integrations._grpc_channel import Method, authority
from meshlib_integrations._grpc_server import GRACE, Gate, announce, peer, server_credentials

__all__ = ["MeshChannel", "channel", "peer", "serve", "server_credentials", "server_interceptors"]

_READY_TIMEOUT = 3600.0
_MAX_HANDLERS = 4096


def channel(
    mesh: Mesh,
    target: str,
    options: Sequence[tuple[str, Any]] = (),
    compression: grpc.Compression | None = None,
) -> MeshChannel:
    """A `grpc.aio.Channel` to a service of the mesh: ``ratings`` or ``ratings:9080``.

    `options` as for `grpc.aio.insecure_channel`.  Raises errors.RequestError for a `target` that is no host.
    """
    return MeshChannel(mesh, target, options, compression)


class MeshChannel(grpc.aio.Channel):  # type: ignore[misc]  # grpcio has no types
    """The real channels are the mesh's, one for each endpoint, and shared; closing this one cancels its own calls only."""

    def __init__(
        self,
        mesh: Mesh,
        target: str,
        options: Sequence[tuple[str, Any]] = (),
        compression: grpc.Compression | None = None,
    ) -> None:
        self._calls = Calls(mesh, authority(target), tuple(options))
        self._template = template(self._calls, compression)
        self._known = False

    def unary_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, _registered_method: bool = False
    ) -> Any:
        return self._template.unary_unary(self._calls.number(Method(method, request_serializer, response_deserializer)))

    def unary_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, _registered_method: bool = False
    ) -> Any:
        return self._template.unary_stream(self._calls.number(Method(method, request_serializer, response_deserializer)))

    def stream_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, _registered_method: bool = False
    ) -> Any:
        return self._template.stream_unary(self._calls.number(Method(method, request_serializer, response_deserializer)))

    def stream_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, _registered_method: bool = False
    ) -> Any:
        return self._template.stream_stream(self._calls.number(Method(method, request_serializer, response_deserializer)))

    async def close(self, grace: float | None = None) -> None:
        await self._template.close(grace)

    async def __aenter__(self) -> MeshChannel:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Ready is this channel when it is known where its calls go."""
        return grpc.ChannelConnectivity.READY if self._known else grpc.ChannelConnectivity.IDLE

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        if self.get_state() is last_observed_state:
            await self.channel_ready()

    async def channel_ready(self) -> None:
        """Raises errors.MeshError when that cannot be found out."""
        await self._calls.mesh.grpc_client.await_known(self._calls.target, _READY_TIMEOUT)
        self._known = True


def server_interceptors(mesh: Mesh, port: int | None = None) -> list[grpc.aio.ServerInterceptor]:
    """For ``grpc.aio.server(interceptors=...)``: calls get to a servicer only if the mesh's policies let them.

    `port`: what the server listens on (default: the Mesh's own), whose policies hold.  Put them before your own.
    """
    return [_Interceptor(Gate(mesh, port))]


class _Interceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._handlers: dict[object, Any] = {}

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        given = handler_call_details.method
        method: str = given.decode("utf-8", "replace") if isinstance(given, bytes) else given
        handler = await continuation(handler_call_details)
        if handler is None:  # not remembered: it is for the client to choose such names
            return wrapped(self._gate, method, None)
        key = method, handler
        found = self._handlers.get(key)
        if found is None:
            if len(self._handlers) >= _MAX_HANDLERS:
                self._handlers.clear()
            found = self._handlers[key] = wrapped(self._gate, method, handler)
        return found


async def serve(server: grpc.aio.Server, mesh: Mesh, *, port: int | None = None, grace: float = GRACE) -> None:
    """Start `server`, announce it, and wait for SIGTERM, SIGINT or somebody's ``server.stop``; then leave in good order.

    The process leaves the mesh first and serves on for `drain_seconds`; calls in flight then have `grace` seconds to end.
    `port`: what callers in the mesh are to use (default: the Mesh's own).  Outside of the main thread signals are not heard.
    """
    loop, asked, heard = asyncio.get_running_loop(), asyncio.Event(), []
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, asked.set)
        except (RuntimeError, ValueError, NotImplementedError):
            break  # not in the main thread
        heard.append(number)
    try:
        await server.start()
        announce(mesh, port)
        ended = asyncio.ensure_future(server.wait_for_termination())
        wanted = asyncio.ensure_future(asked.wait())
        try:
            await asyncio.wait((ended, wanted), return_when=asyncio.FIRST_COMPLETED)
        finally:
            wanted.cancel()
        await mesh.adrain(0.0)
        await server.stop(grace)
        await ended  # and not cancelled before: the server itself waits for the same thing
    finally:
        for number in heard:
            loop.remove_signal_handler(number)
