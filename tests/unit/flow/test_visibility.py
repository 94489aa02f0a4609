"""What calls leave behind: counts, events, samples, and what is worth reporting."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import pytest

from meshlib import errors
from meshlib.flow.limiting import Limiting
from meshlib.flow.reporting import LINGER, MAX_CLUSTERS, MAX_ENDPOINTS, Noteworthy, outline
from meshlib.flow.statistics import limit_samples, upstream_samples
from meshlib.flow.upstream import Upstream
from meshlib.model.cluster import CircuitBreakers, HealthCheck, HttpHealthCheck, OutlierDetection
from meshlib.model.outcome import Outcome, Reset
from meshlib.model.rate_limit import RateLimit, TokenBucket
from meshlib.model.report import Report
from meshlib.model.resilience import AdaptiveConcurrency, CircuitBreaker, Hedging, Resilience
from meshlib.policy.circuit_breaker import FailureRateBreaker
from meshlib.policy.health_checking import Failure, begin, settle
from meshlib.policy.rate_limit import Limiter
from meshlib.telemetry.catalogue import METRICS
from meshlib.telemetry.events import EVENTS, Event
from meshlib.testing import service
from tests.unit.flow.test_client import Bench, ok

RNG = random.Random(1)
NOW = 100.0
KEYS = tuple(f"10.0.0.{number}:80" for number in range(1, 6))
REFUSED = Outcome(NOW, reset=Reset.CONNECT_FAILURE)
OVERFLOW = Outcome(NOW, reset=Reset.OVERFLOW, sent=False)


def upstream(
    *,
    detection: OutlierDetection | None = None,
    resilience: Resilience | None = None,
    breakers: CircuitBreakers = CircuitBreakers(),  # noqa: B008  # it is frozen
    name: str = "",
    keys: tuple[str, ...] = KEYS,
) -> Upstream:
    ((found, config),) = service("reviews", keys).clusters.items()
    assert config.cluster is not None
    cluster = replace(config.cluster, outlier_detection=detection, resilience=resilience, circuit_breakers=breakers)
    made = Upstream(name or found)
    made.update(replace(config, cluster=cluster), RNG, NOW)
    return made


def values(made: Upstream, at: float = NOW) -> dict[str, float]:
    """By name without prefix, and the labels beyond the cluster's."""
    found = {}
    for sample in upstream_samples(made, at):
        assert sample.name in METRICS
        assert sample.labels["envoy_cluster_name"] == made.name
        more = [value for label, value in sample.labels.items() if label != "envoy_cluster_name"]
        found[" ".join([sample.name.removeprefix("envoy_cluster_").removeprefix("meshlib_"), *more])] = sample.value
    return found


def eject(made: Upstream, key: str) -> None:
    made.pick((), 0, RNG, NOW)
    for _ in range(5):
        made.learn(made.hosts[key], Outcome(NOW, status=500), RNG)


# --- metrics


def test_an_upstream_where_all_is_well() -> None:
    found = values(upstream())
    assert found["membership_total"] == found["membership_healthy"] == 5
    assert found["circuit_breakers_default_remaining_retries"] == 3
    others = {"membership_total", "membership_healthy", "circuit_breakers_default_remaining_retries"}
    assert {name for name, value in found.items() if value} == others


def test_an_ejected_endpoint_is_no_member_any_more_until_its_time_is_over() -> None:
    made = upstream(detection=OutlierDetection(max_ejection_percent=40))
    eject(made, KEYS[0])
    found = values(made)
    assert (found["membership_total"], found["membership_healthy"]) == (5, 4)
    assert found["outlier_detection_ejections_active"] == 1
    assert found["outlier_detection_ejections_enforced_consecutive_5xx"] == 1
    made.catch_up(RNG, NOW + 60)  # nobody calls, somebody looks
    found = values(made, NOW + 60)
    assert (found["membership_healthy"], found["outlier_detection_ejections_active"]) == (5, 0)
    assert found["outlier_detection_ejections_enforced_total"] == 1


def test_an_endpoint_that_refuses_is_told_of_as_long_as_it_is_avoided() -> None:
    made = upstream()
    made.learn(made.hosts[KEYS[0]], REFUSED, RNG)
    assert values(made)["endpoints_unreachable"] == 1
    assert values(made, NOW + 60)["endpoints_unreachable"] == 0


def test_breaker_limit_and_hedges_are_there_where_a_policy_gives_them() -> None:
    resilience = Resilience(CircuitBreaker(), AdaptiveConcurrency(), Hedging(delay=0.1))
    made = upstream(resilience=resilience)
    breaker = made.guards[0]
    assert isinstance(breaker, FailureRateBreaker)
    assert values(made)["circuit_breaker_state closed"] == 1
    breaker.trip(NOW)
    found = values(made)
    assert [found[f"circuit_breaker_state {state}"] for state in ("closed", "open", "half-open")] == [0, 1, 0]
    assert found["circuit_breaker_opened_total"] == 1
    assert found["concurrency_limit"] == 10
    assert found["hedges_total"] == 0
    assert not {"concurrency_limit", "hedges_total", "circuit_breaker_opened_total"} & values(upstream()).keys()


def test_limits_are_told_apart_by_name_and_side() -> None:
    limiting = Limiting(nullcontext(), lambda: NOW)
    limiter = limit(limiting)
    limiter.allowed, limiter.limited = 3, 2
    found = {
        (sample.name, sample.labels["limit"], sample.labels["side"]): sample.value
        for sample in limit_samples(limiting, "client", NOW)
    }
    assert found["meshlib_rate_limit_allowed_total", "ns/p/few", "client"] == 3
    assert found["meshlib_rate_limit_limited_total", "ns/p/few", "client"] == 2


def limit(limiting: Limiting) -> Limiter:
    return limiting.limiters.get("ns/p", RateLimit("few", bucket=TokenBucket(1, 1.0, 1)), NOW)


# --- counts and events


def heard(made: Upstream) -> list[Event]:
    events: list[Event] = []
    made.emit = events.append
    return events


def test_what_a_limit_of_this_process_refuses_is_counted_and_told_once_a_second() -> None:
    made = upstream()
    events = heard(made)
    for _ in range(3):
        made.learn(made.hosts[KEYS[0]], OVERFLOW, RNG)
    made.learn(made.hosts[KEYS[0]], Outcome(NOW + 1.5, reset=Reset.OVERFLOW, sent=False), RNG)
    assert made.counts.pending_overflow == 4
    assert [(event.name, event.at) for event in events] == [
        ("connection_pool.overflow", NOW),
        ("connection_pool.overflow", NOW + 1.5),
    ]
    assert {event.name for event in events} <= EVENTS.keys()


def test_a_refused_retry_is_counted_and_told_once_a_second() -> None:
    made = upstream()
    events = heard(made)
    for at in (NOW, NOW + 0.5, NOW + 1.0):
        made.counts.no_retry(made, at)
    assert made.counts.retry_overflow == 3
    assert [event.name for event in events] == ["retry_budget.exhausted"] * 2


def test_nobody_listening_is_fine() -> None:
    made = upstream()
    made.counts.no_retry(made, NOW)
    made.counts.overflow(made, NOW, "maxRequests")
    assert (made.counts.retry_overflow, made.counts.pending_overflow) == (1, 1)


# --- reports


def look(noteworthy: Noteworthy, *upstreams: Upstream, at: float = NOW) -> Report:
    for each in upstreams:
        noteworthy.look_at(each, RNG, at)
    return noteworthy.report()


def test_where_all_is_well_there_is_nothing_to_report() -> None:
    assert not look(Noteworthy(), upstream(resilience=Resilience(CircuitBreaker())))


def test_an_ejection_is_reported_with_its_reason_and_the_time_that_is_left() -> None:
    made = upstream(detection=OutlierDetection(max_ejection_percent=40))
    eject(made, KEYS[0])
    ((cluster,), noteworthy) = look(Noteworthy(), made).clusters, Noteworthy()
    (endpoint,) = cluster.endpoints
    assert (endpoint.address, endpoint.state, endpoint.reason) == (KEYS[0], "ejected", "consecutive_5xx")
    assert 29.0 <= endpoint.left <= 31.0
    assert not look(noteworthy, made, at=NOW + 60)


def test_a_refusing_endpoint_is_reported_while_it_is_avoided() -> None:
    made = upstream()
    made.learn(made.hosts[KEYS[1]], REFUSED, RNG)
    (cluster,) = look(Noteworthy(), made).clusters
    assert [(each.address, each.state) for each in cluster.endpoints] == [(KEYS[1], "refusing")]
    assert not look(Noteworthy(), made, at=NOW + 60)


def test_a_failed_check_is_reported_and_one_that_is_awaited_is_not() -> None:
    made = upstream()
    (config,) = service("reviews", KEYS).clusters.values()
    assert config.cluster is not None
    check = HealthCheck(HttpHealthCheck("/healthz"), 1.0, 5.0, 1, 1)
    made.update(replace(config, cluster=replace(config.cluster, health_checks=(check,))), RNG, NOW)
    first, second = made.hosts[KEYS[0]], made.hosts[KEYS[1]]
    begin(first, made.hosts.values())
    settle(made, first, check, None, now=NOW, rng=RNG)
    assert begin(second, made.hosts.values())  # left out until its first probe
    assert not look(Noteworthy(), made)
    settle(made, second, check, Failure("503", network=False), now=NOW, rng=RNG)
    (cluster,) = look(Noteworthy(), made).clusters
    assert [(each.address, each.state) for each in cluster.endpoints] == [(KEYS[1], "failed check")]


def test_an_open_breaker_is_reported_until_it_closes() -> None:
    made = upstream(resilience=Resilience(CircuitBreaker(open_duration=5.0)))
    breaker = made.guards[0]
    assert isinstance(breaker, FailureRateBreaker)
    breaker.trip(NOW)
    (cluster,) = look(Noteworthy(), made, at=NOW + 1).clusters
    assert (cluster.circuit_breaker, cluster.circuit_breaker_left) == ("open", 4.0)
    breaker.reset(NOW + 2)
    assert not look(Noteworthy(), made, at=NOW + 2)


@pytest.mark.parametrize(
    "fail",
    [
        lambda made: made.counts.no_retry(made, NOW),
        lambda made: made.counts.overflow(made, NOW, "maxRequests"),
    ],
)
def test_what_was_refused_is_reported_for_a_while(fail: Callable[[Upstream], None]) -> None:
    made, noteworthy = upstream(), Noteworthy()
    fail(made)
    assert look(noteworthy, made)
    assert look(noteworthy, made, at=NOW + LINGER - 1)
    assert not look(noteworthy, made, at=NOW + LINGER)
    fail(made)
    assert look(noteworthy, made, at=NOW + LINGER + 1)


def test_that_requests_are_tried_again_is_no_news() -> None:
    made = upstream()
    made.counts.retry = 1
    assert not look(Noteworthy(), made)


def test_a_limit_that_refuses_is_reported_for_a_while() -> None:
    limiting, noteworthy = Limiting(nullcontext(), lambda: NOW), Noteworthy()
    limiter = limit(limiting)
    noteworthy.look_at_limits(limiting, "server", NOW)
    assert not noteworthy.report()
    limiter.limited = 1
    noteworthy.look_at_limits(limiting, "server", NOW)
    (told,) = noteworthy.report().limits
    assert (told.id, told.side, told.limited) == ("ns/p/few", "server", 1)
    noteworthy.look_at_limits(limiting, "server", NOW + LINGER)
    assert not noteworthy.report()


def test_a_report_is_bounded_and_says_what_it_leaves_out() -> None:
    keys = tuple(f"10.0.{number // 250}.{number % 250 + 1}:80" for number in range(MAX_ENDPOINTS + 1))
    made = upstream(keys=keys)
    for host in made.hosts.values():
        made.learn(host, REFUSED, RNG)
    report = look(Noteworthy(), made)
    assert (len(report.clusters[0].endpoints), report.truncated) == (MAX_ENDPOINTS, True)
    many = [upstream(name=f"outbound|80||s{number}") for number in range(MAX_CLUSTERS + 1)]
    for each in many:
        each.counts.retry_overflow = 1
    report = look(Noteworthy(), *many)
    assert (len(report.clusters), report.truncated) == (MAX_CLUSTERS, True)
    assert not look(Noteworthy(), *many[1:]).truncated


def test_other_counts_are_no_news_and_another_state_is() -> None:
    made, noteworthy = upstream(), Noteworthy()
    made.counts.retry_overflow = 1
    before = outline(look(noteworthy, made))
    made.counts.retry_overflow = 2
    assert outline(look(noteworthy, made)) == before
    made.learn(made.hosts[KEYS[0]], REFUSED, RNG)
    assert outline(look(noteworthy, made)) != before


def test_clusters_that_are_gone_are_forgotten() -> None:
    made, noteworthy = upstream(), Noteworthy()
    made.counts.retry_overflow = 1
    look(noteworthy, made)
    noteworthy.keep(frozenset())
    assert not noteworthy._refusals


def test_max_requests_is_told_in_words() -> None:
    target = service("reviews", KEYS)
    ((name, config),) = target.clusters.items()
    assert config.cluster is not None
    closed = replace(config, cluster=replace(config.cluster, circuit_breakers=CircuitBreakers(max_requests=0)))
    bench = Bench(replace(target, clusters={name: closed}))
    with pytest.raises(errors.Overflow):
        bench.drive(ok)
    (made,) = bench.upstreams.values()
    assert made.counts.pending_overflow == 1
    assert values(made)["circuit_breakers_default_rq_open"] == 1
