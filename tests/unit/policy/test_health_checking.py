"""What the results of probes mean, and when the next probe is due: Envoy's state machine."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

import pytest

from meshlib.flow.upstream import Upstream
from meshlib.model.cluster import HealthCheck, OutlierDetection, TcpHealthCheck
from meshlib.model.outcome import Outcome
from meshlib.policy.balancing import Host
from meshlib.policy.health_checking import SHORTEST, Failure, begin, end, initial_pause, settle
from meshlib.telemetry.events import Event
from meshlib.testing import service

CHECK = HealthCheck(
    TcpHealthCheck(),
    timeout=1.0,
    interval=10.0,
    unhealthy_threshold=3,
    healthy_threshold=2,
    no_traffic_interval=60.0,
    no_traffic_healthy_interval=90.0,
    unhealthy_interval=5.0,
    unhealthy_edge_interval=2.0,
    healthy_edge_interval=1.0,
)
REFUSED = Failure("refused", network=True)
STATUS = Failure("status 500", network=False)


class Bench:
    """A cluster of two hosts whose probes are answered by hand."""

    def __init__(self, check: HealthCheck = CHECK, *, used: bool = True) -> None:
        ((name, config),) = service("reviews", ["10.0.0.1:80", "10.0.0.2:80"]).clusters.items()
        assert config.cluster is not None
        self.rng = random.Random(1)
        self.check = check
        self.upstream = Upstream(name)
        self.upstream.update(config, self.rng)
        self.events: list[Event] = []
        self.upstream.emit = self.events.append
        for host in self.upstream.hosts.values():
            host.total = int(used)
            begin(host, self.upstream.hosts.values())

    def host(self, number: int = 1) -> Host:
        return self.upstream.hosts[f"10.0.0.{number}:80"]

    def settle(self, failure: Failure | None, number: int = 1) -> float:
        return settle(self.upstream, self.host(number), self.check, failure, now=100.0, rng=self.rng)

    def run(self, results: Iterable[Failure | None]) -> list[bool]:
        """Whether the host is left out, after each result."""
        return [self.settle(result) >= 0 and self.host().failed_check for result in results]


def test_the_first_probe_decides_at_once() -> None:
    assert Bench().run([None]) == [False]
    assert Bench().run([REFUSED]) == [True]


def test_chance_needs_the_threshold_and_a_success_ends_the_row() -> None:
    assert Bench().run([None, REFUSED, REFUSED, None, REFUSED, REFUSED, REFUSED]) == [False] * 6 + [True]


def test_an_answer_that_says_no_is_believed_at_once() -> None:
    assert Bench().run([None, STATUS]) == [False, True]


def test_successes_in_a_row_bring_a_host_back() -> None:
    assert Bench().run([STATUS, None, STATUS, None, None]) == [True, True, True, True, False]


def test_all_are_used_while_nothing_is_known_and_newcomers_wait_once_something_is() -> None:
    bench = Bench()
    assert not any(host.failed_check for host in bench.upstream.hosts.values())
    bench.settle(None)
    newcomer = Host(bench.host(2).endpoint)
    assert begin(newcomer, bench.upstream.hosts.values())
    assert newcomer.failed_check


def test_who_is_checked_no_more_is_used() -> None:
    bench = Bench()
    bench.settle(REFUSED)
    assert end(bench.host())
    assert not bench.host().failed_check
    assert not end(bench.host(2))


@pytest.mark.parametrize(
    ("results", "pause"),
    [
        ([None], 10.0),
        ([REFUSED], 5.0),
        ([None, REFUSED], 2.0),  # not yet unhealthy
        ([None, REFUSED, REFUSED], 2.0),
        ([None, REFUSED, REFUSED, REFUSED], 5.0),  # unhealthy now
        ([None, STATUS], 5.0),
        ([STATUS, None], 1.0),  # not yet healthy
        ([STATUS, None, None], 10.0),
    ],
)
def test_pauses_of_a_cluster_that_is_called(results: list[Failure | None], pause: float) -> None:
    bench = Bench()
    assert [bench.settle(result) for result in results][-1] == pause


@pytest.mark.parametrize(
    ("results", "pause"), [([None], 90.0), ([REFUSED], 60.0), ([None, REFUSED], 60.0), ([STATUS, None], 60.0)]
)
def test_pauses_of_a_cluster_that_is_not(results: list[Failure | None], pause: float) -> None:
    bench = Bench(used=False)
    assert [bench.settle(result) for result in results][-1] == pause


def test_intervals_that_are_not_given_are_those_of_others() -> None:
    plain = HealthCheck(TcpHealthCheck(), 1.0, 10.0, 3, 2)
    bench = Bench(plain)
    assert [bench.settle(result) for result in (None, REFUSED, REFUSED, REFUSED, None)] == [10.0] * 5
    unused = Bench(plain, used=False)
    assert unused.settle(None) == 60.0


def test_jitter_comes_on_top() -> None:
    check = HealthCheck(TcpHealthCheck(), 1.0, 10.0, 3, 2, interval_jitter=1.0, interval_jitter_percent=20, initial_jitter=4.0)
    bench = Bench(check)
    pauses = [bench.settle(None) for _ in range(300)]
    assert 10.0 <= min(pauses) < 10.5
    assert 12.5 < max(pauses) <= 13.0
    assert all(0.0 <= initial_pause(check, bench.rng) <= 4.0 for _ in range(50))


def test_a_pause_is_never_nothing() -> None:
    assert Bench(HealthCheck(TcpHealthCheck(), 1.0, 1e-9, 1, 1)).settle(None) == SHORTEST


def test_balancing_follows() -> None:
    bench = Bench()
    bench.settle(None, 1)
    bench.settle(REFUSED, 2)
    picked = {bench.upstream.pick((), 0, bench.rng, 100.0) for _ in range(20)}
    assert picked == {bench.host(1)}
    for _ in range(2):
        bench.settle(None, 2)
    assert bench.host(2) in {bench.upstream.pick((), 0, bench.rng, 100.0) for _ in range(20)}
    assert bench.host(2).recovered == 100.0


def test_a_passed_check_ends_an_ejection() -> None:
    bench = Bench()
    (config,) = service("reviews", ["10.0.0.1:80", "10.0.0.2:80"]).clusters.values()
    assert config.cluster is not None
    detection = OutlierDetection(consecutive_5xx=1, max_ejection_percent=100)
    bench.upstream.update(replace(config, cluster=replace(config.cluster, outlier_detection=detection)), bench.rng, 100.0)
    bench.settle(None)
    bench.upstream.learn(bench.host(), Outcome(100.0, status=500), bench.rng)
    assert bench.host().ejected
    bench.settle(REFUSED)
    assert bench.host().ejected
    bench.settle(None)
    assert not bench.host().ejected


def test_results_are_counted_and_told() -> None:
    bench = Bench()
    bench.run([None, None, REFUSED, STATUS, None, None])
    counts = bench.upstream.checks
    assert (counts.attempt, counts.success, counts.failure, counts.network_failure) == (6, 4, 2, 1)
    assert [(event.name, event.reason) for event in bench.events] == [
        ("health_check.passed", ""),
        ("health_check.healthy", ""),
        ("health_check.failed", "refused"),
        ("health_check.failed", "status 500"),
        ("health_check.unhealthy", ""),
        ("health_check.passed", ""),
        ("health_check.passed", ""),
        ("health_check.healthy", ""),
    ]
