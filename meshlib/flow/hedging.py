"""The tries of a call that is hedged: another one starts when the first takes long, and the first good answer wins.

    launch → [ decided, or time for a copy? ] → good: the others are cut off
                                              → bad:  the others go on; only the last of them may be retried

Only what may be repeated is hedged: idempotent methods with a body that can be sent again, and no call that is made for a
request which is itself a retry.  A copy goes to an endpoint that has not got the request yet, and costs from the budget of
hedging.  It is one of the tries that the retry policy allows, and an answer which that policy would repeat does not win while
another try is under way (as with Envoy's ``hedge_on_per_try_timeout``).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple

from meshlib.flow.commands import Abandon, Attempt, Command, Decided, Launch, Race, Result, Sleep
from meshlib.flow.destination import Plan
from meshlib.flow.guarding import admit, settle
from meshlib.flow.record import CallRecord
from meshlib.flow.served import Served
from meshlib.flow.tries import Tries
from meshlib.flow.upstream import Upstream
from meshlib.model.call import Call
from meshlib.model.outcome import UNREACHED, Outcome
from meshlib.policy.balancing import Host
from meshlib.policy.guard import Guard
from meshlib.policy.retrying import IDEMPOTENT_METHODS, excludes
from meshlib.policy.rng import Rng

Steps = Generator[Command, Result, Served]

_REDRAWS = 4
"""Picks that may be spent on an endpoint that has not got the request yet."""


class _UnderWay(NamedTuple):
    """A launched attempt: when it began, and the guards that have admitted it."""

    began: float
    guards: tuple[Guard, ...]


def may_hedge(call: Call) -> bool:
    """Whether a second copy of this call does no harm."""
    return call.method in IDEMPOTENT_METHODS and call.replayable and call.inherited_attempt == 1


class HedgedTries(Tries):
    """As `Tries`, with several under way at the same time."""

    __slots__ = ("_copies", "_hedger", "_holds_retry", "_last", "_pending", "_slots", "_tried", "_wait")

    def __init__(
        self, call: Call, plan: Plan, upstream: Upstream, record: CallRecord, *, count: bool, hash_: int | None = None
    ) -> None:
        """For an upstream that has a hedger."""
        super().__init__(call, plan, upstream, record, count=count, hash_=hash_)
        assert upstream.hedger is not None
        self._hedger = hedger = upstream.hedger
        self._wait = hedger.begin()
        self._copies = hedger.policy.max_requests - 1
        self._pending: dict[Attempt, _UnderWay] = {}
        self._tried: list[Host] = []
        self._last: tuple[Host, Attempt, Outcome] | None = None
        self._holds_retry = False
        self._slots = 1  # of the cluster's requests: one for the call, and one more for each try beside another

    def run(self, rng: Rng) -> Steps:
        """However the tries end, what is still under way gives its slots back; the driver cuts it off."""
        upstream = self._upstream
        upstream.active += 1
        served: Served | None = None
        try:
            served = yield from self._run(rng)
            return served
        finally:
            for attempt in tuple(self._pending):
                self._give_up(attempt)
            self._release_retry()
            if served is None or served.lease is None:
                self._let_go()
                upstream.active -= self._slots

    def _run(self, rng: Rng) -> Steps:
        """`_last` is what was decided last; its endpoint's slot is held until it is decided what becomes of it."""
        now = self._call.started
        kept_away = yield from self._launch(rng, now)
        if kept_away is not None:
            return kept_away
        while True:
            found = yield Race(now + self._wait if self._wait is not None and self._copies > 0 else None)
            if not isinstance(found, Decided):
                assert isinstance(found, float)
                now = found
                yield from self._hedge(rng, now)
                continue
            now = found.outcome.at
            last = self._learn(found, rng)
            if self._is_good(found.outcome):
                for other in tuple(self._pending):
                    self._hedger.outrun(self._pending[other].began, now)
                    self._give_up(other)
                    yield Abandon(other)
                return self._end(*last)
            if self._pending:
                self._let_go()
                yield Abandon(found.attempt)
                continue
            retry = self._retry
            wanted = retry is not None and retry.wants(found.outcome, self._call.method)
            pause = self._pause(retry, found.outcome, rng) if retry is not None and wanted else None
            if pause is None:
                if wanted and self._call.serving is not None:
                    self._call.serving.retried = True
                return self._end(*last)
            self._upstream.counts.retry += 1
            if found.outcome.reset not in UNREACHED:
                self._upstream.active_retries += 1
                self._holds_retry = True
            if pause > 0.0:
                now = yield Sleep(pause)  # type: ignore[assignment]  # what comes back for a Sleep
            kept_away = yield from self._launch(rng, now)
            if kept_away is not None:
                return kept_away

    def _launch(self, rng: Rng, now: float) -> Generator[Command, Result, Served | None]:
        """Start a try on its own.  Not None: it is not to be made, and the call ends with that."""
        upstream = self._upstream
        host = self._pick_again(self._tried, rng, now) if self._tried else upstream.pick((), 0, rng, now, self._hash)
        if host is None:
            raise self._nobody()
        refused = admit(upstream.guards, now, rng) if upstream.guards else None
        before = self._last
        self._let_go()
        if refused is not None:
            return self._kept_away(refused, before, now)
        launch = self._started(host, now)  # before anything may go wrong: what a guard has admitted has to be settled
        if before is not None:
            yield Abandon(before[1])
        yield launch
        return None

    def _hedge(self, rng: Rng, now: float) -> Generator[Command, Result, None]:
        """It is time for a copy; there is none if nobody is left to send it to, or nothing is left to pay for it."""
        upstream, left = self._upstream, self._copies
        self._copies = 0
        if upstream.active >= upstream.cluster.circuit_breakers.max_requests:
            return
        host = upstream.pick(self._tried, _REDRAWS, rng, now, self._hash)
        if host is None or excludes(self._tried, host) or admit(upstream.guards, now, rng) is not None:
            return
        if not self._hedger.may_send():
            settle(upstream.guards, None, now)
            return
        self._copies = left - 1
        yield self._started(host, now)

    def _started(self, host: Host, now: float) -> Launch:
        attempt = self._attempt(host, now)
        host.active += 1
        host.total += 1
        self._record.tried(host)
        self._tried.append(host)
        self._pending[attempt] = _UnderWay(now, self._upstream.guards)
        self._count_slots()
        return Launch(attempt)

    def _learn(self, found: Decided, rng: Rng) -> tuple[Host, Attempt, Outcome]:
        upstream, outcome = self._upstream, found.outcome
        self._last = last = found.attempt.host, found.attempt, outcome
        self._record.answered_by(last[0])
        under_way = self._pending.pop(found.attempt)
        self._count_slots()
        settle(under_way.guards, outcome, under_way.began)
        self._hedger.learn(outcome, under_way.began)
        if outcome.reset is not None or upstream.attentive:
            upstream.learn(found.attempt.host, outcome, rng)
        self._release_retry()
        return last

    def _let_go(self) -> None:
        """What was decided last is not what the call comes to."""
        if self._last is not None:
            self._last[0].active -= 1
            self._last = None

    def _is_good(self, outcome: Outcome) -> bool:
        return outcome.reset is None and (self._retry is None or not self._retry.wants(outcome, self._call.method))

    def _give_up(self, attempt: Attempt) -> None:
        under_way = self._pending.pop(attempt)
        self._count_slots()
        attempt.host.active -= 1
        settle(under_way.guards, None, under_way.began)

    def _count_slots(self) -> None:
        """A copy is a request of its own to the cluster: it counts against ``max_requests``, as with Envoy."""
        slots = max(len(self._pending), 1)
        self._upstream.active += slots - self._slots
        self._slots = slots

    def _release_retry(self) -> None:
        if self._holds_retry:
            self._upstream.active_retries -= 1
            self._holds_retry = False
