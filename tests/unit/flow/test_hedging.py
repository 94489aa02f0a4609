"""Hedged calls, driven by hand: what is under way is decided when the test says so."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from meshlib import errors
from meshlib.flow.client import client_flow
from meshlib.flow.commands import Abandon, Attempt, Command, Decided, Launch, Race, Result, Sleep
from meshlib.flow.destination import Destination
from meshlib.flow.record import CallRecord
from meshlib.flow.served import Served
from meshlib.flow.upstream import Upstream
from meshlib.model.call import Call, Overrides
from meshlib.model.cluster import CircuitBreakers, LbPolicy
from meshlib.model.outcome import Outcome, Reset
from meshlib.model.resilience import AdaptiveConcurrency, CircuitBreaker, Hedging, Resilience
from meshlib.model.route import RetryPolicy
from meshlib.model.snapshot import Target
from meshlib.policy.adaptive_concurrency import ConcurrencyGuard
from meshlib.policy.circuit_breaker import FailureRateBreaker
from meshlib.testing import DEFAULT_RETRY, service

START = 100.0
HEDGING = Hedging(delay=0.1, max_requests=2, budget_percent=100.0)


def hedged(
    policy: Hedging = HEDGING,
    *,
    endpoints: int = 3,
    retry: RetryPolicy | None = DEFAULT_RETRY,
    breaker: CircuitBreaker | None = None,
) -> Target:
    addresses = [f"10.0.0.{number}:80" for number in range(1, endpoints + 1)]
    target = service("reviews", addresses, retry=retry, lb_policy=LbPolicy.ROUND_ROBIN)
    ((name, config),) = target.clusters.items()
    assert config.cluster is not None
    cluster = replace(config.cluster, resilience=Resilience(hedging=policy, circuit_breaker=breaker))
    return replace(target, clusters={name: replace(config, cluster=cluster)})


class Bench:
    """A flow, and what it has under way."""

    def __init__(self, target: Target) -> None:
        (name,) = target.clusters
        rng = random.Random(1)
        self.upstream = Upstream(name)
        self.upstream.update(target.clusters[name], rng, START)
        self.rng = rng
        self.destination = Destination(target, {name: self.upstream})
        self.record = CallRecord(target.authority, START)
        self.launched: list[Attempt] = []
        self.abandoned: list[Attempt] = []
        self.served: Served | None = None
        self.done = False

    def begin(
        self, method: str = "GET", *, replayable: bool = True, inherited_attempt: int = 1, overrides: Overrides | None = None
    ) -> Command:
        """The first command that waits for something."""
        call = Call(
            method, self.record.authority, "/", (), started=START,
            replayable=replayable, inherited_attempt=inherited_attempt, overrides=overrides,
        )  # fmt: skip
        self.flow = client_flow(call, self.destination, self.record, self.rng)
        return self._on(next(self.flow), START)

    def at(self, now: float) -> Command | None:
        """Nothing was decided until now."""
        return self._send(now, now)

    def decided(self, attempt: Attempt, at: float, status: int = 200, reset: Reset | None = None) -> Command | None:
        """None: the call is over."""
        outcome = Outcome(at, status=0 if reset else status, reset=reset)
        return self._send(Decided(attempt, outcome), at)

    def _send(self, result: Result, now: float) -> Command | None:
        try:
            return self._on(self.flow.send(result), now)
        except StopIteration as stop:
            self.served, self.done = stop.value, True
            return None

    def _on(self, command: Command, now: float) -> Command:
        while isinstance(command, Launch | Abandon):
            (self.launched if isinstance(command, Launch) else self.abandoned).append(command.attempt)
            command = self.flow.send(now)
        return command

    @property
    def is_idle(self) -> bool:
        hosts = self.upstream.hosts.values()
        return not self.upstream.active and not self.upstream.active_retries and not any(host.active for host in hosts)

    def finish(self) -> None:
        """The response has been read."""
        assert self.served is not None
        if self.served.lease is not None:
            self.served.lease.release()


def test_a_quick_answer_needs_no_copy() -> None:
    bench = Bench(hedged())
    waiting = bench.begin()
    assert isinstance(waiting, Race)
    assert waiting.until == pytest.approx(START + 0.1)
    bench.decided(bench.launched[0], START + 0.05)
    assert bench.done
    assert len(bench.launched) == 1
    assert bench.record.attempts == 1
    assert not bench.is_idle, "the response holds its endpoint until it is read"
    bench.finish()
    assert bench.is_idle


def test_a_slow_answer_gets_a_copy_elsewhere_and_the_first_good_answer_wins() -> None:
    bench = Bench(hedged())
    bench.begin()
    waiting = bench.at(START + 0.1)
    assert isinstance(waiting, Race)
    assert waiting.until is None, "two at the same time is all that the policy allows"
    first, second = bench.launched
    assert first.host is not second.host
    bench.decided(second, START + 0.12)
    assert bench.abandoned == [first]
    assert bench.served is not None
    assert bench.record.endpoint == second.host.key
    bench.finish()
    assert bench.is_idle


def test_the_first_may_still_win() -> None:
    bench = Bench(hedged())
    bench.begin()
    bench.at(START + 0.1)
    first, second = bench.launched
    bench.decided(first, START + 0.12)
    assert bench.abandoned == [second]
    assert bench.record.endpoint == first.host.key
    bench.finish()
    assert bench.is_idle


def test_a_bad_answer_does_not_win_while_another_is_under_way() -> None:
    retry = replace(DEFAULT_RETRY, retry_on=frozenset({"5xx"}))
    bench = Bench(hedged(retry=retry))
    bench.begin()
    bench.at(START + 0.1)
    first, second = bench.launched
    assert isinstance(bench.decided(second, START + 0.12, status=503), Race)
    assert bench.abandoned == [second]
    bench.decided(first, START + 0.5)
    assert bench.served is not None
    assert bench.served.outcome.status == 200
    bench.finish()
    assert bench.is_idle


def test_a_failure_does_not_end_the_call_while_another_is_under_way_even_without_retries() -> None:
    bench = Bench(hedged(retry=None))
    bench.begin()
    bench.at(START + 0.1)
    first, second = bench.launched
    bench.decided(first, START + 0.12, reset=Reset.CONNECTION_TERMINATION)
    bench.decided(second, START + 0.2)
    assert bench.served is not None
    bench.finish()
    assert bench.is_idle


def test_when_all_have_failed_the_retry_policy_decides() -> None:
    retry = replace(DEFAULT_RETRY, attempts=2, retry_on=frozenset({"5xx"}))
    bench = Bench(hedged(retry=retry))
    bench.begin()
    bench.at(START + 0.1)
    first, second = bench.launched
    bench.decided(first, START + 0.12, status=503)
    pause = bench.decided(second, START + 0.13, status=503)
    assert isinstance(pause, Sleep)
    assert bench.upstream.active_retries == 1
    bench.at(START + 0.14)
    third = bench.launched[2]
    bench.decided(third, START + 0.2)
    assert bench.upstream.active_retries == 0
    assert bench.record.attempts == 3
    bench.finish()
    assert bench.is_idle


def test_copies_are_among_the_tries_that_the_policy_allows() -> None:
    retry = replace(DEFAULT_RETRY, attempts=1, retry_on=frozenset({"5xx"}))
    bench = Bench(hedged(retry=retry))
    bench.begin()
    bench.at(START + 0.1)
    for attempt in tuple(bench.launched):
        bench.decided(attempt, START + 0.2, status=503)
    assert bench.served is not None
    assert bench.served.outcome.status == 503
    assert bench.record.flags == ("URX",)
    bench.finish()
    assert bench.is_idle


def test_a_reset_at_the_end_is_the_callers_error() -> None:
    bench = Bench(hedged(retry=None))
    bench.begin()
    with pytest.raises(errors.ConnectionTerminated):
        bench.decided(bench.launched[0], START + 0.05, reset=Reset.CONNECTION_TERMINATION)
    assert bench.is_idle


@pytest.mark.parametrize(
    ("method", "replayable", "inherited"), [("POST", True, 1), ("GET", False, 1), ("GET", True, 2), ("PATCH", True, 1)]
)
def test_what_must_not_be_repeated_is_not_hedged(method: str, replayable: bool, inherited: int) -> None:
    bench = Bench(hedged())
    assert isinstance(bench.begin(method, replayable=replayable, inherited_attempt=inherited), Attempt)
    bench.flow.close()


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_idempotent_methods_are(method: str) -> None:
    bench = Bench(hedged())
    assert isinstance(bench.begin(method), Race)
    bench.flow.close()
    assert bench.is_idle


def test_without_another_endpoint_there_is_no_copy() -> None:
    bench = Bench(hedged(endpoints=1))
    bench.begin()
    waiting = bench.at(START + 0.1)
    assert isinstance(waiting, Race)
    assert waiting.until is None
    assert len(bench.launched) == 1
    bench.flow.close()
    assert bench.is_idle


def test_without_budget_there_is_no_copy() -> None:
    bench = Bench(hedged(replace(HEDGING, budget_percent=0.0)))
    hedger = bench.upstream.hedger
    assert hedger is not None
    while hedger.may_send():
        pass
    bench.begin()
    bench.at(START + 0.1)
    assert len(bench.launched) == 1
    bench.flow.close()
    assert bench.is_idle


def test_more_than_two_if_the_policy_says_so() -> None:
    bench = Bench(hedged(replace(HEDGING, max_requests=3)))
    hedger = bench.upstream.hedger
    assert hedger is not None
    hedger.begin()
    bench.begin()
    bench.at(START + 0.1)
    bench.at(START + 0.2)
    assert len({attempt.host.key for attempt in bench.launched}) == 3
    bench.decided(bench.launched[1], START + 0.25)
    assert bench.abandoned == [bench.launched[0], bench.launched[2]]
    bench.finish()
    assert bench.is_idle


def test_a_call_that_is_given_up_gives_all_slots_back() -> None:
    bench = Bench(hedged())
    bench.begin()
    bench.at(START + 0.1)
    assert not bench.is_idle
    bench.flow.close()
    assert bench.is_idle


def test_an_open_circuit_refuses_the_first_and_allows_no_copies() -> None:
    bench = Bench(hedged(breaker=CircuitBreaker(min_requests=1)))
    (guard,) = bench.upstream.guards
    assert not guard.admit(START, bench.rng)
    guard.settle(Outcome(START, status=503), START)
    with pytest.raises(errors.CallError):
        bench.begin()
    assert bench.is_idle


def test_copies_are_requests_to_the_cluster_and_keep_to_its_limit() -> None:
    target = hedged(Hedging(delay=0.1, max_requests=3, budget_percent=100.0))
    ((name, config),) = target.clusters.items()
    assert config.cluster is not None
    cluster = replace(config.cluster, circuit_breakers=CircuitBreakers(max_requests=2))
    bench = Bench(replace(target, clusters={name: replace(config, cluster=cluster)}))
    assert bench.upstream.hedger is not None
    bench.upstream.hedger.begin()  # somebody else has saved up for a second copy
    bench.begin()
    bench.at(START + 0.1)
    assert bench.upstream.active == 2
    waiting = bench.at(START + 0.2)
    assert isinstance(waiting, Race)
    assert waiting.until is None, "a third one would be beyond the limit"
    bench.decided(bench.launched[0], START + 0.3)
    assert bench.upstream.active == 1
    bench.finish()
    assert bench.is_idle


def test_what_a_copy_has_outrun_counts_among_the_times() -> None:
    """The slow ones would be missing otherwise, and the percentile would sink with each of them."""
    bench = Bench(hedged(Hedging(percentile=99.0, max_requests=2, budget_percent=100.0)))
    for _ in range(20):
        bench.begin()
        bench.decided(bench.launched[-1], START + 0.05)
        bench.finish()
    waiting = bench.begin()
    assert isinstance(waiting, Race)
    assert waiting.until == pytest.approx(START + 0.05, rel=0.1)
    bench.at(START + 0.06)
    bench.decided(bench.launched[-1], START + 0.5)
    bench.finish()
    waiting = bench.begin()
    assert isinstance(waiting, Race)
    assert waiting.until == pytest.approx(START + 0.5, rel=0.1)
    bench.flow.close()
    assert bench.is_idle


def test_a_copy_that_a_guard_refuses_costs_no_budget() -> None:
    bench = Bench(hedged(Hedging(delay=0.1, max_requests=2, budget_percent=100.0), breaker=CircuitBreaker()))
    bench.begin()
    (breaker,) = bench.upstream.guards
    assert isinstance(breaker, FailureRateBreaker)
    breaker.trip(START + 0.05)
    bench.at(START + 0.1)
    assert bench.upstream.hedger is not None
    assert bench.upstream.hedger.hedged == 0
    bench.decided(bench.launched[0], START + 0.2)
    bench.finish()
    assert bench.is_idle


def test_a_call_that_ends_while_a_retry_takes_over_settles_what_its_guards_have_admitted() -> None:
    """Cutting the answer before it off may fail, or be interrupted."""
    target = hedged(retry=replace(DEFAULT_RETRY, retry_on=frozenset({"5xx"})))
    ((name, config),) = target.clusters.items()
    assert config.cluster is not None
    resilience = Resilience(hedging=HEDGING, adaptive_concurrency=AdaptiveConcurrency())
    bench = Bench(replace(target, clusters={name: replace(config, cluster=replace(config.cluster, resilience=resilience))}))
    bench.begin()
    (guard,) = bench.upstream.guards
    assert isinstance(guard, ConcurrencyGuard)
    assert isinstance(bench.decided(bench.launched[0], START + 0.2, status=503), Sleep)
    assert isinstance(bench.flow.send(START + 0.3), Abandon)
    assert guard.controller.active == 1
    bench.flow.close()
    assert guard.controller.active == 0
    assert bench.is_idle


def test_a_call_that_ends_while_its_losers_are_cut_off_gives_all_slots_back() -> None:
    bench = Bench(hedged())
    bench.begin()
    bench.at(START + 0.1)
    command = bench.flow.send(Decided(bench.launched[0], Outcome(START + 0.2, status=200)))
    assert isinstance(command, Abandon)
    bench.flow.close()
    assert bench.is_idle


def test_a_strategy_of_the_caller_that_fails_gives_all_slots_back() -> None:
    def broken(state: object) -> float:
        raise ZeroDivisionError

    bench = Bench(hedged(retry=replace(DEFAULT_RETRY, retry_on=frozenset({"5xx"}))))
    bench.begin(overrides=Overrides(wait=broken))
    with pytest.raises(ZeroDivisionError):
        bench.decided(bench.launched[0], START + 0.2, status=503)
    assert bench.is_idle
