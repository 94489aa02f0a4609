"""New connections to the ports of this process: which of them may come in, by which way, and who is at their other end.

What a server's protocol class or a listener asks.  The mode of a port is read for each connection, so a change holds from the
next one on; requests on connections that are open already meet it in the server's flow.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Protocol
from weakref import WeakKeyDictionary, ref

from meshlib.model.identity import TrustBundles
from meshlib.model.inbound import Connection
from meshlib.model.listener import MtlsMode
from meshlib.policy.rng import Rng
from meshlib.runtime.distrust import Vouched
from meshlib.runtime.fork import forget_in_child
from meshlib.runtime.serving import Inbound
from meshlib.runtime.tls.objects import Checked, peer_of
from meshlib.runtime.tls.side import Side

logger = logging.getLogger("meshlib")

HANDSHAKE_TIMEOUT = 10.0
"""Seconds from accepting a connection to the end of its handshake (or the first byte of a plain one)."""

MAX_AGE = 3600.0
"""Seconds after which a TLS connection is ended with ``connection: close``, +-10 %: its peer shows a newer certificate then."""

TLS_HANDSHAKE = 0x16
"""First byte of a TLS connection (RFC 8446 section 5.1, ContentType); no method of HTTP begins with it."""

_JITTER = 0.1


class ServerContexts(Protocol):
    """Where the server's side of TLS comes from (`meshlib.runtime.tls.contexts`)."""

    def downstream(self, minimum_version: str = "") -> Side:
        """Wraps a connection with the current certificates, and verifies its peer."""
        ...

    @property
    def trust(self) -> TrustBundles: ...

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called after each change; call the result to stop."""
        ...


class NotAdmitted(ConnectionAbortedError):
    """A connection that may not come in; says why, for the log.  Its peer is told nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Admitted:
    """A connection of a server that hands its sockets to the application."""

    connection: Connection
    until: float  # monotonic seconds: when it is to be retired


class Listening:
    """One per Mesh.  Any thread may ask.

    `contexts` is None in a process without an identity.  `speaks_mtls` is said by the server's integration: the port that is
    announced takes mTLS.
    """

    def __init__(self, inbound: Inbound, rng: Rng | None = None) -> None:
        self.inbound = inbound
        self._rng = rng or Random()
        self._contexts: ServerContexts | None = None
        self._stop: Callable[[], None] = _nothing
        self.vouched = Vouched()
        self.speaks_mtls = False
        self.refused = 0  # connections that were not let in
        self._admitted: WeakKeyDictionary[socket.socket, Admitted] = WeakKeyDictionary()
        forget_in_child(self)

    @property
    def contexts(self) -> ServerContexts | None:
        return self._contexts

    @contexts.setter
    def contexts(self, contexts: ServerContexts | None) -> None:
        self._stop()
        self._contexts = contexts
        self._stop = contexts.listen(self._recheck) if contexts is not None else _nothing

    def _recheck(self) -> None:
        contexts = self._contexts
        if contexts is not None:
            self.vouched.recheck(contexts.trust)

    def mode(self, port: int) -> MtlsMode:
        """The mode of `port` now."""
        return self.inbound.plan(port).mtls

    def admits_tls(self, first: int, port: int) -> bool:
        """Whether a connection to `port` with this first byte begins a handshake; False: it is a plain one, and may come in.

        Raises NotAdmitted when the mode of the port forbids it.
        """
        mode = self.mode(port)
        if first == TLS_HANDSHAKE:
            if mode is MtlsMode.DISABLE:
                raise NotAdmitted(f"TLS on port {port}, whose mTLS mode is DISABLE")
            return True
        if mode is MtlsMode.STRICT:
            raise NotAdmitted(f"plaintext on port {port}, whose mTLS mode is STRICT")
        return False

    def side(self, port: int) -> Side:
        """The server's side of a handshake on `port`.  Raises NotAdmitted without an identity."""
        if self.contexts is None:
            raise NotAdmitted(f"TLS on port {port}, but this process has no identity")
        return self.contexts.downstream(self.inbound.plan(port).minimum_version)

    def note_refused(self, remote_address: str, reason: object) -> None:
        """Count and log a connection that was not let in."""
        self.refused += 1
        logger.info("connection from %s refused: %s", remote_address or "unknown", reason)

    def lifetime(self, connection: Connection) -> float:
        """Seconds from now until this TLS connection is to be retired."""
        age = MAX_AGE * (1.0 + _JITTER * (2.0 * self._rng.random() - 1.0))
        return max(min(age, certified_for(connection)), 0.0)

    def remember(self, connected: socket.socket, connection: Connection) -> None:
        """Note what the handshake of this very socket has proved, for as long as the socket lives."""
        until = time.monotonic() + self.lifetime(connection) if connection.tls else float("inf")
        self._admitted[connected] = Admitted(connection, until)
        if isinstance(connected, Checked):
            self.vouched.add(connected, partial(self._distrust, ref(connected)))

    def admitted(self, connected: object) -> Admitted | None:
        """Of a socket that `remember` was told of; None for any other thing, and whoever came in by it has proved nothing."""
        return self._admitted.get(connected) if isinstance(connected, socket.socket) else None

    def _distrust(self, connected: ref[socket.socket]) -> None:
        """Nobody is known at the other end any more, and the next answer there is the last."""
        found = connected()
        admitted = self._admitted.get(found) if found is not None else None
        if found is not None and admitted is not None:
            self._admitted[found] = Admitted(replace(admitted.connection, peer=None), 0.0)

    def forget(self) -> None:
        """In a forked child: identity and connections are the parent's."""
        self._contexts, self._stop = None, _nothing
        self._admitted = WeakKeyDictionary()
        self.vouched.forget()


def _nothing() -> None:
    """There is nothing to stop."""


def certified_for(connection: Connection) -> float:
    """Seconds until the peer's certificate ends; endless without one."""
    if connection.peer is None or not connection.peer.not_after:
        return float("inf")
    return connection.peer.not_after - time.time()


def connection_of(remote: object, local: object, tls: ssl.SSLObject | ssl.SSLSocket | None, *, encrypted: bool) -> Connection:
    """What is known of a connection.  `remote` and `local` are socket names; whatever is no address of TCP is left out.

    `tls` is the object whose handshake our own context has made; `encrypted`: the connection is one of TLS, be it another's.
    """
    address, port = _tcp(local)
    return Connection(
        remote_address=_tcp(remote)[0],
        local_address=address,
        local_port=port,
        tls=encrypted,
        peer=peer_of(tls),
        server_name=getattr(tls, "server_name", None) or "",
    )


def _tcp(name: object) -> tuple[str, int]:
    """(address, port) of a socket's name; an IPv4 address in a socket of both families is written as IPv4."""
    if isinstance(name, tuple) and len(name) >= 2 and isinstance(name[0], str) and isinstance(name[1], int):
        return name[0].removeprefix("::ffff:") if "." in name[0] else name[0], name[1]
    return "", 0
