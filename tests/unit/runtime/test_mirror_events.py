"""Copies that are dropped are told of."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from contextlib import nullcontext
from typing import Any, cast

from meshlib.flow.client import ClientFlow
from meshlib.flow.commands import Command, Copy, Result
from meshlib.flow.destination import Destination
from meshlib.flow.served import Served
from meshlib.model.call import Call
from meshlib.runtime.mirroring import MAX_IN_FLIGHT, Mirroring
from meshlib.runtime.surroundings import Network
from meshlib.telemetry.events import EVENTS, Event
from meshlib.testing import service


class _Never:
    """Begins copies that never end."""

    def start(self, send: Callable[[Copy, bytes], object], copy: Copy, body: bytes) -> None:
        pass

    def stop(self) -> None:
        pass


def copies(count: int) -> ClientFlow:
    """The flow of a call with so many mirrors."""

    def flow() -> Generator[Command, Result, Served | None]:
        destination = Destination(service("shadow", []), {})
        for _ in range(count):
            yield Copy(Call("GET", "shadow:80", "/", []), destination)
        return None

    return flow()


def run(flow: ClientFlow) -> None:
    for _ in flow:
        raise AssertionError("copies are nobody else's business")


def test_dropped_copies_are_counted_and_told_once_a_second() -> None:
    now = 100.0
    told: list[Event] = []
    mirroring = Mirroring(cast("Network", cast("Any", None)), nullcontext(), random.Random(1), lambda: now, _Never())
    mirroring.emit = told.append
    run(mirroring.following(copies(MAX_IN_FLIGHT), b""))
    assert (mirroring.dropped, told) == (0, [])
    run(mirroring.following(copies(3), b""))
    now += 1.5
    run(mirroring.following(copies(1), b""))
    assert mirroring.dropped == 4
    assert [(event.name, event.at) for event in told] == [("mirroring.dropped", 100.0), ("mirroring.dropped", 101.5)]
    assert told[0].name in EVENTS
    assert told[0].reason == f"a copy to shadow:80: {MAX_IN_FLIGHT} are under way"
