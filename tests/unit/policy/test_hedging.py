from __future__ import annotations

from random import Random

import pytest

from meshlib.model.outcome import Outcome, Reset
from meshlib.model.resilience import Hedging
from meshlib.policy.hedging import MINIMUM_SAMPLES, WINDOW, Hedger, Latencies


@pytest.mark.parametrize("percent", [50.0, 90.0, 95.0, 99.0])
def test_a_percentile_is_right_to_a_tenth(percent: float) -> None:
    rng = Random(7)
    samples = sorted(rng.lognormvariate(-4.0, 0.8) for _ in range(5_000))
    latencies = Latencies(0.0)
    for sample in rng.sample(samples, len(samples)):
        latencies.add(sample, 1.0)
    exact = samples[int(percent / 100.0 * len(samples)) - 1]
    found = latencies.percentile(percent)
    assert found is not None
    assert exact <= found <= exact * 1.11


def test_too_few_samples_say_nothing() -> None:
    latencies = Latencies(0.0)
    for _ in range(MINIMUM_SAMPLES - 1):
        latencies.add(0.01, 0.0)
    assert latencies.percentile(95.0) is None
    latencies.add(0.01, 0.0)
    assert latencies.percentile(95.0) == pytest.approx(0.01, rel=0.1)


def test_what_was_slow_once_is_forgotten_after_two_windows() -> None:
    latencies = Latencies(0.0)
    for _ in range(100):
        latencies.add(2.0, 0.0)
    for at in (WINDOW, 2 * WINDOW):
        for _ in range(100):
            latencies.add(0.01, at)
    assert latencies.percentile(99.0) == pytest.approx(0.01, rel=0.1)


def test_a_pause_longer_than_two_windows_forgets_everything() -> None:
    latencies = Latencies(0.0)
    for _ in range(100):
        latencies.add(2.0, 0.0)
    latencies.add(0.01, 10 * WINDOW)
    assert latencies.percentile(50.0) is None


def test_the_delay_is_the_policys() -> None:
    assert Hedger(Hedging(delay=0.05), 0.0).begin() == 0.05


def test_the_percentile_is_learned_from_answers_and_not_from_failures() -> None:
    hedger = Hedger(Hedging(percentile=95.0), 0.0)
    for _ in range(MINIMUM_SAMPLES):
        assert hedger.begin() is None
        hedger.learn(Outcome(5.0, reset=Reset.TIMEOUT, timeout="route"), 0.0)
        hedger.learn(Outcome(0.02, status=200), 0.0)
    assert hedger.begin() == pytest.approx(0.02, rel=0.1)


def test_copies_are_a_share_of_the_calls_however_slow_all_are() -> None:
    hedger = Hedger(Hedging(delay=0.05, budget_percent=10.0), 0.0)
    sent = 0
    for _ in range(1_000):
        hedger.begin()
        sent += hedger.may_send()
    assert 99 <= sent <= 101
    assert hedger.hedged == sent
    assert hedger.refused == 1_000 - sent


def test_what_a_quiet_cluster_saves_up_is_bounded() -> None:
    hedger = Hedger(Hedging(delay=0.05, budget_percent=100.0), 0.0)
    for _ in range(1_000):
        hedger.begin()
    burst = 0
    while hedger.may_send():
        burst += 1
    assert burst == 10
