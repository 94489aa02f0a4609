"""Whatever happens to many calls at once, the books balance: slots, budgets and limits are what is under way, and nothing else.

Random histories of calls through a destination with everything configured: hedging, retries, time for one try, circuit breaker,
adaptive concurrency, outlier detection, mirrors, hashes, limits.  The books are kept a second time by the driver here, from
nothing but the commands that it is given.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from meshlib import errors
from meshlib.flow.client import ClientFlow, client_flow
from meshlib.flow.commands import Abandon, Attempt, Command, Copy, Decided, Launch, Race, Sleep
from meshlib.flow.destination import Destination
from meshlib.flow.record import CallRecord
from meshlib.flow.served import Lease
from meshlib.flow.upstream import Upstream
from meshlib.model.call import Call, Overrides
from meshlib.model.cluster import CircuitBreakers, Cluster, LbPolicy, OutlierDetection
from meshlib.model.outcome import Outcome, Reset
from meshlib.model.resilience import AdaptiveConcurrency, CircuitBreaker, Hedging, Resilience
from meshlib.model.route import Forward, HashPolicy, Mirror, PathMatch, RetryPolicy, Route, RouteMatch, WeightedCluster
from meshlib.model.snapshot import ClusterConfig, Target
from meshlib.policy.adaptive_concurrency import ConcurrencyGuard
from meshlib.policy.balancing import Host
from meshlib.policy.circuit_breaker import State
from meshlib.policy.guard import Guard
from meshlib.policy.hedging import Hedger
from meshlib.testing import service

MAIN, SHADOW = "outbound|80||reviews", "outbound|80||shadow"
MAX_REQUESTS = 12

RETRY = RetryPolicy(
    attempts=3,
    retry_on=frozenset({"5xx", "connect-failure", "reset", "retriable-status-codes"}),
    per_try_timeout=0.8,
    previous_hosts=True,
    host_selection_attempts=3,
)
BREAKERS = CircuitBreakers(max_requests=MAX_REQUESTS, retry_budget_percent=20.0, min_retry_concurrency=2)
DETECTION = OutlierDetection(consecutive_5xx=3, interval=1.0, base_ejection_time=1.0, max_ejection_percent=50)
HEDGING = Hedging(delay=0.05, max_requests=3, budget_percent=20.0)
RESILIENCE = Resilience(
    CircuitBreaker(min_requests=15, failure_percent=40.0, window=2.0, open_duration=0.5, max_open_duration=2.0),
    AdaptiveConcurrency(update_interval=0.2, min_rtt_interval=1.0, min_rtt_requests=10, max_limit=30),
    HEDGING,
)
METHODS = ("GET", "GET", "GET", "PUT", "POST")
RESETS = tuple(Reset)


def target(endpoints: int, **cluster: Any) -> Target:
    """`cluster`: in the place of fields of the called one."""
    action = Forward(
        (WeightedCluster(MAIN),),
        timeout=2.0,
        retry=RETRY,
        hash_policies=(HashPolicy("header", "x-user"),),
        mirrors=(Mirror(SHADOW, 0.3),),
    )
    route = Route("all", RouteMatch(PathMatch("prefix", "/")), action)
    addresses = [f"10.0.0.{number}:80" for number in range(1, endpoints + 1)]
    made = service("reviews", addresses, routes=[route], breakers=BREAKERS)
    config = made.clusters[MAIN]
    assert config.cluster is not None
    whole = replace(config.cluster, outlier_detection=DETECTION, resilience=RESILIENCE)
    shadow = ClusterConfig(SHADOW, Cluster(SHADOW, resilience=RESILIENCE, outlier_detection=DETECTION), config.endpoints[:2])
    return replace(made, clusters={MAIN: replace(config, cluster=replace(whole, **cluster)), SHADOW: shadow})


class Running:
    """One call, and what it has under way."""

    def __init__(self, flow: ClientFlow, record: CallRecord) -> None:
        self.flow = flow
        self.record = record
        self.command: Command | None = None
        self.attempts: list[Attempt] = []  # under way
        self.held: Host | None = None  # of the hedged attempt that was decided last, while it is not known what becomes of it
        self.hedges = False


class Town:
    """Many calls at once, a clock, and dice."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 100.0
        self.upstreams = {name: Upstream(name) for name in (MAIN, SHADOW)}
        self.calls: list[Running] = []
        self.leases: list[tuple[Lease, str, Host]] = []
        self.guards: set[Guard] = set()
        self.hedgers: set[Hedger] = set()
        self.endings: Counter[str] = Counter()
        self.begun = self.copies = 0
        self.publish(5)

    @property
    def main(self) -> Upstream:
        return self.upstreams[MAIN]

    def publish(self, endpoints: int, **cluster: Any) -> None:
        made = target(endpoints, **cluster)
        for name, upstream in self.upstreams.items():
            upstream.update(made.clusters[name], self.rng, self.now)
            self.guards.update(upstream.guards)
        if self.main.hedger is not None:
            self.hedgers.add(self.main.hedger)
        self.destination = Destination(made, self.upstreams)

    # --- what can happen

    def begin(self, call: Call | None = None, destination: Destination | None = None) -> None:
        rng = self.rng
        if call is None:
            overrides = Overrides(retries=rng.randrange(4)) if rng.random() < 0.2 else None
            call = Call(
                rng.choice(METHODS), "reviews:80", "/", [(b"x-user", b"%d" % rng.randrange(9))],
                started=self.now, replayable=rng.random() < 0.9, deadline=self.now + 1.5 if rng.random() < 0.3 else None,
                inherited_attempt=rng.choice((1, 1, 1, 2)), overrides=overrides,
            )  # fmt: skip
            self.begun += 1
        record = CallRecord(call.authority, self.now)
        running = Running(client_flow(call, destination or self.destination, record, rng), record)
        self.calls.append(running)
        self._step(running, lambda: next(running.flow))

    def advance(self, running: Running) -> None:
        """What the call waits for happens."""
        command = running.command
        if isinstance(command, Sleep):
            self.now += command.seconds
            self._step(running, lambda: running.flow.send(self.now))
        elif isinstance(command, Attempt):
            running.attempts.remove(command)
            self._step(running, lambda: running.flow.send(self.outcome(command)))
        elif isinstance(command, Race):
            if command.until is not None and self.rng.random() < 0.4:
                self.now = max(self.now, command.until)
                self._step(running, lambda: running.flow.send(self.now))
                return
            attempt = self.rng.choice(running.attempts)
            running.attempts.remove(attempt)
            running.held = attempt.host
            self._step(running, lambda: running.flow.send(Decided(attempt, self.outcome(attempt))))

    def outcome(self, attempt: Attempt) -> Outcome:
        rng = self.rng
        bad = 0.7 if attempt.host.key.startswith("10.0.0.1:") else 0.12
        if rng.random() >= bad:
            return Outcome(self.now, status=rng.choice((200, 200, 404)), complete=rng.random() < 0.5)
        if rng.random() < 0.5:
            return Outcome(self.now, status=rng.choice((500, 503)), complete=rng.random() < 0.5)
        return Outcome(self.now, reset=rng.choice(RESETS), sent=rng.random() < 0.7)

    def give_up(self, running: Running) -> None:
        """The caller is cancelled, or what performs the command fails: the driver closes the flow."""
        self.endings["given up"] += 1
        running.flow.close()
        self._end(running)

    def release(self) -> None:
        if self.leases:
            self.leases.pop(self.rng.randrange(len(self.leases)))[0].release()

    def reconfigure(self) -> None:
        rng = self.rng
        changes: list[dict[str, Any]] = [
            {},
            {"outlier_detection": None},
            {"resilience": None},
            {"resilience": replace(RESILIENCE, circuit_breaker=None)},
            {"lb_policy": rng.choice((LbPolicy.RING_HASH, LbPolicy.ROUND_ROBIN))},
        ]
        self.publish(rng.randint(2, 7), **rng.choice(changes))

    # --- what follows from it

    def _step(self, running: Running, take: Callable[[], Command]) -> None:
        retries, budget = self.main.active_retries, self._budget()
        try:
            command = take()
            while isinstance(command, Launch | Abandon | Copy):
                self._note(running, command)
                if self.rng.random() < 0.02:  # it could not be performed
                    self.give_up(running)
                    return
                command = running.flow.send(self.now)
            running.command = command
            if isinstance(command, Attempt):
                running.attempts.append(command)
            if isinstance(command, Race):
                running.held = None
        except StopIteration as stop:
            self._end(running)
            self.endings["served"] += 1
            served = stop.value
            if served is not None and served.lease is not None:
                name = SHADOW if running.record.cluster == SHADOW else MAIN
                self.leases.append((served.lease, name, served.lease._host))
        except errors.CallError as error:
            self._end(running)
            self.endings[type(error).__name__] += 1
        assert self.main.active_retries <= max(retries, budget), "retries beyond the budget"

    def _note(self, running: Running, command: Launch | Abandon | Copy) -> None:
        if isinstance(command, Launch):
            running.hedges = True
            running.held = None
            self.copies += bool(running.attempts)
            running.attempts.append(command.attempt)
        elif isinstance(command, Abandon):
            if command.attempt in running.attempts:
                running.attempts.remove(command.attempt)
        else:
            self.begin(command.call, command.destination)

    def _end(self, running: Running) -> None:
        running.attempts.clear()
        running.held = running.command = None
        self.calls.remove(running)

    def _budget(self) -> int:
        return max(int(BREAKERS.retry_budget_percent / 100.0 * self.main.active), BREAKERS.min_retry_concurrency)

    # --- the books

    def check(self) -> None:
        for name, upstream in self.upstreams.items():
            at_work = [each for each in self.calls if each.record.cluster == name]
            leased = [host for _, cluster, host in self.leases if cluster == name]
            copies = sum(max(len(each.attempts) - 1, 0) for each in at_work)
            assert upstream.active == len(at_work) + copies + len(leased)
            hosts = Counter(leased)
            for each in at_work:
                hosts.update(attempt.host for attempt in each.attempts)
                if each.held is not None and isinstance(each.command, Sleep):
                    hosts[each.held] += 1
            for host in {*upstream.hosts.values(), *hosts}:
                assert host.active == hosts[host], (name, host)
            assert upstream.active_retries >= 0
            if upstream.detector is not None:
                assert upstream.detector.ejections_active == sum(host.ejected for host in upstream.hosts.values())
            else:
                assert not any(host.ejected for host in upstream.hosts.values())
        assert self.main.active <= MAX_REQUESTS
        assert self.copies <= len(self.hedgers) + self.begun * HEDGING.budget_percent / 100.0
        assert self.copies == sum(hedger.hedged for hedger in self.hedgers)
        assert sum(len(each.attempts) for each in self.calls if each.record.cluster == MAIN) <= MAX_REQUESTS

    def finish(self) -> None:
        """All calls end, one way or the other, and all bodies are read."""
        while self.calls:
            running = self.rng.choice(self.calls)
            self.give_up(running) if self.rng.random() < 0.3 else self.advance(running)
        while self.leases:
            self.release()

    def assert_idle(self) -> None:
        for upstream in self.upstreams.values():
            assert (upstream.active, upstream.active_retries) == (0, 0)
            assert not any(host.active for host in upstream.hosts.values())
        for guard in self.guards:
            if isinstance(guard, ConcurrencyGuard):
                assert guard.controller.active == 0
            elif guard.state is State.HALF_OPEN:  # type: ignore[attr-defined]  # the other kind
                assert not guard.admit(self.now + 1e6, self.rng), "no probe is under way"


def live(seed: int, steps: int, *, reconfigures: bool) -> Town:
    town = Town(seed)
    rng = town.rng
    for _ in range(steps):
        town.now += rng.expovariate(30.0)
        lot = rng.random()
        if lot < 0.3 or not town.calls:
            town.begin()
        elif lot < 0.85:
            town.advance(rng.choice(town.calls))
        elif lot < 0.9:
            town.give_up(rng.choice(town.calls))
        elif lot < 0.99 or not reconfigures:
            town.release()
        else:
            town.reconfigure()
        town.check()
    return town


@pytest.mark.parametrize("seed", range(12))
def test_the_books_balance_after_each_step_and_at_the_end(seed: int) -> None:
    town = live(seed, 2000, reconfigures=True)
    town.finish()
    town.check()
    town.assert_idle()


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 200))
def test_the_books_balance_in_many_more_histories(seed: int) -> None:
    town = live(seed, 3000, reconfigures=seed % 2 == 0)
    town.finish()
    town.check()
    town.assert_idle()


def test_histories_are_of_every_kind() -> None:
    """Control: calls are hedged, refused by each guard and limit, given up and failed."""
    endings: Counter[str] = Counter()
    copies = 0
    for seed in range(8):
        town = live(seed, 1500, reconfigures=False)
        endings += town.endings
        copies += town.copies
    assert copies > 25
    assert endings.keys() >= {"served", "given up", "CircuitOpen", "ConcurrencyLimited", "Overflow", "TimeoutExceeded"}
