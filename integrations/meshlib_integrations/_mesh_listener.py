"""A listener of our own for mTLS, beside a server that cannot: a second uvicorn in the same process, for the same application.

Every worker process opens the port (``SO_REUSEPORT``), and the kernel spreads the connections over them.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any

from meshlib import Mesh
from meshlib.errors import ConfigError

if TYPE_CHECKING:
    from uvicorn.server import Server

KEEP_ALIVE = 300
"""Seconds that an idle connection is kept: a handshake costs more than a socket."""

DRAIN = 30
"""Seconds that requests in flight are given when the listener closes."""


class MeshListener:
    """In the event loop that opens it."""

    def __init__(self, mesh: Mesh, app: Any, state: dict[str, Any] | None = None) -> None:
        """`app`: an ASGI application.  `state`: of the server's lifespan, for ``scope["state"]``."""
        self._mesh = mesh
        self._app = app
        self._state = state
        self._server: Server | None = None

    @property
    def port(self) -> int:
        return self._mesh.settings.mesh_port

    async def open(self) -> None:
        """Accept connections from now on.  Raises errors.ConfigError."""
        server = _server(self._mesh, self._app)
        server.lifespan = server.config.lifespan_class(server.config)
        if self._state is not None:
            server.lifespan.state = self._state
        listening = _bind(self.port)
        try:
            await server.startup(sockets=[listening])
        except BaseException:
            listening.close()
            raise
        self._mesh.listening.speaks_mtls = True
        self._server, self._sockets = server, [listening]
        self._running = asyncio.create_task(server.main_loop(), name="meshlib-listener")

    async def close(self) -> None:
        """Accept no more, and wait for what is in flight."""
        server, self._server = self._server, None
        if server is None:
            return
        server.should_exit = True
        await self._running
        await server.shutdown(sockets=self._sockets)


class ThreadListener:
    """For a WSGI application: in a thread with an event loop of its own; requests run in `threads` others."""

    def __init__(self, mesh: Mesh, app: Any, threads: int = 32) -> None:
        """`app`: a WSGI application."""
        try:
            from a2wsgi import WSGIMiddleware
        except ImportError as missing:
            raise _missing("a2wsgi") from missing
        self._listener = MeshListener(mesh, WSGIMiddleware(app, workers=threads))
        self._opened = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="meshlib-listener", daemon=True)

    def open(self) -> None:
        """Accept connections from now on.  Raises errors.ConfigError."""
        self._thread.start()
        self._opened.wait()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Accept no more, and wait for what is in flight."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(DRAIN)

    def _run(self) -> None:
        asyncio.run(self._live())

    async def _live(self) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        try:
            await self._listener.open()
        except BaseException as error:
            self._error = error
            return
        finally:
            self._opened.set()
        await self._closing.wait()
        await self._listener.close()


def _server(mesh: Mesh, app: Any) -> Server:
    try:
        from uvicorn.config import Config
        from uvicorn.server import Server

        from meshlib_integrations._mesh_protocol import MeshProtocol
    except ImportError as missing:
        raise _missing("uvicorn") from missing
    protocol = type("MeshProtocol", (MeshProtocol,), {"mesh": mesh})
    config = Config(
        app,
        http=protocol,
        interface="asgi3",
        lifespan="off",
        log_config=None,  # the logging of the process is its own server's
        proxy_headers=False,  # an address comes from a socket, not from a header
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=DRAIN,
    )
    config.load()
    return Server(config)


def _bind(port: int) -> socket.socket:
    """All addresses, IPv4 and IPv6: who may come in is decided by certificates."""
    both = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            ("::" if both else "0.0.0.0", port),
            family=socket.AF_INET6 if both else socket.AF_INET,
            dualstack_ipv6=both,
            reuse_port=hasattr(socket, "SO_REUSEPORT"),
        )
    except OSError as error:
        raise ConfigError(f"mesh_port={port} (MESHLIB_MESH_PORT) cannot be listened on: {error}") from error


def _missing(package: str) -> ConfigError:
    return ConfigError(
        f"mesh_port (MESHLIB_MESH_PORT) makes meshlib listen by itself, which needs {package}: "
        "install meshlib-proxyless[listener], or let the server speak mTLS and leave mesh_port out"
    )
