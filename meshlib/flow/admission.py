"""Limits of what a process lets in at once: the last step before the application, and the first that is undone after it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol

from meshlib.model.inbound import Inspection, Refusal

OVERFLOW = Refusal(
    503,
    "overflow",
    b"upstream connect error or disconnect/reset before headers. reset reason: overflow",
    close=False,
    headers=((b"x-envoy-overloaded", b"true"),),
    flag="UO",
    denial=False,
)
"""As Envoy answers where its inbound cluster's circuit breaker is open."""

EXPIRED = Refusal(504, "deadline_exceeded", b"the deadline of the request has passed", close=False, flag="DT", denial=False)
"""The caller has given up before there was a place."""


class Place(Protocol):
    """What one request has of the limits, or waits for."""

    @property
    def admitted(self) -> bool:
        """False: it has to wait."""
        ...

    def wait(self, timeout: float | None) -> bool:
        """Block until admitted; False when `timeout` seconds passed first."""
        ...

    async def await_(self, timeout: float | None) -> bool:
        """`wait` without blocking the event loop."""
        ...


class Admission(Protocol):
    """The limits of one port."""

    def enter(self, *, multiplexed: bool = False) -> Place | None:
        """None: there is neither a place in the application nor one to wait for it.  `multiplexed`: a call of gRPC's, of which
        a connection carries any number: the limit of connections is none for it.
        """
        ...

    def leave(self, place: Place) -> None:
        """The request is over, or was given up while it waited."""
        ...


class Wait:
    """Wait until `place` is admitted, at most `timeout` seconds; send back a refusal if that was too long, else None."""

    __slots__ = ("inspection", "place", "timeout")

    def __init__(self, place: Place, timeout: float | None, inspection: Inspection) -> None:
        self.place = place
        self.timeout = timeout
        self.inspection = inspection


def waiting(place: Place, timeout: float | None, inspection: Inspection) -> Generator[Wait, Refusal | None, Refusal | None]:
    """Until the application has a place; what comes of it is a refusal or None."""
    return None if place.admitted else (yield Wait(place, timeout, inspection))
