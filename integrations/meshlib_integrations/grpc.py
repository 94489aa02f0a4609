"""meshlib in gRPC, for blocking callers and servers with threads; `grpc_aio` is its twin for asyncio.

Client: ``channel(mesh, "ratings:9080")`` is a `grpc.Channel`; stubs stay as they are.  Calls go through the mesh's flow:
routes, balancing per call, deadline and trace of the request being served, retries of unary calls, mTLS with identities.

Server::

    server = grpc.server(pool, interceptors=server_interceptors(mesh))
    add_GreeterServicer_to_server(Greeter(), server)
    server.add_secure_port("0.0.0.0:9080", server_credentials(mesh))
    serve(server, mesh)

gRPC cannot tell TLS from plaintext on one port.  Where the mesh is PERMISSIVE and callers outside of it exist, add a second,
insecure port for them: calls that come by it are refused as soon as the mode is STRICT.  Nor does it tell which host a client
has named: a policy that denies by host denies, and one that allows by host allows nothing.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any

import grpc

from meshlib import Mesh
from meshlib.errors import MeshError
from meshlib_integrations._grpc_calls import Calls, StreamStream, StreamUnary, UnaryStream, UnaryUnary
from meshlib_integrations._grpc_channel import Method, authority
from meshlib_integrations._grpc_handlers import wrapped
from meshlib_integrations._grpc_server import GRACE, Gate, announce, peer, server_credentials

__all__ = ["MeshChannel", "channel", "peer", "serve", "server_credentials", "server_interceptors"]

_READY_TIMEOUT = 3600.0
_POLL = 0.5
"""Seconds between two looks."""

_MAX_HANDLERS = 4096


def channel(
    mesh: Mesh,
    target: str,
    options: Sequence[tuple[str, Any]] = (),
    compression: grpc.Compression | None = None,
) -> MeshChannel:
    """A `grpc.Channel` to a service of the mesh: ``ratings`` or ``ratings:9080``.

    `options` as for `grpc.insecure_channel`.  Raises errors.RequestError for a `target` that is no host.
    """
    return MeshChannel(mesh, target, options, compression)


class MeshChannel(grpc.Channel):  # type: ignore[misc]  # grpcio has no types
    """The real channels are the mesh's, one for each endpoint, and shared; closing this one cancels its own calls only."""

    def __init__(
        self,
        mesh: Mesh,
        target: str,
        options: Sequence[tuple[str, Any]] = (),
        compression: grpc.Compression | None = None,
    ) -> None:
        self._calls = Calls(mesh, authority(target), tuple(options), compression)
        self._subscribers: set[Callable[[grpc.ChannelConnectivity], None]] = set()

    def unary_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, _registered_method: bool = False
    ) -> UnaryUnary:
        return UnaryUnary(self._calls, Method(method, request_serializer, response_deserializer))

    def unary_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, _registered_method: bool = False
    ) -> UnaryStream:
        return UnaryStream(self._calls, Method(method, request_serializer, response_deserializer))

    def stream_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, _registered_method: bool = False
    ) -> StreamUnary:
        return StreamUnary(self._calls, Method(method, request_serializer, response_deserializer))

    def stream_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, _registered_method: bool = False
    ) -> StreamStream:
        return StreamStream(self._calls, Method(method, request_serializer, response_deserializer))

    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool | None = False) -> None:
        """Ready is this channel when it is known where its calls go: `grpc.channel_ready_future` waits for that."""
        self._subscribers.add(callback)
        callback(grpc.ChannelConnectivity.IDLE)
        if try_to_connect:
            threading.Thread(target=self._connect, args=(callback,), name="meshlib-grpc-ready", daemon=True).start()

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self._subscribers.discard(callback)

    def close(self) -> None:
        self._subscribers.clear()
        self._calls.close()

    def __enter__(self) -> MeshChannel:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _connect(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """Until it is known, or nobody wants to know any more."""
        while callback in self._subscribers:
            try:
                self._calls.mesh.grpc_client.wait_known(self._calls.target, _READY_TIMEOUT)
            except MeshError:
                callback(grpc.ChannelConnectivity.TRANSIENT_FAILURE)
                time.sleep(_POLL)
            else:
                callback(grpc.ChannelConnectivity.READY)
                return


def server_interceptors(mesh: Mesh, port: int | None = None) -> list[grpc.ServerInterceptor]:
    """For ``grpc.server(pool, interceptors=...)``: calls get to a servicer only if the mesh's policies let them.

    `port`: what the server listens on (default: the Mesh's own), whose policies hold.  Put them before your own.
    """
    return [_Interceptor(Gate(mesh, port))]


class _Interceptor(grpc.ServerInterceptor):  # type: ignore[misc]
    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._handlers: dict[object, Any] = {}

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        method: str = handler_call_details.method
        handler = continuation(handler_call_details)
        if handler is None:  # not remembered: it is for the client to choose such names
            return wrapped(self._gate, method, None)
        key = method, handler
        found = self._handlers.get(key)
        if found is None:
            if len(self._handlers) >= _MAX_HANDLERS:
                self._handlers.clear()
            found = self._handlers[key] = wrapped(self._gate, method, handler)
        return found


def serve(server: grpc.Server, mesh: Mesh, *, port: int | None = None, grace: float = GRACE) -> None:
    """Start `server`, announce it, and block until SIGTERM, SIGINT or somebody's ``server.stop``; then leave in good order.

    The process leaves the mesh first and serves on for `drain_seconds`; calls in flight then have `grace` seconds to end.
    `port`: what callers in the mesh are to use (default: the Mesh's own).  Outside of the main thread signals are not heard.
    """
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)} if main else {}
    try:
        server.start()
        announce(mesh, port)
        while not asked.is_set() and server.wait_for_termination(_POLL):
            pass
        mesh.drain(0.0)
        server.stop(grace).wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
