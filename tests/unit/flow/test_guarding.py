"""Guards around the attempts of a call, and load shedding around the application."""

from __future__ import annotations

import random
from contextlib import nullcontext
from dataclasses import replace

import pytest

from meshlib import errors
from meshlib.flow.guarding import breaker_of
from meshlib.flow.inbound import InboundPlan
from meshlib.flow.server import Handle, server_flow
from meshlib.flow.shedding import Shedding
from meshlib.model.call import Call
from meshlib.model.inbound import Refusal, ServerRequest
from meshlib.model.outcome import Outcome
from meshlib.model.resilience import AdaptiveConcurrency, CircuitBreaker, LoadShedding, Resilience, ServerResilience
from meshlib.model.snapshot import Target
from meshlib.policy.adaptive_concurrency import ConcurrencyGuard
from meshlib.policy.circuit_breaker import State
from meshlib.telemetry.events import Event
from meshlib.testing import service
from tests.unit.flow.test_client import FIVE_XX, START, THREE, Bench, first, lost, ok, unavailable

BREAKER = CircuitBreaker(min_requests=4, open_duration=5.0)


def guarded(resilience: Resilience, **options: object) -> Target:
    target = service("reviews", THREE, **options)  # type: ignore[arg-type]
    configs = {
        name: replace(config, cluster=replace(config.cluster, resilience=resilience))
        for name, config in target.clusters.items()
        if config.cluster is not None
    }
    return replace(target, clusters=configs)


def test_a_refused_first_attempt_is_the_callers_error() -> None:
    bench = Bench(guarded(Resilience(BREAKER)))
    for _ in range(4):
        served = bench.drive(unavailable)
        assert served is not None
        assert served.lease is not None
        served.lease.release()
    with pytest.raises(errors.CircuitOpen, match=r"nothing was sent to .*: the circuit breaker is open") as caught:
        bench.drive(ok)
    assert caught.value.retry_after == pytest.approx(5.0, abs=0.1)
    assert caught.value.flags == ("UO",)
    assert len(bench.attempts) == 4
    assert bench.is_idle()


def test_a_retry_that_is_kept_away_leaves_the_last_outcome() -> None:
    """The third failure opens the breaker: no use to wait for a retry, and the 503 stands with its response."""
    bench = Bench(guarded(Resilience(replace(BREAKER, min_requests=3)), retry=replace(FIVE_XX, attempts=5)))
    served = bench.drive(unavailable)
    assert served is not None
    assert served.outcome.status == 503
    assert len(bench.attempts) == 3
    assert len(bench.pauses) == 2
    assert "UO" in bench.record.flags
    assert served.lease is not None
    served.lease.release()
    assert bench.is_idle()


def test_of_a_retry_that_is_kept_away_after_the_pause_the_response_is_still_there() -> None:
    bench = Bench(guarded(Resilience(BREAKER), retry=FIVE_XX))
    breaker = breaker_of(bench.upstream)
    assert breaker is not None

    def fails_and_another_opens(attempt: object, now: float) -> Outcome:
        return Outcome(now, status=503)

    call = Call("GET", "reviews:80", "/", (), started=START)
    from meshlib.flow.client import client_flow

    flow = client_flow(call, bench.destination, bench.record, bench.rng)
    next(flow)
    flow.send(Outcome(START, status=503))
    breaker.trip(START)
    with pytest.raises(StopIteration) as stop:
        flow.send(START + 0.02)
    served = stop.value.value
    assert served.outcome.status == 503
    served.lease.release()
    assert bench.is_idle()


def test_a_reset_before_a_retry_that_is_kept_away_is_raised() -> None:
    bench = Bench(guarded(Resilience(replace(BREAKER, min_requests=2)), retry=replace(FIVE_XX, attempts=5)))
    with pytest.raises(errors.ConnectionTerminated):
        bench.drive(lost)
    assert len(bench.attempts) == 2
    assert bench.is_idle()


def test_a_call_that_is_given_up_gives_its_place_back() -> None:
    from meshlib.flow.client import client_flow

    bench = Bench(guarded(Resilience(adaptive_concurrency=AdaptiveConcurrency())))
    (guard,) = bench.upstream.guards
    assert isinstance(guard, ConcurrencyGuard)
    flow = client_flow(Call("GET", "reviews:80", "/", (), started=START), bench.destination, bench.record, bench.rng)
    next(flow)
    assert guard.controller.active == 1
    flow.close()
    assert guard.controller.active == 0
    assert bench.is_idle()


def test_over_the_limit_a_call_fails_and_holds_nothing_of_the_breaker() -> None:
    """All guards are asked; what one of them has given is given back when another refuses."""
    bench = Bench(guarded(Resilience(BREAKER, AdaptiveConcurrency(max_limit=1, min_concurrency=1))))
    _, limit = bench.upstream.guards
    assert not limit.admit(START, bench.rng)
    with pytest.raises(errors.ConcurrencyLimited):
        bench.drive(ok)
    assert not bench.attempts
    limit.settle(None, START)
    assert bench.drive(first(ok)) is not None


def test_a_guard_whose_policy_stays_keeps_what_it_knows() -> None:
    target = guarded(Resilience(BREAKER))
    bench = Bench(target)
    breaker = breaker_of(bench.upstream)
    assert breaker is not None
    breaker.trip(START)
    (config,) = guarded(Resilience(BREAKER, AdaptiveConcurrency())).clusters.values()
    bench.upstream.update(config, bench.rng)
    assert breaker_of(bench.upstream) is breaker
    (config,) = guarded(Resilience(replace(BREAKER, min_requests=9))).clusters.values()
    bench.upstream.update(config, bench.rng)
    changed = breaker_of(bench.upstream)
    assert changed is not None
    assert changed.state is State.CLOSED
    (config,) = guarded(Resilience()).clusters.values()
    bench.upstream.update(config, bench.rng)
    assert bench.upstream.guards == ()


def test_events_of_a_breaker() -> None:
    bench = Bench(guarded(Resilience(BREAKER)))
    events: list[Event] = []
    bench.upstream.emit = events.append
    breaker = breaker_of(bench.upstream)
    assert breaker is not None
    for _ in range(4):
        bench.drive(unavailable)
    for _ in range(3):
        assert not breaker.admit(START + 100, bench.rng)
    for _ in range(3):
        breaker.settle(Outcome(START + 100, status=200), START + 100)
    assert [(event.name, event.reason) for event in events] == [
        ("circuit_breaker.opened", "failure_percent"),
        ("circuit_breaker.half_opened", ""),
        ("circuit_breaker.closed", "probes_succeeded"),
    ]
    assert events[0].cluster == bench.upstream.name


# --- the server's side


def shedding(limit: int = 1) -> tuple[Shedding, list[float], list[Event]]:
    now, events = [100.0], list[Event]()
    made = Shedding(8080, lock=nullcontext(), clock=lambda: now[0], rng=random.Random(1), emit=events.append)
    made.apply(ServerResilience("f", LoadShedding(max_concurrency=limit, retry_after=1.5)))
    return made, now, events


REQUEST = ServerRequest("GET", b"/", ((b"host", b"reviews"),))


def test_what_is_too_much_is_refused_and_told_when_to_come_back() -> None:
    limits, now, events = shedding()
    plan = InboundPlan(shedding=limits)
    inside = server_flow(REQUEST, 100.0, plan)
    assert isinstance(next(inside), Handle)
    with pytest.raises(StopIteration) as stop:
        next(server_flow(REQUEST, 100.0, plan))
    refusal = stop.value.value
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.flag, refusal.close) == (503, "UO", False)
    assert (b"retry-after", b"2") in refusal.headers
    inside.close()
    assert isinstance(next(server_flow(REQUEST, 100.0, plan)), Handle)
    now[0] = 200.0
    assert [event.name for event in events] == ["load_shedding.started"]


def test_a_request_takes_its_place_until_the_response_begins() -> None:
    limits, _, _ = shedding()
    plan = InboundPlan(shedding=limits)
    flow = server_flow(REQUEST, 100.0, plan)
    handle = next(flow)
    assert isinstance(handle, Handle)
    assert handle.stay is not None
    handle.stay.end()
    handle.stay.end()
    assert limits.shedder.active == 0
    other = server_flow(REQUEST, 100.0, plan)
    assert isinstance(next(other), Handle)
    flow.close()
    assert limits.shedder.active == 1
    other.close()
    assert limits.shedder.active == 0


def test_a_request_that_is_forgotten_gives_its_place_back() -> None:
    limits, _, _ = shedding()
    flow = server_flow(REQUEST, 100.0, InboundPlan(shedding=limits))
    next(flow)
    assert limits.shedder.active == 1
    del flow
    assert limits.shedder.active == 0


def test_the_end_of_an_overload_is_told_once() -> None:
    limits, now, events = shedding()
    plan = InboundPlan(shedding=limits)
    flow = server_flow(REQUEST, 100.0, plan)
    next(flow)
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(server_flow(REQUEST, 100.0, plan))
    flow.close()
    now[0] = 110.0
    for _ in range(3):
        next(server_flow(REQUEST, 110.0, plan))
    assert [event.name for event in events] == ["load_shedding.started", "load_shedding.ended"]


def test_a_forked_child_has_all_places_and_knows_nothing_of_its_parents_requests() -> None:
    limits, _, _ = shedding()
    plan = InboundPlan(shedding=limits)
    parents = server_flow(REQUEST, 100.0, plan)
    next(parents)
    limits.forget(nullcontext())
    own = server_flow(REQUEST, 100.0, plan)
    assert isinstance(next(own), Handle)
    parents.close()
    assert limits.shedder.active == 1
    with pytest.raises(StopIteration):
        next(server_flow(REQUEST, 100.0, plan))
    own.close()
    assert limits.shedder.active == 0
