"""gunicorn's own workers behind the mesh's door: the first byte of a connection says whether it is TLS or plain."""

from __future__ import annotations

import errno
import socket
from typing import Any

from gunicorn.workers.gthread import ThreadWorker
from gunicorn.workers.sync import SyncWorker

from meshlib.lowlevel import NotAdmitted, admit
from meshlib_integrations._serving import server_speaks_mtls, serving_mesh


class SyncMeshWorker(SyncWorker):  # type: ignore[misc]  # gunicorn has no types
    """``-k meshlib_integrations.gunicorn.SyncMeshWorker``: gunicorn's ``sync``, one connection at a time."""

    def init_process(self) -> None:
        server_speaks_mtls()
        super().init_process()

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        try:
            admitted = admit(serving_mesh().listening, client)
        except NotAdmitted:
            return
        super().handle(listener, admitted, addr)


class ThreadMeshWorker(ThreadWorker):  # type: ignore[misc]
    """``-k meshlib_integrations.gunicorn.ThreadMeshWorker``: gunicorn's ``gthread``; handshakes are made by its threads."""

    def init_process(self) -> None:
        server_speaks_mtls()
        super().init_process()

    def enqueue_req(self, conn: Any) -> None:
        """A connection that has data goes to a thread, which begins with `conn.init`."""
        if not conn.initialized and "init" not in vars(conn):
            conn.init = _Beginning(conn, conn.init)
        super().enqueue_req(conn)


class _Beginning:
    """In the place of a connection's `init`."""

    def __init__(self, conn: Any, init: Any) -> None:
        self._conn = conn
        self._init = init

    def __call__(self) -> None:
        conn = self._conn
        if not conn.initialized:
            try:
                conn.sock = admit(serving_mesh().listening, conn.sock)
            except NotAdmitted as error:
                conn.sock = socket.socket()  # for gunicorn to close
                raise ConnectionResetError(errno.ECONNRESET, str(error)) from error  # what gunicorn does not log
        self._init()
