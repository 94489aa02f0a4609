"""What a flow asks its driver to do.  Few and closed; plain slotted classes, since one is made for every attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from meshlib.errors import TimeoutName
from meshlib.model.cluster import Cluster
from meshlib.model.outcome import Outcome
from meshlib.policy.balancing import Host

if TYPE_CHECKING:
    from meshlib.flow.destination import Destination
    from meshlib.model.call import Call

ATTEMPT_COUNT = b"x-envoy-attempt-count"
EXPECTED_TIMEOUT = b"x-envoy-expected-rq-timeout-ms"
"""What is left for this try, in milliseconds: the callee's own calls are bounded by it (Envoy sets the same header)."""


class Attempt:
    """Send the request to `host` and come back with an `Outcome` once response headers are there or it failed.

    ``deadline`` is absolute on the flow's clock; ``deadline_name`` (errors.TimeoutName) says whose it is.
    ``headers`` are set on this attempt, replacing any of the same name.
    """

    __slots__ = ("cluster", "deadline", "deadline_name", "headers", "host", "number")

    def __init__(
        self,
        host: Host,
        cluster: Cluster,
        number: int,
        deadline: float | None,
        deadline_name: TimeoutName,
        headers: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        self.host = host
        self.cluster = cluster
        self.number = number  # 1 is the first try
        self.deadline = deadline
        self.deadline_name: TimeoutName = deadline_name
        self.headers = headers


class Sleep:
    """Wait `seconds`, then come back with the clock's new time."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Copy:
    """Send `call` to the one cluster of `destination`, too, whatever comes of it; what is sent back means nothing.

    Only flows of destinations that are `mirrored` have copies, and `runtime.mirroring` takes them out before any driver.
    """

    __slots__ = ("call", "destination")

    def __init__(self, call: Call, destination: Destination) -> None:
        self.call = call
        self.destination = destination


class Launch:
    """Start `attempt` and come back at once, with the time.  What it comes to is learned by a `Race`."""

    __slots__ = ("attempt",)

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt


class Race:
    """Wait until one of the launched attempts is decided, or until `until` on the flow's clock (None: however long it takes).

    Comes back with a `Decided`, or with the time if nothing was.
    """

    __slots__ = ("until",)

    def __init__(self, until: float | None) -> None:
        self.until = until


class Abandon:
    """Nobody wants what `attempt` comes to, or has come to: cut it off.  Comes back with the time."""

    __slots__ = ("attempt",)

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt


class Decided(NamedTuple):
    """A launched attempt and what it came to."""

    attempt: Attempt
    outcome: Outcome


Command = Attempt | Sleep | Copy | Launch | Race | Abandon
Result = Outcome | Decided | float
"""What comes back: an Outcome for an Attempt, a Decided or the time for a Race, the time for everything else."""
