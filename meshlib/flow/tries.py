"""The tries of one call on its cluster: endpoint, attempt, is it worth another one, budget, backoff.  See `flow.client`."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from meshlib import errors
from meshlib.flow.commands import ATTEMPT_COUNT, EXPECTED_TIMEOUT, Attempt, Command, Result, Sleep
from meshlib.flow.destination import Plan
from meshlib.flow.failing import fail, reset_error, unusable
from meshlib.flow.guarding import admit, in_vain, settle
from meshlib.flow.record import CallRecord
from meshlib.flow.served import Lease, Served
from meshlib.flow.upstream import Upstream
from meshlib.model.call import Call, Overrides
from meshlib.model.outcome import UNREACHED, Outcome
from meshlib.model.route import RetryPolicy
from meshlib.policy.balancing import Host
from meshlib.policy.guard import Guard
from meshlib.policy.retrying import Retry, backoff, is_retried, strategy_wait
from meshlib.policy.rng import Rng

_ATTEMPT_HEADERS = tuple(((ATTEMPT_COUNT, str(number).encode()),) for number in range(32))


class Tries:
    """The retry loop of one call."""

    __slots__ = ("_call", "_count", "_deadline", "_deadline_name", "_hash", "_per_try", "_record", "_retry", "_upstream")

    def __init__(
        self, call: Call, plan: Plan, upstream: Upstream, record: CallRecord, *, count: bool, hash_: int | None = None
    ) -> None:
        """`count`: the endpoints are told which try each one is; `hash_`: what the call is placed by."""
        self._hash = hash_
        self._call = call
        self._count = count
        self._upstream = upstream
        self._record = record
        overrides = call.overrides
        if overrides is None:
            self._retry, self._per_try = plan.retry, plan.per_try
        else:
            self._retry, self._per_try = overridden(plan.retry, overrides)
        self._deadline = call.deadline
        self._deadline_name: errors.TimeoutName = call.deadline_name
        if plan.timeout:
            at = call.started + plan.timeout
            if self._deadline is None or at < self._deadline:
                self._deadline, self._deadline_name = at, "route"

    def run(self, rng: Rng) -> Generator[Command, Result, Served]:
        call, upstream, record, retry = self._call, self._upstream, self._record, self._retry
        now = call.started
        tried: list[Host] = []
        last: tuple[Host, Attempt, Outcome] | None = None
        holds_retry = False
        lease: Lease | None = None
        upstream.active += 1
        try:
            while True:
                host = self._pick_again(tried, rng, now) if tried else upstream.pick((), 0, rng, now, self._hash)
                if host is None:
                    raise self._nobody()
                guards, began = upstream.guards, now
                if guards and (refused := admit(guards, now, rng)) is not None:
                    served = self._kept_away(refused, last, now)
                    lease = served.lease
                    return served
                attempt = self._attempt(host, now)
                host.active += 1
                host.total += 1
                record.tried(host)
                try:
                    outcome: Outcome = yield attempt  # type: ignore[assignment]  # what comes back for an Attempt
                    if guards:
                        settle(guards, outcome, began)
                        guards = ()
                    if outcome.reset is not None or upstream.attentive:
                        upstream.learn(host, outcome, rng)
                    if holds_retry:
                        upstream.active_retries -= 1
                        holds_retry = False
                    # Nearly all calls end here: whether the policy wants another try is asked before anything else is.
                    pause = None
                    if retry is not None and retry.wants(outcome, call.method, unsent_only=call.inherited_attempt > 1):
                        pause = self._pause(retry, outcome, rng)
                    if pause is None:
                        served = self._end(host, attempt, outcome)
                        lease = served.lease
                        return served
                finally:
                    if guards:  # the call was given up
                        settle(guards, None, began)
                    if lease is None:
                        host.active -= 1
                tried.append(host)
                last = host, attempt, outcome
                upstream.counts.retry += 1
                if outcome.reset not in UNREACHED:
                    upstream.active_retries += 1
                    holds_retry = True
                now = outcome.at
                if pause > 0.0:
                    now = yield Sleep(pause)  # type: ignore[assignment]  # what comes back for a Sleep
        finally:
            if holds_retry:
                upstream.active_retries -= 1
            if lease is None:  # complete, failed, or closed by the driver: the caller gave up
                upstream.active -= 1

    def _end(self, host: Host, attempt: Attempt, outcome: Outcome) -> Served:
        """The call ends with this outcome; raises the error that stands for a reset."""
        if outcome.reset is not None:
            raise reset_error(outcome, self._record, self._call)
        self._record.status = outcome.status
        if outcome.status >= 500 and self._call.serving is not None and is_retried(outcome.headers):
            self._call.serving.retried = True
        if outcome.complete:
            return Served(outcome, None)
        limit = (self._deadline, self._deadline_name) if attempt.deadline_name == "per_try" else None
        return Served(outcome, Lease(self._upstream, host), limit=limit)

    def _kept_away(self, refused: tuple[Guard, str], last: tuple[Host, Attempt, Outcome] | None, now: float) -> Served:
        """A guard lets no attempt through: what the last one came to stands; without one there is nothing but the refusal."""
        guard, reason = refused
        if last is None:
            more = {"retry_after": after} if (after := guard.retry_after(now)) else {}
            raise fail(guard.error, f"nothing was sent to {self._upstream.name}: {reason}", self._record, **more)
        self._record.flag(guard.error.flag)
        served = self._end(*last)
        if served.lease is not None:
            last[0].active += 1
        return served

    def _pick_again(self, tried: list[Host], rng: Rng, now: float) -> Host | None:
        assert self._retry is not None
        return self._upstream.pick_again(tried, self._retry.policy, rng, now, self._hash)

    def _nobody(self) -> errors.CallError:
        return fail(errors.NoHealthyUpstream, unusable(self._upstream), self._record)

    def _attempt(self, host: Host, now: float) -> Attempt:
        number = self._record.attempts + 1
        headers = _ATTEMPT_HEADERS[number if number < 32 else -1] if self._count else ()
        limit: float | None = self._deadline
        name: errors.TimeoutName = self._deadline_name
        if self._per_try and (limit is None or now + self._per_try < limit):
            limit, name = now + self._per_try, "per_try"
        if limit is not None:
            headers = (*headers, (EXPECTED_TIMEOUT, b"%d" % max(int((limit - now) * 1000), 1)))
        return Attempt(host, self._upstream.cluster, number, limit, name, headers)

    def _pause(self, retry: Retry, outcome: Outcome, rng: Rng) -> float | None:
        """Seconds until the next try, which the policy wants; None when this outcome is the last all the same.

        Then whoever waits for what this process is serving is told that all has been tried.
        """
        pause = self._allowed_pause(retry, outcome, rng)
        if pause is None and self._call.serving is not None:
            self._call.serving.retried = True
        return pause

    def _allowed_pause(self, retry: Retry, outcome: Outcome, rng: Rng) -> float | None:
        call, record, upstream = self._call, self._record, self._upstream
        if not call.replayable and outcome.sent:
            return None
        if outcome.reset is not None:
            record.flag(outcome.reset.flag)
        upstream.floor.failed += 1
        strategies = call.overrides if call.overrides is not None and call.overrides.has_strategies else None
        if strategies is None and record.attempts > retry.policy.attempts:
            record.flag("URX")
            return None
        if outcome.reset not in UNREACHED and not upstream.may_retry(outcome.at):
            upstream.counts.no_retry(upstream, outcome.at)
            record.flag("UO")
            return None
        if strategies is None:
            down = outcome.reset in UNREACHED and upstream.reachability.is_known_down(len(upstream.hosts), record.attempts)
            # Nobody is spared load by a wait, and the caller waits for an error that is certain: it is to have it at once.
            pause = 0.0 if down else backoff(retry.policy, record.attempts, rng)
        else:
            wait = strategy_wait(strategies, outcome, record.attempts, call.started)
            if wait is None:
                record.flag("URX")
                return None
            pause = wait
        at = outcome.at + pause
        if self._deadline is not None and at >= self._deadline:
            return None
        if upstream.guards and in_vain(upstream.guards, at):
            record.flag("UO")
            return None
        return pause


def overridden(retry: Retry | None, overrides: Overrides) -> tuple[Retry | None, float]:
    """The policy and the seconds of each try, with what this call says in their place."""
    own = overridden_retry(retry, overrides)
    if overrides.per_try_timeout is not None:
        return own, overrides.per_try_timeout
    return own, own.policy.per_try_timeout if own is not None else 0.0


def overridden_retry(retry: Retry | None, overrides: Overrides) -> Retry | None:
    """The route's policy with what this call says in its place."""
    if overrides.retries is None and overrides.retry_on is None and not overrides.has_strategies:
        return retry
    base = retry.policy if retry is not None else RetryPolicy(attempts=0)
    attempts = base.attempts if overrides.retries is None else overrides.retries
    if attempts == 0 and not overrides.has_strategies:
        return None
    return Retry(replace(base, attempts=attempts, retry_on=base.retry_on if overrides.retry_on is None else overrides.retry_on))
