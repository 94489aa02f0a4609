"""Copies as the flow decides on them."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from meshlib.flow.client import client_flow
from meshlib.flow.commands import Attempt, Copy
from meshlib.flow.destination import Destination
from meshlib.flow.mirroring import LONGEST, shadowed
from meshlib.flow.record import CallRecord
from meshlib.flow.upstream import Upstream
from meshlib.model.call import Call, Overrides
from meshlib.model.outcome import Outcome, Reset
from meshlib.model.route import Forward, Mirror, Substitution
from meshlib.testing import service

HOST = "outbound|80||reviews"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("reviews", "reviews-shadow"),
        ("reviews:80", "reviews-shadow:80"),
        ("a.test:", "a.test:-shadow"),
        ("10.0.0.1:8080", "10.0.0.1-shadow:8080"),
        ("[::1]:8080", "[::1]-shadow:8080"),
        ("[::1]", "[::1]-shadow"),
    ],
)
def test_a_mirrors_host_says_that_it_is_none(host: str, expected: str) -> None:
    assert shadowed(host) == expected


def destination(*mirrors: Mirror, **action: object) -> Destination:
    target = service("reviews", ["10.0.0.1:80", "10.0.0.2:80"], timeout=2.0)
    (route,) = target.virtual_host.routes
    assert isinstance(route.action, Forward)
    changed = replace(route, action=replace(route.action, mirrors=mirrors, **action))  # type: ignore[arg-type]
    host = replace(target.virtual_host, routes=(changed,), attempt_count_header=True)
    upstreams = {name: Upstream(name) for name in target.clusters}
    for name, config in target.clusters.items():
        upstreams[name].update(config, random.Random(1))
    return Destination(replace(target, virtual_host=host), upstreams)


def test_copies_come_before_the_first_try_and_after_the_changes_of_the_route() -> None:
    target = destination(Mirror(HOST), Mirror(HOST, keep_host=True), regex_rewrite=Substitution("/a", "/b"))
    assert target.mirrored
    call = Call("GET", "reviews:80", "/a?q", [(b"x", b"1")], host="reviews", deadline=0.5, overrides=Overrides(retries=0))
    flow = client_flow(call, target, CallRecord("reviews:80", 0.0), random.Random(1))
    first, second = next(flow), next(flow)
    assert isinstance(first, Copy)
    assert isinstance(second, Copy)
    assert isinstance(next(flow), Attempt)
    flow.close()
    assert (first.call.host, second.call.host) == ("reviews-shadow", "reviews")
    copied = first.call
    assert (copied.method, copied.path, copied.headers) == ("GET", "/b?q", call.headers)
    assert (copied.deadline, copied.overrides, copied.inherited_attempt) == (None, None, 1)


def test_a_host_header_of_the_callers_own_is_the_one_that_counts() -> None:
    """Client libraries send one among their headers."""
    call = Call("GET", "reviews:80", "/", [(b"Host", b"own.test:80"), (b"x-mesh-peer", b"admin")], host="reviews")
    flow = client_flow(call, destination(Mirror(HOST)), CallRecord("", 0.0), random.Random(1))
    copy = next(flow)
    flow.close()
    assert isinstance(copy, Copy)
    assert (copy.call.host, copy.call.headers) == ("own.test-shadow:80", [])
    assert len(call.headers) == 2


def test_a_copy_has_one_try_and_the_routes_time() -> None:
    command = next(
        client_flow(
            Call("GET", "reviews:80", "/", [], host="reviews"),
            destination(Mirror(HOST)),
            CallRecord("reviews:80", 0.0),
            random.Random(1),
        )
    )
    assert isinstance(command, Copy)
    assert not command.destination.mirrored
    flow = client_flow(command.call, command.destination, CallRecord("", 0.0), random.Random(1))
    attempt = next(flow)
    assert isinstance(attempt, Attempt)
    assert attempt.deadline == 2.0
    with pytest.raises(Exception, match="no connection"):
        flow.send(Outcome(0.1, reset=Reset.CONNECT_FAILURE, sent=False))


def test_where_the_route_has_no_time_a_copy_has_some_all_the_same() -> None:
    target = destination(Mirror(HOST), timeout=0.0)
    flow = client_flow(Call("GET", "reviews:80", "/", []), target, CallRecord("", 0.0), random.Random(1))
    copy = next(flow)
    assert isinstance(copy, Copy)
    attempt = next(client_flow(copy.call, copy.destination, CallRecord("", 0.0), random.Random(1)))
    assert isinstance(attempt, Attempt)
    assert attempt.deadline == LONGEST
    plain = next(flow)
    assert isinstance(plain, Attempt)
    assert plain.deadline is None
    flow.close()


def test_each_mirror_draws_by_itself() -> None:
    target, rng = destination(Mirror(HOST, 0.5), Mirror(HOST, 0.1)), random.Random(3)
    counts = [0, 0, 0]
    for _ in range(2000):
        flow = client_flow(Call("GET", "reviews:80", "/", []), target, CallRecord("", 0.0), rng)
        copies = 0
        while isinstance(next(flow), Copy):
            copies += 1
        flow.close()
        counts[copies] += 1
    assert 0.40 < counts[0] / 2000 < 0.50  # (1 - 0.5) * (1 - 0.1)
    assert 0.03 < counts[2] / 2000 < 0.07  # 0.5 * 0.1
