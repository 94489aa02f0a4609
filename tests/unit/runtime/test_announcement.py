"""A served port is registered once it accepts connections, and not before."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import cast

import pytest

from meshlib.runtime import announcement
from meshlib.runtime.announcement import Announcement
from meshlib.runtime.registration import Registration

DEADLINE = 30.0


class Registered:
    """Stands in for `Registration`."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.closed = False

    def start(self) -> None:
        self.started.set()

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def bound() -> Iterator[socket.socket]:
    """A port that is taken and refuses connections until somebody listens."""
    with socket.socket() as unopened:
        unopened.bind(("127.0.0.1", 0))
        yield unopened


def announced(registered: Registered, port: int, address: str = "") -> Announcement:
    return Announcement(cast("Registration", registered), address, port)


def ended() -> bool:
    return all(thread.name != "meshlib-announce" for thread in threading.enumerate())


def wait_until_ended() -> None:
    deadline = time.monotonic() + DEADLINE
    while not ended():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_only_a_port_that_accepts_is_registered(bound: socket.socket) -> None:
    registered = Registered()
    announcing = announced(registered, bound.getsockname()[1])
    assert not registered.started.wait(0.2)
    bound.listen()
    assert registered.started.wait(DEADLINE)
    announcing.close()
    assert registered.closed
    wait_until_ended()


def test_a_server_that_listens_on_one_other_address_is_found_there(bound: socket.socket) -> None:
    """Registered by its public address, or by none, it may listen on loopback only; or the other way round."""
    bound.listen()
    registered = Registered()
    announced(registered, bound.getsockname()[1], "127.0.0.2")
    assert registered.started.wait(DEADLINE)
    wait_until_ended()


def test_what_never_opened_is_never_registered(bound: socket.socket) -> None:
    registered = Registered()
    announcing = announced(registered, bound.getsockname()[1])
    announcing.close()
    wait_until_ended()
    assert not registered.started.is_set()
    assert registered.closed


def test_a_server_that_takes_too_long_is_registered_all_the_same(
    bound: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A port that only others can reach would otherwise never be."""
    monkeypatch.setattr(announcement, "PATIENCE", 0.1)
    registered = Registered()
    with caplog.at_level(logging.WARNING, "meshlib"):
        announced(registered, bound.getsockname()[1])
        assert registered.started.wait(DEADLINE)
    assert str(bound.getsockname()[1]) in caplog.text
    wait_until_ended()


def test_a_forked_child_does_not_watch(bound: socket.socket) -> None:
    registered = Registered()
    announcing = announced(registered, bound.getsockname()[1])
    stop = announcing._stop
    announcing.forget()
    assert announcing._stop.is_set()
    assert not stop.is_set()  # the parent's
    stop.set()
    wait_until_ended()
