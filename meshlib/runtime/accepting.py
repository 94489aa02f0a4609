"""The beginning of a connection to a server of blocking sockets: first byte, mode, handshake."""

from __future__ import annotations

import socket
import ssl
import time

from meshlib.runtime.listening import HANDSHAKE_TIMEOUT, Listening, NotAdmitted, connection_of
from meshlib.runtime.tls.side import Side


def admit(listening: Listening, connected: socket.socket, timeout: float = HANDSHAKE_TIMEOUT) -> socket.socket:
    """The socket to read requests from: `connected` itself for plaintext, else the TLS one that took its descriptor over.

    Blocks for at most `timeout` seconds.  The handshake is over, and its peer verified, when this returns: a handshake that
    begins within the first read would be verified by nobody.  Raises NotAdmitted; the connection is closed then.
    """
    if isinstance(connected, ssl.SSLSocket):
        connected.close()
        raise NotAdmitted("the server was given TLS of its own: leave either that out or the mesh's")
    deadline = time.monotonic() + timeout
    patience = connected.gettimeout()
    remote, local = _names(connected)
    try:
        port = connection_of(remote, local, None, encrypted=False).local_port
        tls = listening.admits_tls(_first_byte(connected, timeout), port)
        admitted = _handshake(connected, listening.side(port), deadline) if tls else connected
        connection = connection_of(remote, local, admitted if isinstance(admitted, ssl.SSLSocket) else None, encrypted=tls)
    except OSError as error:
        connected.close()
        if not isinstance(error, _Silent):
            listening.note_refused(connection_of(remote, local, None, encrypted=False).remote_address, error)
        raise error if isinstance(error, NotAdmitted) else NotAdmitted(f"handshake failed: {error}") from error
    admitted.settimeout(patience)
    listening.remember(admitted, connection)
    return admitted


class _Silent(NotAdmitted):
    """Nothing was said: a look whether the port is open."""


def _names(connected: socket.socket) -> tuple[object, object]:
    try:
        return connected.getpeername(), connected.getsockname()
    except OSError:  # already reset; reading says so
        return None, None


def _first_byte(connected: socket.socket, timeout: float) -> int:
    connected.settimeout(timeout)
    try:
        first = connected.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        raise NotAdmitted(f"no byte in {timeout:g} s") from None
    if not first:
        raise _Silent("closed before its first byte")
    return first[0]


def _handshake(connected: socket.socket, side: Side, deadline: float) -> ssl.SSLSocket:
    tls = side.wrap_socket(connected)
    try:
        tls.settimeout(max(deadline - time.monotonic(), 0.001))
        tls.do_handshake()
    except BaseException:
        tls.close()
        raise
    return tls
