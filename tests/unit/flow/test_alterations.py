"""Faults in the client's flow: their order, their time, their flags."""

from __future__ import annotations

import random
from typing import Any

import pytest

from meshlib import errors
from meshlib.flow.client import client_flow
from meshlib.flow.commands import Attempt, Sleep
from meshlib.flow.destination import Destination
from meshlib.flow.record import CallRecord
from meshlib.flow.served import Served
from meshlib.flow.upstream import Upstream
from meshlib.model.call import Call
from meshlib.model.route import Fault, Forward, PathMatch, Route, RouteMatch, WeightedCluster
from meshlib.testing import service

CLUSTER = "outbound|80||reviews"


def begun(fault: Fault, **fields: Any) -> tuple[Any, CallRecord]:
    action = Forward((WeightedCluster(CLUSTER),), timeout=0.1)
    route = Route("r", RouteMatch(PathMatch("prefix", "/")), action, fault=fault)
    target = service("reviews", ["10.0.0.1:80"], routes=[route])
    upstream = Upstream(CLUSTER)
    upstream.update(target.clusters[CLUSTER], random.Random(1))
    record = CallRecord("reviews:80", 1.0)
    call = Call("GET", "reviews:80", "/", (), started=1.0, **fields)
    return client_flow(call, Destination(target, {CLUSTER: upstream}), record, random.Random(1)), record


def test_the_routes_timeout_begins_after_an_injected_delay() -> None:
    flow, record = begun(Fault(delay=0.3, delay_fraction=1.0))
    pause = next(flow)
    assert isinstance(pause, Sleep)
    assert pause.seconds == 0.3
    attempt = flow.send(1.3)
    assert isinstance(attempt, Attempt)
    assert attempt.deadline == pytest.approx(1.4)
    assert record.flags == ("DI",)
    flow.close()


def test_the_callers_deadline_does_not_wait_for_a_delay() -> None:
    flow, _ = begun(Fault(delay=5.0, delay_fraction=1.0), deadline=2.0)
    assert next(flow).seconds == 1.0
    with pytest.raises(errors.TimeoutExceeded):
        flow.send(2.0)


def test_an_abort_follows_the_delay_and_reaches_nobody() -> None:
    flow, record = begun(Fault(0.3, 1.0, http_status=503, abort_fraction=1.0))
    next(flow)
    with pytest.raises(StopIteration) as stop:
        flow.send(1.3)
    served: Served = stop.value.value
    assert (served.outcome.status, served.body, served.lease) == (503, b"fault filter abort", None)
    assert (record.flags, record.attempts) == (("DI", "FI"), 0)


@pytest.mark.parametrize("fault", [Fault(0.3, 0.0, 503, None, 0.0), Fault(delay_fraction=1.0, abort_fraction=1.0)])
def test_faults_without_a_share_or_without_an_effect_do_nothing(fault: Fault) -> None:
    flow, record = begun(fault)
    assert isinstance(next(flow), Attempt)
    assert record.flags == ()
    flow.close()
