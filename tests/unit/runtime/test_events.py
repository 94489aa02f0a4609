"""Events of a Mesh: told in a thread of their own, kept for who looks later."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from meshlib.runtime import delivery as delivery_module
from meshlib.runtime.delivery import BACKLOG, Delivery
from meshlib.runtime.events import KEPT, Events
from meshlib.telemetry.events import Event

OPENED = Event("circuit_breaker.opened", 1.0, "reviews")
CLOSED = Event("circuit_breaker.closed", 2.0, "reviews")


class Heard:
    """A listener that can be waited for."""

    def __init__(self, count: int = 1) -> None:
        self.events: list[Event] = []
        self.threads: set[str] = set()
        self._left = count
        self._done = threading.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.threads.add(threading.current_thread().name)
        self._left -= 1
        if not self._left:
            self._done.set()

    def wait(self) -> list[Event]:
        assert self._done.wait(60)
        return self.events


@pytest.fixture
def events() -> Iterator[Events]:
    events = Events()
    events.start()
    yield events
    events.close()


def test_a_listener_hears_of_events_in_order_while_the_lock_of_policies_is_held(events: Events) -> None:
    heard, lock = Heard(2), threading.Lock()
    events.listen(heard)
    with lock:
        events.take(OPENED)
        events.take(CLOSED)
        assert heard.wait() == [OPENED, CLOSED]
    assert heard.threads == {"meshlib-events"}


def test_who_has_stopped_listening_hears_no_more(events: Events) -> None:
    gone, other = Heard(), Heard(2)
    stop = events.listen(gone)
    events.listen(other)
    events.take(OPENED)
    gone.wait()
    stop()
    stop()
    events.take(CLOSED)
    assert other.wait() == [OPENED, CLOSED]
    assert gone.events == [OPENED]


def test_a_listener_that_fails_is_logged_and_the_others_hear(events: Events, caplog: pytest.LogCaptureFixture) -> None:
    def failing(event: Event) -> None:
        raise RuntimeError("mine")

    heard = Heard(2)
    events.listen(failing)
    events.listen(heard)
    events.take(OPENED)
    events.take(CLOSED)
    assert heard.wait() == [OPENED, CLOSED]
    assert "a listener failed at circuit_breaker.opened" in caplog.text


def test_the_log_has_a_line_for_each(events: Events, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "meshlib.events")
    for name in ("circuit_breaker.opened", "circuit_breaker.closed", "health_check.passed"):
        events.take(Event(name, 1.0, "reviews"))
    events.close()
    lines = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "meshlib.events"]
    assert lines == [
        ("WARNING", "circuit_breaker.opened reviews"),
        ("INFO", "circuit_breaker.closed reviews"),
        ("DEBUG", "health_check.passed reviews"),
    ]


def test_the_last_ones_are_kept_and_all_are_counted() -> None:
    events = Events()
    for number in range(KEPT + 10):
        events.take(Event("x", float(number)))
    assert [event.at for event in events.recent] == [float(number) for number in range(10, KEPT + 10)]
    assert events.counts == {"x": KEPT + 10}


def test_a_mesh_that_is_used_again_after_its_end_tells_again() -> None:
    events, heard = Events(), Heard(2)
    events.listen(heard)
    for event in (OPENED, CLOSED):
        events.start()
        events.take(event)
        events.close()
    assert heard.events == [OPENED, CLOSED]


def test_what_a_simulation_wants_to_know_it_knows_at_once() -> None:
    noted: list[Event] = []
    Events(noted.append).take(OPENED)
    assert noted == [OPENED]


def test_what_nobody_takes_off_is_dropped_and_counted() -> None:
    """A listener that hangs costs no more memory than that."""
    events = Events()
    for _ in range(BACKLOG + 3):
        events.take(OPENED)
    assert events.dropped == 3


def test_a_listener_that_hangs_does_not_keep_a_mesh_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what comes after that is told by another thread."""
    monkeypatch.setattr(delivery_module, "CLOSING", 0.05)
    events, stuck, free = Events(), threading.Event(), threading.Event()

    def hang(event: Event) -> None:
        stuck.set()
        free.wait(60)

    stop = events.listen(hang)
    events.start()
    events.take(OPENED)
    assert stuck.wait(60)
    events.close()
    stop()
    free.set()
    heard = Heard()
    events.listen(heard)
    events.start()
    events.take(CLOSED)
    assert heard.wait() == [CLOSED]
    events.close()


def test_a_listener_may_end_the_mesh() -> None:
    events, ended = Events(), threading.Event()

    def end(event: Event) -> None:
        events.close()
        ended.set()

    events.listen(end)
    events.start()
    events.take(OPENED)
    assert ended.wait(60)


def test_who_delivers_himself_gets_it_in_his_own_thread() -> None:
    got: list[int] = []
    delivery: Delivery[int] = Delivery("tests", got.append)
    delivery.put(1)
    delivery.put(2)
    delivery.deliver_all()
    assert got == [1, 2]


FORKED = """
import os, sys, threading
from meshlib.runtime.events import Events
from meshlib.telemetry.events import Event
events, heard = Events(), threading.Event()
events.listen(lambda event: heard.set())
events.start()
events.take(Event("parent", 1.0))
assert heard.wait(60)
heard.clear()
child = os.fork()
assert events.recent == (() if child == 0 else (Event("parent", 1.0),))
events.start()
events.take(Event("either", 2.0))
assert heard.wait(60)
events.close()
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_forked_child_has_its_own() -> None:
    """Listeners are told in the child, too, by a thread of the child's."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], check=True, timeout=120)
