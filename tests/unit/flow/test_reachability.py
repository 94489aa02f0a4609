"""An endpoint that refuses connections costs one retry, not one for each call that is balanced to it."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from meshlib import errors
from meshlib.flow.client import ClientFlow, client_flow
from meshlib.flow.commands import Attempt, Sleep
from meshlib.flow.destination import Destination
from meshlib.flow.record import CallRecord
from meshlib.flow.served import Served
from meshlib.flow.upstream import Upstream
from meshlib.model.call import Call
from meshlib.model.cluster import LbPolicy
from meshlib.model.outcome import Outcome, Reset
from meshlib.model.snapshot import Target
from meshlib.policy.reachability import PROBE_BACKOFF, Reachability
from meshlib.testing import service

ENDPOINTS = tuple(f"10.0.0.{number}:80" for number in range(1, 5))
DEAD = ENDPOINTS[0]


class World:
    """Calls one after the other to a service some of whose endpoints refuse."""

    def __init__(self, target: Target, refusing: set[str]) -> None:
        self.rng = random.Random(5)
        self.refusing = refusing
        self.now = 1000.0
        self.tries: Counter[str] = Counter()
        ((name, config),) = target.clusters.items()
        self.upstream = Upstream(name)
        self.upstream.update(config, self.rng)
        self.destination = Destination(target, {name: self.upstream})
        self.authority = target.authority

    def call(self) -> CallRecord:
        record = CallRecord(self.authority, self.now)
        flow = client_flow(Call("GET", self.authority, "/", (), started=self.now), self.destination, record, self.rng)
        try:
            command = next(flow)
            while True:
                if isinstance(command, Sleep):
                    command = flow.send(self.now)
                else:
                    assert isinstance(command, Attempt)
                    command = flow.send(self._answer(command))
        except StopIteration as stop:
            served: Served = stop.value
        if served.lease is not None:
            served.lease.release()
        return record

    def _answer(self, attempt: Attempt) -> Outcome:
        self.tries[attempt.host.key] += 1
        if attempt.host.key in self.refusing:
            return Outcome(self.now, reset=Reset.CONNECT_FAILURE, sent=False)
        return Outcome(self.now, status=200)


def world(*, lb: LbPolicy = LbPolicy.LEAST_REQUEST, refusing: set[str]) -> World:
    return World(service("reviews", ENDPOINTS, lb_policy=lb), refusing)


@pytest.mark.parametrize("lb", [LbPolicy.LEAST_REQUEST, LbPolicy.ROUND_ROBIN, LbPolicy.RANDOM])
def test_an_endpoint_that_refused_is_not_asked_again_before_its_backoff(lb: LbPolicy) -> None:
    several = world(lb=lb, refusing={DEAD})
    for _ in range(200):
        assert several.call().status == 200
    assert several.tries[DEAD] == 1
    assert all(several.tries[key] > 20 for key in ENDPOINTS[1:])  # and the others share what it would have had


def test_after_its_backoff_one_call_finds_out() -> None:
    several = world(refusing={DEAD})
    for _ in range(50):
        several.call()
    several.now += 1.3  # the first backoff: 1 s, +- 20 %
    for _ in range(50):
        several.call()
    assert several.tries[DEAD] == 2


def test_an_endpoint_that_is_back_gets_its_share_again() -> None:
    several = world(refusing={DEAD})
    for _ in range(50):
        several.call()
    several.refusing.clear()
    several.now += 1.3
    several.tries.clear()
    for _ in range(400):
        several.call()
    assert several.tries[DEAD] > 50


def test_where_all_refuse_all_are_tried() -> None:
    """Reachability is no health check: it never turns a call away by itself."""
    several = world(refusing=set(ENDPOINTS))
    for _ in range(20):
        with pytest.raises(errors.ConnectFailed):
            several.call()
    assert sum(several.tries.values()) >= 40
    several.refusing.clear()
    assert several.call().status == 200


def test_an_endpoint_that_leaves_the_configuration_is_forgotten() -> None:
    several = world(refusing={DEAD})
    for _ in range(50):
        several.call()
    assert several.upstream.reachability.refused_by
    ((_, config),) = several.destination.target.clusters.items()
    rest = tuple(endpoint for endpoint in config.endpoints if endpoint.key != DEAD)
    several.upstream.update(replace(config, endpoints=rest), several.rng)
    assert not several.upstream.reachability.refused_by


def test_backoff_grows_with_each_refusal_and_starts_over_after_an_answer() -> None:
    rng = random.Random(1)
    host = next(iter(world(refusing=set()).upstream.hosts.values()))
    state = Reachability()
    waits = []
    for _ in range(12):
        state.refused(host, 0.0, rng)
        waits.append(next(tenth / 10 for tenth in range(1, 200) if not state.avoids(host, tenth / 10)))
    assert 0.8 <= waits[0] <= 1.3
    assert waits[3] > waits[0]
    assert max(waits) <= PROBE_BACKOFF.cap * 1.2 + 0.1
    state.answered(host)
    assert not state.refused_by
    assert not state.avoids(host, 0.0)


def test_while_one_call_finds_out_others_stay_away() -> None:
    """A probe that hangs (a port that drops packets) must not be joined by every other call."""
    several = world(refusing={DEAD})
    for _ in range(50):
        several.call()
    several.now += 1.3
    picked = [several.upstream.pick((), 0, several.rng, several.now) for _ in range(100)]
    assert sum(host is not None and host.key == DEAD for host in picked) == 1


def test_connections_that_failed_do_not_use_up_the_retry_budget() -> None:
    """Many calls meet a dead endpoint at the same moment, before the first has failed: each goes on to another one."""
    several = world(refusing={DEAD})
    dead = several.upstream.hosts[DEAD]
    flows: list[ClientFlow] = []
    while len(flows) < 10:
        record = CallRecord(several.authority, several.now)
        call = Call("GET", several.authority, "/", (), started=several.now)
        flow = client_flow(call, several.destination, record, several.rng)
        command = next(flow)
        assert isinstance(command, Attempt)
        if command.host is dead:
            flows.append(flow)
        else:
            flow.close()
    for flow in flows:  # all are under way when the first is refused
        assert isinstance(flow.send(Outcome(several.now, reset=Reset.CONNECT_FAILURE, sent=False)), Sleep)
    assert several.upstream.active_retries == 0
    for flow in flows:
        flow.close()
