"""Load shedding in the server's flow: after all that may refuse a request for what it is, right before the application."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from math import ceil

from meshlib.model.inbound import Inspection, Refusal
from meshlib.model.resilience import AdaptiveConcurrency, LoadShedding, ServerResilience
from meshlib.policy.load_shedding import Entered, LoadShedder
from meshlib.policy.priority import compile_urgency
from meshlib.policy.rng import Rng
from meshlib.telemetry.events import Emit, Event

DETAILS = "overload"
BODY = b"service overloaded"


class Stay:
    """A request in the application, as far as the limits are concerned: from its admission to the start of its response.

    No longer, because what follows is at the pace of whoever reads: a slow reader, a download or a web socket would hold a
    place for as long as they please, and their length says nothing about the load.
    """

    __slots__ = ("_entered", "_shedder", "_shedding")

    def __init__(self, shedding: Shedding, shedder: LoadShedder, entered: Entered) -> None:
        self._shedding = shedding
        self._shedder = shedder
        self._entered: Entered | None = entered

    def end(self, *, sampled: bool = True) -> None:
        """The response begins, or there will be none.  Idempotent.  Not `sampled`: how long it took says nothing."""
        entered, self._entered = self._entered, None
        if entered is not None:
            self._shedding.leave(self._shedder, entered, sampled=sampled)


class Shedding:
    """One port's limits at work.  The state outlives policies, so that what is under way is never forgotten."""

    def __init__(
        self, port: int, *, lock: AbstractContextManager[object], clock: Callable[[], float], rng: Rng, emit: Emit | None = None
    ) -> None:
        """`lock`: reentrant, since the garbage collection may find a request that was forgotten while it is held.

        `clock`: monotonic seconds.
        """
        self.shedder = LoadShedder()
        self._limits: tuple[LoadShedding, AdaptiveConcurrency | None] = (LoadShedding(), None)
        self.emit = emit
        self._port = port
        self._lock = lock
        self._clock = clock
        self._rng = rng
        self._urgency = compile_urgency(LoadShedding())
        self._refusal = Refusal(503, DETAILS, BODY, close=False)

    def apply(self, policy: ServerResilience) -> None:
        """From now on.  Raises ValueError for a regular expression that is none."""
        shedding = policy.load_shedding
        self._urgency = compile_urgency(shedding)
        self._refusal = Refusal(
            503,
            DETAILS,
            BODY,
            close=False,
            headers=((b"retry-after", b"%d" % max(ceil(shedding.retry_after), 1)), (b"x-envoy-overloaded", b"true")),
            flag="UO",
            policy=policy.name,
            denial=False,
        )
        with self._lock:
            self._limits = shedding, policy.adaptive_concurrency
            self.shedder.apply(*self._limits)

    def enter(self, inspection: Inspection) -> Stay | Refusal:
        """A place in the application, or the answer for want of one."""
        urgency, now, shedder = self._urgency(inspection), self._clock(), self.shedder
        with self._lock:
            calm = not shedder.shedding
            entered = shedder.enter(urgency, now)
            if entered is None:
                if calm:
                    self._tell("load_shedding.started", now, f"{shedder.active} requests at the same time")
                return self._refusal
            if not calm and shedder.recovered(now):
                self._tell("load_shedding.ended", now, f"{sum(shedder.shed)} requests shed since the start")
            return Stay(self, shedder, entered)

    def leave(self, shedder: LoadShedder, entered: Entered, *, sampled: bool) -> None:
        """As `Stay.end`, which sees to it that it happens once."""
        now = self._clock()
        with self._lock:
            shedder.leave(entered, now, self._rng, sampled=sampled)

    def recover(self) -> None:
        """Look whether an overload is over though no request comes, for those who want to know."""
        now = self._clock()
        with self._lock:
            if self.shedder.recovered(now):
                self._tell("load_shedding.ended", now, f"{sum(self.shedder.shed)} requests shed since the start")

    def forget(self, lock: AbstractContextManager[object]) -> None:
        """In a forked child: somebody may have held the lock, and what is under way is so in the parent."""
        self._lock = lock
        self.shedder = LoadShedder()
        self.shedder.apply(*self._limits)

    def _tell(self, name: str, now: float, reason: str) -> None:
        if self.emit is not None:
            self.emit(Event(name, now, endpoint=f":{self._port}", reason=reason))
