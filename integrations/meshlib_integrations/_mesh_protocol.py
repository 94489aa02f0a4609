"""uvicorn's HTTP protocols behind the mesh's door: the first byte of a connection says whether it is TLS or plain.

TLS is meshlib's own transport, on asyncio and uvloop alike, because that can begin after the first bytes were read.  What the
handshake proved is put into ``scope["state"]`` of every request and websocket of the connection; a context variable would leak
from one connection to another under uvloop.
"""

from __future__ import annotations

import asyncio
import functools
import weakref
from typing import TYPE_CHECKING, Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from meshlib import Mesh
from meshlib.lowlevel import HANDSHAKE_TIMEOUT, Connection, NotAdmitted, ServerTlsTransport, certified_for, connection_of
from meshlib_integrations._asgi import CONNECTION, Application, Receive, Scope, Send, closing
from meshlib_integrations._serving import serving_mesh

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState


class _Admission:
    """Part of a protocol of uvicorn's: notes once, when the connection begins, what all of its requests are given."""

    mesh: Mesh
    app: Any
    app_state: dict[str, Any]
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        connection = _connection(transport)
        self.app_state = {**self.app_state, CONNECTION: connection}
        super().connection_made(transport)  # type: ignore[misc]  # the protocol's
        if connection.peer is not None:
            listening = self.mesh.listening
            listening.vouched.add(
                transport.get_extra_info("ssl_object"), functools.partial(_end_soon, self.loop, weakref.ref(transport))
            )
            # A weak reference: after an upgrade nothing tells this object that the connection is gone.
            self._timer = self.loop.call_later(listening.lifetime(connection), _call, weakref.WeakMethod(self._retire))

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        super().connection_lost(exc)  # type: ignore[misc]

    def handle_websocket_upgrade(self, *event: Any) -> None:
        """A websocket has no next response to say ``close`` in; it lasts as long as its peer's certificate."""
        self._cancel()
        super().handle_websocket_upgrade(*event)  # type: ignore[misc]
        connection: Connection = self.app_state[CONNECTION]
        seconds = certified_for(connection)
        if seconds < float("inf"):
            self.loop.call_later(max(seconds, 0.0), _end, weakref.ref(self.transport))

    def _retire(self) -> None:
        """From here on, each response ends the connection."""
        self.app = _ending(self.app)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class _HttpTools(_Admission, HttpToolsProtocol):  # type: ignore[misc]  # the order of bases is the point
    def on_headers_complete(self) -> None:
        """What comes after this are trailers, which uvicorn would put behind the headers that policies look at."""
        super().on_headers_complete()
        if not self.parser.should_upgrade():
            self.headers: list[tuple[bytes, bytes]] = []


class _H11(_Admission, H11Protocol):  # type: ignore[misc]
    pass


class MeshProtocol(asyncio.Protocol):
    """``uvicorn app:app --http meshlib_integrations.uvicorn:MeshProtocol``: mTLS and plaintext on one port.

    Which of them is let in follows the mode of the port: STRICT takes mTLS only, PERMISSIVE both, DISABLE plaintext only.
    ``scope["state"]["meshlib.connection"]`` is the `meshlib.lowlevel.Connection`, in websockets' scopes too.
    """

    mesh: Mesh | None = None
    """For subclasses; None: the one of the application's `MeshMiddleware`, or else `meshlib.default_mesh()`."""

    handshake_timeout: ClassVar[float] = HANDSHAKE_TIMEOUT

    max_half_open: ClassVar[int] = 512
    """Connections of one server that are still before the end of their handshake; one more ends the oldest of them."""

    http: ClassVar[type[_Admission]] = _HttpTools

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._mesh = self.mesh or serving_mesh()
        self._transport: asyncio.Transport | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # asyncio's says BaseTransport
        self._transport = transport
        self._timer = self._loop.call_later(self.handshake_timeout, self._too_late)
        self._server_state.connections.add(self)  # type: ignore[arg-type]  # uvicorn calls shutdown() on them
        _enter(self._server_state, self)

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        assert transport is not None
        if transport.is_closing():
            return
        port = _connection(transport).local_port
        listening = self._mesh.listening
        try:
            if listening.admits_tls(data[0], port):
                served: Any = self._served()
                tls = ServerTlsTransport(listening.side(port), served, self._shaken, loop=self._loop)
                transport.set_protocol(tls)
                tls.connection_made(transport)
                tls.data_received(data)
            else:
                self._left()
                self._serve_plain(transport, data)
        except NotAdmitted as error:
            self._refuse(error)

    def eof_received(self) -> None:
        """Nothing was said: a look whether the port is open."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._left()

    def shutdown(self) -> None:
        """Of uvicorn's protocols: the server stops, and nothing was asked here yet."""
        if self._transport is not None:
            self._transport.abort()

    def _shaken(self, error: BaseException | None) -> None:
        """The handshake is over."""
        self._left()
        if error is not None and not self._refused:
            self._mesh.listening.note_refused(self._remote(), error)

    def _serve_plain(self, transport: asyncio.Transport, data: bytes) -> None:
        served: Any = self._served()
        transport.set_protocol(served)
        served.connection_made(transport)
        served.data_received(data)

    def _served(self) -> _Admission:
        served: Any = self.http
        protocol: _Admission = served(self._config, self._server_state, self._app_state, _loop=self._loop)
        protocol.mesh = self._mesh
        return protocol

    def _left(self) -> None:
        """This object has nothing more to do with the connection."""
        self._timer.cancel()
        self._server_state.connections.discard(self)
        _half_open.get(self._server_state, {}).pop(self, None)

    def _too_late(self) -> None:
        self._refuse(NotAdmitted(f"no request or handshake in {self.handshake_timeout:g} s"))

    def _refuse(self, error: NotAdmitted) -> None:
        self._refused = True
        self._mesh.listening.note_refused(self._remote(), error)
        self.shutdown()

    def _remote(self) -> str:
        return _connection(self._transport).remote_address if self._transport is not None else ""


class MeshH11Protocol(MeshProtocol):
    """The same with uvicorn's h11 parser."""

    http = _H11


_half_open: weakref.WeakKeyDictionary[ServerState, dict[MeshProtocol, None]] = weakref.WeakKeyDictionary()


def _enter(server_state: ServerState, protocol: MeshProtocol) -> None:
    waiting = _half_open.setdefault(server_state, {})
    waiting[protocol] = None
    if len(waiting) > protocol.max_half_open:
        oldest = next(iter(waiting))
        del waiting[oldest]
        oldest.shutdown()


def _connection(transport: asyncio.BaseTransport) -> Connection:
    about = transport.get_extra_info
    tls = about("ssl_object")
    return connection_of(about("peername"), about("sockname"), tls, encrypted=tls is not None)


def _call(method: weakref.WeakMethod[Any]) -> None:
    bound = method()
    if bound is not None:
        bound()


def _end_soon(loop: asyncio.AbstractEventLoop, transport: weakref.ref[asyncio.Transport]) -> None:
    """`_end`, from any thread."""
    try:
        loop.call_soon_threadsafe(_end, transport)
    except RuntimeError:
        pass  # the loop is closed, and its connections with it


def _end(transport: weakref.ref[asyncio.Transport]) -> None:
    """As when the server stops: at once, or after the answer that is being made; a websocket is told to come back (1012)."""
    found = transport()
    if found is not None and not found.is_closing():
        protocol: Any = found.get_protocol()
        protocol.shutdown()


def _ending(app: Application) -> Application:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, closing(send))

    return answer
