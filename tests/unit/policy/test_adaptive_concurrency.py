"""The limit that follows the latency: what it learns, and what that is good for under overload."""

from __future__ import annotations

from random import Random

import pytest

from meshlib.model.outcome import Outcome, Reset
from meshlib.model.resilience import AdaptiveConcurrency
from meshlib.policy.adaptive_concurrency import ConcurrencyGuard, GradientController, percentile
from tests.support.overload import Limit, NoLimit, Phase, Server

RNG = Random(1)


class Adaptive:
    """The controller as a server has it."""

    def __init__(self, policy: AdaptiveConcurrency = AdaptiveConcurrency()) -> None:  # noqa: B008  # it is frozen
        self.controller = GradientController(policy)
        self._rng = Random(7)

    def admit(self, now: float) -> bool:
        if self.controller.active >= self.controller.limit:
            return False
        self.controller.enter(now)
        return True

    def done(self, now: float, began: float) -> None:
        self.controller.leave(now, began, self._rng)


def one_by_one(controller: GradientController, count: int, *, latency: float, now: float) -> float:
    for _ in range(count):
        controller.enter(now)
        controller.leave(now + latency, now, RNG)
        now += latency
    return now


@pytest.mark.parametrize(("percent", "expected"), [(50, 3.0), (90, 5.0), (100, 5.0), (1, 1.0), (60, 3.0), (61, 4.0)])
def test_percentiles_are_samples(percent: float, expected: float) -> None:
    assert percentile([5.0, 1.0, 3.0, 2.0, 4.0], percent) == expected


def test_minimum_rtt_is_learned_from_quiet_requests_without_cutting_the_limit() -> None:
    controller = GradientController(AdaptiveConcurrency())
    one_by_one(controller, 50, latency=0.01, now=1.0)
    assert controller.min_rtt == pytest.approx(0.01)
    assert not controller.measuring
    assert controller.limit >= 10


def test_a_burst_at_the_start_is_served() -> None:
    """Eight requests at once, the first that a process ever sees: Envoy would let three of them in."""
    limit = Adaptive()
    assert all(limit.admit(1.0 + number / 1000) for number in range(8))


def test_without_quiet_moments_the_limit_is_cut_to_measure_and_restored() -> None:
    controller = GradientController(AdaptiveConcurrency(min_rtt_requests=10, max_limit=100))
    running: list[float] = []
    now, cut = 0.001, False
    for _ in range(4000):
        while controller.active < controller.limit:
            now += 1e-5
            controller.enter(now)
            running.append(now)
        began = running.pop(0)
        now = max(now, began + 0.05)
        controller.leave(now, began, RNG)
        cut = cut or controller.measuring
        if controller.min_rtt:
            break
    assert cut
    assert controller.min_rtt == pytest.approx(0.05, rel=0.2)
    assert not controller.measuring
    assert controller.limit > 3


def test_a_fixed_minimum_is_never_measured() -> None:
    controller = GradientController(AdaptiveConcurrency(fixed_min_rtt=0.02))
    one_by_one(controller, 500, latency=0.5, now=1.0)
    assert controller.min_rtt == 0.02


def test_latency_above_the_minimum_lowers_the_limit_and_latency_like_it_raises_it() -> None:
    controller = GradientController(AdaptiveConcurrency(fixed_min_rtt=0.01))
    now = 1.0

    def busy(latency: float, rounds: int) -> None:
        nonlocal now
        for _ in range(rounds):
            begun = []
            while controller.active < min(controller.limit, 40):
                now += 1e-6
                controller.enter(now)
                begun.append(now)
            now += latency
            for began in begun:
                controller.leave(now, began, RNG)

    busy(0.01, 100)
    high = controller.limit
    busy(0.1, 100)
    low = controller.limit
    busy(0.01, 1000)
    assert high >= 40
    assert low < 10
    assert controller.limit >= 40


def test_the_limit_stays_between_its_bounds() -> None:
    policy = AdaptiveConcurrency(fixed_min_rtt=0.01, min_concurrency=2, max_limit=16)
    controller = GradientController(policy)
    one_by_one(controller, 3000, latency=0.001, now=1.0)
    assert controller.limit <= 16
    one_by_one(controller, 3000, latency=1.0, now=100.0)
    assert controller.limit == 2


def test_a_clock_that_stands_still_stops_nothing() -> None:
    controller = GradientController(AdaptiveConcurrency())
    for _ in range(2000):
        controller.enter(5.0)
        controller.leave(5.0, 5.0, RNG)
    assert controller.active == 0
    assert controller.limit >= 3


def test_a_guard_lets_no_more_attempts_through_than_the_limit_and_gives_places_back() -> None:
    guard = ConcurrencyGuard(AdaptiveConcurrency(), RNG)
    admitted = sum(not guard.admit(1.0, RNG) for _ in range(20))
    assert admitted == 10
    assert "10 requests are under way" in guard.admit(1.0, RNG)
    guard.settle(None, 1.0)
    assert not guard.admit(1.0, RNG)


def test_answers_that_come_fast_because_they_fail_do_not_make_a_service_look_fast() -> None:
    guard = ConcurrencyGuard(AdaptiveConcurrency(), RNG)
    now = 1.0
    for number in range(400):
        now += 0.01
        assert not guard.admit(now, RNG)
        failed = number % 2 == 0
        outcome = Outcome(now + 0.0001, status=503) if failed else Outcome(now + 0.008, status=200)
        guard.settle(outcome, now)
    assert guard.controller.min_rtt == pytest.approx(0.008)
    guard.admit(now, RNG)
    guard.settle(Outcome(now, reset=Reset.CONNECT_FAILURE, sent=False), now)
    assert guard.controller.active == 0


OVERLOAD = (Phase(30, 0.5), Phase(15, 3.0), Phase(15, 0.5))


def recovery(server: Server, limit: Limit) -> tuple[float, float | None]:
    """Goodput under three times the capacity as a share of it, and seconds after that until nine tenths are answered well."""
    result = server.run(OVERLOAD, limit, Random(11))
    goodput = result.goodput(30, 45) / server.capacity
    well = (second for second in range(45, 60) if result.good[second] >= 0.9 * result.arrived[second])
    return goodput, next((second - 45 for second in well), None)


SERVERS = [Server(10, 0.05), Server(1, 0.01), Server(50, 0.1), Server(4, 0.02)]


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: f"{server.workers}x{server.mean}s")
def test_f21_under_three_times_its_capacity_a_server_does_what_it_can_and_recovers_at_once(server: Server) -> None:
    """Goodput of at least 80 % of capacity; at most 5 s to recover.  Without a limit neither holds: the positive control."""
    goodput, seconds = recovery(server, Adaptive())
    assert goodput >= 0.8
    assert seconds is not None
    assert seconds <= 5
    collapsed, never = recovery(server, NoLimit())
    assert collapsed < 0.2
    assert never is None or never > 5


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: f"{server.workers}x{server.mean}s")
def test_at_half_its_capacity_a_server_refuses_next_to_nothing(server: Server) -> None:
    result = server.run([Phase(60, 0.5)], Adaptive(), Random(5))
    assert sum(result.refused[10:]) <= 0.03 * sum(result.arrived[10:])


def test_a_server_that_starts_under_overload_gets_to_its_capacity() -> None:
    server = Server(10, 0.05)
    result = server.run([Phase(20, 3.0)], Adaptive(), Random(5))
    assert result.goodput(5, 20) >= 0.8 * server.capacity
