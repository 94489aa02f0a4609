"""A connection that another thread cuts off: it is that one, or none."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from meshlib.runtime.http.blocking_connection import BlockingConnection
from meshlib.runtime.http.limits import Limits
from meshlib.runtime.http.settings import PoolSettings


class Owner:
    """A pool that takes note."""

    def connection_ready(self, connection: BlockingConnection) -> None:
        raise AssertionError("no exchange was made")

    def connection_gone(self, connection: BlockingConnection) -> None:
        self.gone = connection


class Watched(socket.socket):
    """While its number is looked up, another thread tries to close the connection."""

    connection: BlockingConnection | None = None
    closing: threading.Thread | None = None
    closed_while_in_use = False

    def fileno(self) -> int:
        number = super().fileno()
        if self.connection is not None and self.closing is None:
            self.closing = threading.Thread(target=self.connection.abort, args=(None,))
            self.closing.start()
            self.closing.join(0.2)
            self.closed_while_in_use = super().fileno() < 0
        return number


@pytest.fixture
def peers() -> Iterator[tuple[Watched, socket.socket]]:
    ours, theirs = socket.socketpair()
    watched = Watched(ours.family, ours.type, ours.proto, fileno=ours.detach())
    with watched, theirs:
        yield watched, theirs


def test_whoever_waits_for_the_peer_finds_the_connection_at_its_end(peers: tuple[Watched, socket.socket]) -> None:
    ours, theirs = peers
    connection = BlockingConnection(Owner(), PoolSettings(Limits()), ours)
    connection.shut()
    assert ours.recv(1) == b""
    assert theirs.recv(1) == b""
    connection.abort(None)


def test_a_connection_is_not_closed_while_it_is_being_cut_off(peers: tuple[Watched, socket.socket]) -> None:
    """The number of its socket would be the next connection's, and that would be cut off in its place."""
    ours, theirs = peers
    connection = BlockingConnection(Owner(), PoolSettings(Limits()), ours)
    ours.connection = connection
    connection.shut()
    assert ours.closing is not None
    assert not ours.closed_while_in_use
    ours.closing.join()
    assert theirs.recv(1) == b""
    assert ours.fileno() < 0


def test_a_connection_that_is_closed_is_not_cut_off_any_more(peers: tuple[Watched, socket.socket]) -> None:
    ours, _ = peers
    connection = BlockingConnection(Owner(), PoolSettings(Limits()), ours)
    connection.abort(None)
    ours.connection = connection
    connection.shut()
    assert ours.closing is None, "its number is nobody's business"
