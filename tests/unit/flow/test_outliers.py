"""What callers see of endpoints that fail: whole calls through the client's flow, on a clock that is moved by hand."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from meshlib import errors
from meshlib.flow.client import client_flow
from meshlib.flow.commands import Attempt, Sleep
from meshlib.flow.destination import Destination
from meshlib.flow.record import CallRecord
from meshlib.flow.served import Served
from meshlib.flow.upstream import Upstream
from meshlib.model.call import Call
from meshlib.model.cluster import LbPolicy, OutlierDetection
from meshlib.model.outcome import Outcome, Reset
from meshlib.model.route import RetryPolicy
from meshlib.telemetry.events import Event
from meshlib.testing import service

ENDPOINTS = tuple(f"10.0.0.{number}:80" for number in range(1, 6))
BAD = ENDPOINTS[0]
RATE = 50  # calls a second
CONNECT_TIMEOUT = 1.0

ONE_RETRY = RetryPolicy(
    attempts=1, retry_on=frozenset({"connect-failure", "5xx", "reset"}), previous_hosts=True, host_selection_attempts=5
)
DETECTION = OutlierDetection(max_ejection_percent=20)  # one of five

Fault = Callable[[str, float], Outcome | None]
"""Endpoint and time -> what becomes of an attempt; None: all is well."""


class Simulation:
    """A steady stream of calls to a service of five endpoints, one after the other."""

    def __init__(
        self,
        fault: Fault,
        detection: OutlierDetection | None = DETECTION,
        *,
        retry: RetryPolicy | None = None,
        lb: LbPolicy = LbPolicy.LEAST_REQUEST,
    ) -> None:
        target = service("reviews", ENDPOINTS, retry=retry, lb_policy=lb)
        ((name, config),) = target.clusters.items()
        assert config.cluster is not None
        self.rng = random.Random(7)
        self.fault = fault
        self.now = self.began = 1000.0
        self.upstream = Upstream(name)
        self.upstream.update(replace(config, cluster=replace(config.cluster, outlier_detection=detection)), self.rng, self.now)
        self.destination = Destination(target, {name: self.upstream})
        self.events: list[Event] = []
        self.upstream.emit = self.events.append
        self.attempts: Counter[str] = Counter()
        self.failures: list[float] = []
        self.calls = 0
        self.most_ejected = 0

    def run(self, seconds: float) -> Simulation:
        until = self.now + seconds
        while self.now < until:
            self.now += 1 / RATE
            self.calls += 1
            if not self._call():
                self.failures.append(self.now - self.began)
            self.most_ejected = max(self.most_ejected, sum(host.ejected for host in self.upstream.hosts.values()))
        return self

    def error_rate(self, *, after: float, until: float = float("inf")) -> float:
        """Of the calls in a span of time since the beginning."""
        span = min(until, self.now - self.began) - after
        return sum(after <= at < until for at in self.failures) / (span * RATE)

    def _call(self) -> bool:
        now = self.now
        call = Call("GET", "reviews:80", "/", (), started=now)
        flow = client_flow(call, self.destination, CallRecord("reviews:80", now), self.rng)
        try:
            command = next(flow)
            while True:
                if isinstance(command, Sleep):
                    now += command.seconds
                    command = flow.send(now)
                else:
                    assert isinstance(command, Attempt)
                    outcome = self._answer(command.host.key, now)
                    now = outcome.at
                    command = flow.send(outcome)
        except StopIteration as stop:
            served: Served = stop.value
            if served.lease is not None:
                served.lease.release()
            return served.outcome.status < 500
        except errors.CallError:
            return False

    def _answer(self, endpoint: str, now: float) -> Outcome:
        self.attempts[endpoint] += 1
        return self.fault(endpoint, now) or Outcome(now + 0.002, status=200)


def unavailable(endpoint: str, now: float) -> Outcome | None:
    return Outcome(now + 0.001, status=503) if endpoint == BAD else None


def black_hole(endpoint: str, now: float) -> Outcome | None:
    if endpoint != BAD:
        return None
    return Outcome(now + CONNECT_TIMEOUT, reset=Reset.CONNECT_TIMEOUT, sent=False)


def flapping(endpoint: str, now: float) -> Outcome | None:
    return Outcome(now + 0.001, status=503) if endpoint == BAD and int(now / 3) % 2 else None


@pytest.mark.parametrize("lb", [LbPolicy.LEAST_REQUEST, LbPolicy.ROUND_ROBIN, LbPolicy.RANDOM])
def test_one_of_five_that_always_fails_costs_five_errors_and_next_to_no_traffic(lb: LbPolicy) -> None:
    simulation = Simulation(unavailable, lb=lb).run(25)
    assert len(simulation.failures) == 5
    assert simulation.attempts[BAD] == 5
    assert max(simulation.failures) < 1.0
    simulation.run(275)
    assert simulation.attempts[BAD] / simulation.calls <= 0.01


def test_without_detection_it_would_have_its_share() -> None:
    simulation = Simulation(unavailable, None, lb=LbPolicy.ROUND_ROBIN).run(25)
    assert simulation.error_rate(after=1.0) == pytest.approx(0.2, abs=0.01)


def test_with_a_retry_nobody_sees_it() -> None:
    simulation = Simulation(unavailable, retry=ONE_RETRY).run(300)
    assert simulation.error_rate(after=1.0) <= 0.001
    assert simulation.attempts[BAD] / simulation.calls <= 0.01


def test_ten_percent_of_five_is_nobody_as_in_envoy() -> None:
    simulation = Simulation(unavailable, OutlierDetection(), lb=LbPolicy.ROUND_ROBIN).run(10)
    assert simulation.error_rate(after=1.0) == pytest.approx(0.2, abs=0.01)
    detector = simulation.upstream.detector
    assert detector is not None
    assert (detector.ejections_enforced_total, detector.ejections_active) == (0, 0)
    assert detector.ejections_overflow >= 15


def test_an_endpoint_that_swallows_connections_is_ejected_and_costs_retries_only() -> None:
    simulation = Simulation(black_hole, replace(DETECTION, consecutive_5xx=2), retry=ONE_RETRY).run(60)
    assert simulation.failures == []
    assert simulation.attempts[BAD] <= 5
    assert [event.name for event in simulation.events][:1] == ["outlier_detection.ejected"]


def test_an_endpoint_that_comes_and_goes_is_left_out_for_longer_each_time() -> None:
    simulation = Simulation(flapping, replace(DETECTION, base_ejection_time=10.0), retry=ONE_RETRY).run(300)
    assert simulation.error_rate(after=0.0, until=30.0) <= 0.01
    assert simulation.error_rate(after=30.0) <= 0.001
    ejections = [event.at for event in simulation.events if event.name == "outlier_detection.ejected"]
    gaps = [after - before for before, after in pairwise(ejections)]
    assert len(ejections) < 12  # of fifty times that it went down
    assert gaps[-1] > 2 * gaps[0]


def test_when_all_fail_half_of_the_time_at_most_one_is_left_out() -> None:
    dice = random.Random(3)

    def coin(endpoint: str, now: float) -> Outcome | None:
        return Outcome(now + 0.001, status=503) if dice.random() < 0.5 else None

    simulation = Simulation(coin).run(60)
    assert simulation.most_ejected == 1
    assert simulation.error_rate(after=0.0) == pytest.approx(0.5, abs=0.03)


def test_when_all_may_be_ejected_and_fail_calls_fail_at_once_and_come_back() -> None:
    def dark(endpoint: str, now: float) -> Outcome | None:
        return Outcome(now + 0.001, status=503) if now < 1010 else None

    simulation = Simulation(dark, replace(DETECTION, max_ejection_percent=100, base_ejection_time=5.0, interval=1.0)).run(10)
    assert simulation.most_ejected == 5
    assert sum(simulation.attempts.values()) < 100
    simulation.run(30)
    assert simulation.error_rate(after=25.0) == 0.0


def test_an_upstream_without_detection_learns_of_failures_only() -> None:
    simulation = Simulation(lambda endpoint, now: None, None).run(1)
    assert not simulation.upstream.attentive
    assert all(host.detection is None for host in simulation.upstream.hosts.values())
    assert simulation.upstream.due == float("inf")
