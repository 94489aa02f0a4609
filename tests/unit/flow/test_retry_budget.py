"""F18 in miniature: half of all answers are 503, from every endpoint; what the retry budget of a policy makes of it."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import replace

import pytest

from meshlib.flow.client import ClientFlow, client_flow
from meshlib.flow.commands import Attempt, Command, Sleep
from meshlib.flow.record import CallRecord
from meshlib.model.call import Call
from meshlib.model.cluster import CircuitBreakers
from meshlib.model.outcome import Outcome
from meshlib.testing import service
from tests.unit.flow.test_client import FIVE_XX, START, THREE, Bench

CALLS, AT_ONCE = 4000, 100


def amplification(breakers: CircuitBreakers) -> tuple[float, float]:
    """Attempts for each call, and the share of calls that failed; `AT_ONCE` calls are always under way."""
    target = service("reviews", THREE, retry=FIVE_XX)
    clusters = {
        name: replace(config, cluster=replace(config.cluster, circuit_breakers=breakers))
        for name, config in target.clusters.items()
        if config.cluster is not None
    }
    bench, dice = Bench(replace(target, clusters=clusters)), random.Random(18)
    under_way: deque[tuple[ClientFlow, Command]] = deque()
    attempts = begun = failed = 0
    while begun < CALLS or under_way:
        while begun < CALLS and len(under_way) < AT_ONCE:
            call = Call("GET", "reviews:80", "/", (), started=START)
            flow = client_flow(call, bench.destination, CallRecord("reviews:80", START), bench.rng)
            under_way.append((flow, next(flow)))
            begun += 1
        flow, command = under_way.popleft()
        attempts += isinstance(command, Attempt)
        outcome = Outcome(START, status=503 if dice.random() < 0.5 else 200)
        try:
            under_way.append((flow, flow.send(START if isinstance(command, Sleep) else outcome)))
        except StopIteration as stop:
            stop.value.lease.release()
            failed += stop.value.outcome.status == 503
    assert bench.is_idle()
    return attempts / CALLS, failed / CALLS


@pytest.mark.parametrize(("percent", "most"), [(20.0, 1.2), (10.0, 1.1), (5.0, 1.05)])
def test_the_budget_bounds_the_amplification_and_the_errors_show(percent: float, most: float) -> None:
    """A budget of p % makes at most 100/(100 - p) attempts of a call; what it does not rescue is not made to look healthy."""
    attempts, failed = amplification(CircuitBreakers(retry_budget_percent=percent, min_retry_concurrency=3))
    assert 1.0 < attempts <= most
    assert failed == pytest.approx(0.5 - (attempts - 1.0) / 2.0, abs=0.03)


def test_without_a_budget_every_failure_is_tried_again() -> None:
    """The control: what Istio ships."""
    attempts, failed = amplification(CircuitBreakers(retry_budget_percent=100.0, min_retry_concurrency=1000))
    assert attempts > 1.7
    assert failed < 0.15
