"""Calls through the flow: placed by their hash, kept from priorities that failed, told of their cookies."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from meshlib.flow.client import client_flow
from meshlib.flow.commands import Attempt, Sleep
from meshlib.flow.destination import Destination
from meshlib.flow.record import CallRecord
from meshlib.flow.served import Served
from meshlib.flow.upstream import Upstream
from meshlib.model.call import Call
from meshlib.model.cluster import Balancing, LbPolicy
from meshlib.model.endpoint import Endpoint, Health
from meshlib.model.outcome import Outcome, Reset
from meshlib.model.route import Forward, HashPolicy, PathMatch, RetryPolicy, Route, RouteMatch, WeightedCluster
from meshlib.model.snapshot import ClusterConfig
from meshlib.policy.balancing import Host, Place
from meshlib.testing import service

NAME = "outbound|80||reviews"
FIVE = tuple(Endpoint("10.0.0.1", 1 + number) for number in range(5))
RETRY = RetryPolicy(3, frozenset({"5xx"}), previous_hosts=True, host_selection_attempts=5)


def mesh(
    hashing: Sequence[HashPolicy] = (),
    *,
    lb_policy: LbPolicy = LbPolicy.MAGLEV,
    retry: RetryPolicy = RETRY,
    endpoints: Sequence[Endpoint] = FIVE,
) -> tuple[Destination, Upstream]:
    forward = Forward((WeightedCluster(NAME),), retry=retry, hash_policies=tuple(hashing))
    route = Route("r", RouteMatch(PathMatch("prefix", "/")), forward)
    target = service("reviews", [], lb_policy=lb_policy, routes=[route])
    upstream = Upstream(NAME)
    upstream.update(replace(target.clusters[NAME], endpoints=tuple(endpoints)), random.Random(1), 1000.0)
    return Destination(target, {NAME: upstream}), upstream


def call(
    destination: Destination, *answers: int, headers: Sequence[tuple[bytes, bytes]] = (), seed: int = 1
) -> tuple[list[str], Served]:
    """The endpoints of the tries, which are answered with these statuses."""
    made = Call("GET", "reviews:80", "/", headers)
    flow = client_flow(made, destination, CallRecord("reviews:80", 0.0), random.Random(seed))
    tried: list[str] = []
    try:
        command = next(flow)
        while True:
            if isinstance(command, Sleep):
                command = flow.send(0.0)
                continue
            assert isinstance(command, Attempt)
            tried.append(command.host.key)
            status = answers[len(tried) - 1]
            outcome = Outcome(0.0, status=status, headers=((b"a", b"b"),), complete=True)
            command = flow.send(outcome if status else Outcome(0.0, reset=Reset.CONNECT_FAILURE, sent=False))
    except StopIteration as stop:
        served: Served = stop.value
        return tried, served


def user(name: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-user", name.encode())]


@pytest.mark.parametrize("lb_policy", [LbPolicy.MAGLEV, LbPolicy.RING_HASH])
def test_a_key_goes_to_the_same_endpoint_every_time(lb_policy: LbPolicy) -> None:
    destination, _ = mesh([HashPolicy("header", "x-user")], lb_policy=lb_policy)
    places = {}
    for name in ("alice", "bob", "carol", "dave", "erin"):
        places[name] = {call(destination, 200, headers=user(name), seed=seed)[0][0] for seed in range(5)}
        assert len(places[name]) == 1
    assert len(set.union(*places.values())) > 1


def test_without_anything_to_hash_calls_go_anywhere() -> None:
    destination, _ = mesh([HashPolicy("header", "x-user")])
    assert len({call(destination, 200, seed=seed)[0][0] for seed in range(40)}) == 5


def test_a_retry_leaves_the_endpoint_that_failed_and_always_for_the_same_one() -> None:
    destination, _ = mesh([HashPolicy("header", "x-user")])
    runs = {tuple(call(destination, 503, 503, 200, headers=user("alice"), seed=seed)[0]) for seed in range(10)}
    assert len(runs) == 1
    (tries,) = runs
    assert len(set(tries)) == 3


def test_a_cookie_is_made_once_and_set_in_the_response() -> None:
    destination, _ = mesh([HashPolicy("cookie", "sess", ttl=60.0)])
    tried, served = call(destination, 503, 200)
    assert served.headers is not None
    assert len(tried) == 2
    (cookie,) = [value for name, value in served.headers if name == b"set-cookie"]
    assert (b"a", b"b") in served.headers
    value = cookie.split(b";")[0].replace(b'"', b"")
    assert call(destination, 200, headers=[(b"cookie", value)], seed=9)[0][0] == tried[0]


def test_policies_that_do_not_hash_make_no_cookies() -> None:
    destination, upstream = mesh([HashPolicy("cookie", "sess", ttl=60.0)], lb_policy=LbPolicy.ROUND_ROBIN)
    assert not upstream.hashes
    assert call(destination, 200)[1].headers is None


LEVELS = [Endpoint("10.0.0.1", 1), Endpoint("10.0.0.1", 2), Endpoint("10.0.1.1", 1, priority=1)]


def test_retries_go_to_another_priority_where_that_is_asked_for() -> None:
    plain, _ = mesh(lb_policy=LbPolicy.ROUND_ROBIN, endpoints=LEVELS)
    assert call(plain, 503, 200)[0][1].startswith("10.0.0.")
    remote, _ = mesh(lb_policy=LbPolicy.ROUND_ROBIN, endpoints=LEVELS, retry=replace(RETRY, previous_priorities=1))
    first, second = call(remote, 503, 200)[0]
    assert first.startswith("10.0.0.")
    assert second == "10.0.1.1:1"


def test_health_that_changes_is_followed() -> None:
    _, upstream = mesh(lb_policy=LbPolicy.ROUND_ROBIN)
    rng = random.Random(1)
    gone = next(iter(upstream.hosts.values()))
    gone.ejected = True
    assert gone in {upstream.pick((), 0, rng, 0.0) for _ in range(10)}  # nobody has said so yet
    upstream.health_changed(rng, 0.0)
    assert gone not in {upstream.pick((), 0, rng, 0.0) for _ in range(20)}


def test_hosts_know_since_when_they_are_here() -> None:
    _, upstream = mesh()
    newer = (Endpoint("10.0.0.1", 1), Endpoint("10.0.0.9", 9))
    upstream.update(ClusterConfig(NAME, upstream.cluster, newer), random.Random(1), 2000.0)
    assert {host.key: host.recovered for host in upstream.hosts.values()} == {"10.0.0.1:1": 1000.0, "10.0.0.9:9": 2000.0}


def test_where_nobody_is_healthy_there_is_nobody() -> None:
    _, upstream = mesh(endpoints=[Endpoint("10.0.0.1", 1, health=Health.UNHEALTHY)])
    assert upstream.pick((), 0, random.Random(1), 0.0, 5) is None
    panicking = replace(upstream.cluster, balancing=Balancing())
    upstream.update(ClusterConfig(NAME, panicking, tuple(host.endpoint for host in upstream.hosts.values())), random.Random(1))
    assert upstream.pick((), 0, random.Random(1), 0.0, 5) is not None


def test_the_overprovisioning_factor_counts() -> None:
    levels = [Endpoint("10.0.0.1", 1), Endpoint("10.0.0.2", 1, health=Health.UNHEALTHY), Endpoint("10.0.1.1", 1, priority=1)]
    _, upstream = mesh(lb_policy=LbPolicy.ROUND_ROBIN, endpoints=levels)
    rng = random.Random(1)
    config = ClusterConfig(NAME, upstream.cluster, upstream._endpoints)  # type: ignore[arg-type]  # the same tuple on purpose
    assert {host.key for host in _picked(upstream, rng)} == {"10.0.0.1:1", "10.0.1.1:1"}
    upstream.update(replace(config, overprovisioning_factor=200), rng)
    assert {host.key for host in _picked(upstream, rng)} == {"10.0.0.1:1"}


def _picked(upstream: Upstream, rng: random.Random) -> list[Host]:
    found = [upstream.pick((), 0, rng, 0.0) for _ in range(100)]
    return [host for host in found if host is not None]


def test_a_process_that_learns_of_its_surroundings_balances_anew() -> None:
    _, upstream = mesh(lb_policy=LbPolicy.ROUND_ROBIN)
    before = upstream._balancer
    upstream.move(Place(), random.Random(1), 0.0)
    assert upstream._balancer is before
