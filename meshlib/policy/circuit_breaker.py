"""A circuit breaker by failure rate: closed, open, half-open.  Pure: the time comes in with what happens.

Envoy's "circuit breakers" are limits; what the literature calls a circuit breaker (Nygard, *Release It!*) it has not.  This is
that: it counts attempts in a sliding window, opens when too large a share of enough of them failed, stays open for a time that
doubles each time it was in vain, and then lets a bounded number of probes decide.

Nothing is done in the background: an open breaker becomes half-open with the first attempt that asks after its time.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import ClassVar

from meshlib import errors
from meshlib.model.outcome import Outcome
from meshlib.model.resilience import CircuitBreaker
from meshlib.policy.failures import is_failure, says_something
from meshlib.policy.rng import Rng

_BUCKETS = 10
"""Parts of the window, each of which is forgotten as a whole."""

_ROUNDED_DOWN = 1.0 - 1e-12
"""Products and quotients of floats may disagree about whose moment a bucket's end is."""


class State(Enum):
    """pybreaker's words."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


_CLOSED, _HALF_OPEN = State.CLOSED, State.HALF_OPEN

Moved = Callable[[State, State, float], None]
"""From, to, when.  Called under the lock of the mesh's policy state: it only takes note."""


class Window:
    """Attempts and failures of the last seconds, in buckets."""

    __slots__ = ("_failed", "_span", "_started", "_total", "_until", "failures", "total")

    def __init__(self, seconds: float) -> None:
        self._span = seconds / _BUCKETS
        self.clear()

    def clear(self) -> None:
        self._total = [0] * _BUCKETS
        self._failed = [0] * _BUCKETS
        self._started = 0  # number of the newest bucket, counted from the clock's zero
        self._until = 0.0  # when it is no longer the newest, or a moment before
        self.total = 0
        self.failures = 0

    def add(self, now: float, *, failed: bool) -> None:
        if now >= self._until:
            self.forget(now)
        slot = self._started % _BUCKETS
        self._total[slot] += 1
        self.total += 1
        if failed:
            self._failed[slot] += 1
            self.failures += 1

    def forget(self, now: float) -> None:
        """What is older than the window."""
        number = int(now / self._span)
        passed = number - self._started
        if passed <= 0:
            return
        if passed >= _BUCKETS:
            self.clear()
        else:
            for step in range(1, passed + 1):
                slot = (self._started + step) % _BUCKETS
                self.total -= self._total[slot]
                self.failures -= self._failed[slot]
                self._total[slot] = self._failed[slot] = 0
        self._started = number
        self._until = (number + 1) * self._span * _ROUNDED_DOWN


class FailureRateBreaker:
    """A `Guard` of one cluster.

    ``rejected`` counts attempts that it kept away, ``opened`` how often it opened, ever; ``followers`` are told each change of
    ``state``.

    Every attempt belongs to the period that it began in: what was under way before an opening does not count among the probes
    after it.  `_since` is where the present period begins.
    """

    __slots__ = (
        "_duration",
        "_probing",
        "_since",
        "_succeeded",
        "_window",
        "followers",
        "opened",
        "policy",
        "rejected",
        "state",
    )

    error: ClassVar[type[errors.CallError]] = errors.CircuitOpen

    def __init__(self, policy: CircuitBreaker, *followers: Moved) -> None:
        self.policy = policy
        self.followers = list(followers)
        self.state = State.CLOSED
        self.opened = 0
        self.rejected = 0
        self._window = Window(policy.window)
        self._since = 0.0  # open: until when
        self._duration = policy.open_duration  # of the next opening
        self._probing = 0  # half-open: probes under way
        self._succeeded = 0

    @property
    def failure_percent(self) -> float:
        """Of the attempts in the window, as of the last one; 0 without any."""
        return 100.0 * self._window.failures / self._window.total if self._window.total else 0.0

    def admit(self, now: float, rng: Rng) -> str:
        """As `Guard.admit`."""
        if self.state is _CLOSED:
            return ""
        if now >= self._since:
            if self.state is State.OPEN:
                self._probe(self._since, now)
            elif self._probing and now - self._since >= self._duration:
                self._probe(now, now)  # those under way are taking as long as an opening does: others may tell more
            if self._probing + self._succeeded < self.policy.half_open_requests:
                self._probing += 1
                return ""
        self.rejected += 1
        if self.state is State.HALF_OPEN:
            return "the circuit breaker is half-open, and its probes are under way"
        return f"the circuit breaker is open for another {self.retry_after(now):.1f} s: too many requests have failed"

    def settle(self, outcome: Outcome | None, began: float) -> None:
        """As `Guard.settle`."""
        if began < self._since:
            return
        if self.state is _CLOSED:
            if outcome is not None and (outcome.reset is None or says_something(outcome)):
                self._count(outcome)
        elif self.state is _HALF_OPEN:
            self._settle_probe(outcome)

    def retry_after(self, now: float) -> float:
        """Seconds until an attempt may be let through; 0: any moment."""
        return max(self._since - now, 0.0) if self.state is State.OPEN else 0.0

    def trip(self, now: float) -> None:
        """Open now, whatever was counted."""
        self._open(now)

    def reset(self, now: float) -> None:
        """Close now, and forget what was counted."""
        self._close(now)

    def _count(self, outcome: Outcome) -> None:
        policy, window = self.policy, self._window
        failed = is_failure(outcome)
        window.add(outcome.at, failed=failed)
        if failed and window.total >= policy.min_requests and window.failures * 100.0 >= policy.failure_percent * window.total:
            self._open(outcome.at)

    def _settle_probe(self, outcome: Outcome | None) -> None:
        self._probing -= 1
        if outcome is None or not says_something(outcome):
            return
        if is_failure(outcome):
            self._open(outcome.at)
            return
        self._succeeded += 1
        if self._succeeded >= self.policy.half_open_requests:
            self._close(outcome.at)

    def _open(self, now: float) -> None:
        self.opened += 1
        self._since = now + self._duration
        self._duration = min(self._duration * 2.0, self.policy.max_open_duration)
        self._move(State.OPEN, now)

    def _probe(self, since: float, now: float) -> None:
        self._since = since
        self._probing = self._succeeded = 0
        self._move(State.HALF_OPEN, now)

    def _close(self, now: float) -> None:
        self._window.clear()
        self._since = min(self._since, now)
        self._duration = self.policy.open_duration
        self._move(State.CLOSED, now)

    def _move(self, state: State, now: float) -> None:
        before, self.state = self.state, state
        if before is not state:
            for follower in self.followers:
                follower(before, state, now)
