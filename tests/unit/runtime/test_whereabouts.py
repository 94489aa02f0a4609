"""What a process knows of where it is, and who asks."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import pytest

from meshlib.flow.upstream import Upstream
from meshlib.model.call import Call
from meshlib.model.cluster import Balancing, LbPolicy, ZoneAware
from meshlib.model.endpoint import Endpoint, Health, Locality
from meshlib.model.route import Forward, HashPolicy, PathMatch, Route, RouteMatch, WeightedCluster
from meshlib.model.snapshot import ClusterConfig, Snapshot, Target
from meshlib.policy.balancing import Host, Place
from meshlib.runtime.destinations import Destinations
from meshlib.runtime.settings import Settings
from meshlib.runtime.whereabouts import Whereabouts
from meshlib.testing import FakeClock, service, snapshot
from tests.support.hosts import as_hash

A, B = Locality("r", "a"), Locality("r", "b")
SETTINGS = Settings(service="web", namespace="shop", locality="r/a", service_port=8080, address="10.1.1.1", insecure_dev=True)
OWN = "web:8080"


def own_service() -> Target:
    """Three healthy instances in two zones, and one that is not."""
    target = service(OWN, [])
    (name,) = target.clusters
    endpoints = (
        Endpoint("10.0.0.1", 1, locality=A),
        Endpoint("10.0.0.2", 1, locality=A),
        Endpoint("10.0.0.3", 1, locality=B),
        Endpoint("10.0.0.4", 1, locality=B, health=Health.UNHEALTHY),
    )
    return replace(target, clusters={name: replace(target.clusters[name], endpoints=endpoints)})


def zoned() -> Target:
    return service("reviews", ["10.9.9.9:1"], balancing=Balancing(zone_aware=ZoneAware()))


def test_a_process_counts_its_like() -> None:
    whereabouts = Whereabouts(SETTINGS)
    assert whereabouts.place(snapshot()) == Place(A)
    assert whereabouts.place(snapshot(own_service())) == Place(A, {A: 2, B: 1})
    assert Whereabouts().place(snapshot(own_service())) == Place()


def test_its_own_service_is_asked_for_once_somebody_balances_by_zones() -> None:
    asked: list[str] = []
    whereabouts = Whereabouts(SETTINGS, asked.append)
    whereabouts.look_around(snapshot(service("reviews", ["10.9.9.9:1"])))
    assert asked == []
    for _ in range(3):
        whereabouts.look_around(snapshot(zoned()))
    assert asked == [OWN]


def test_who_serves_nothing_asks_for_nothing() -> None:
    asked: list[str] = []
    Whereabouts(Settings(insecure_dev=True), asked.append).look_around(snapshot(zoned()))
    assert asked == []


def test_the_address_is_the_one_that_is_given_or_else_the_one_that_the_system_sends_from() -> None:
    assert Whereabouts(SETTINGS).address == "10.1.1.1"
    assert Whereabouts(Settings(control="127.0.0.1:15010", insecure_dev=True)).address == "127.0.0.1"
    assert Whereabouts().address == ""


@pytest.fixture
def destinations() -> Destinations:
    def gone(hosts: list[Host]) -> None:
        """Nobody has connected to any."""

    made = Destinations(threading.Lock(), random.Random(1), gone, clock=FakeClock(500.0))
    made.whereabouts = Whereabouts(SETTINGS)
    return made


def test_upstreams_hear_of_a_place_that_has_changed(destinations: Destinations) -> None:
    by_zones = Balancing(zone_aware=ZoneAware(min_cluster_size=2))
    target = service("reviews", [], lb_policy=LbPolicy.ROUND_ROBIN, balancing=by_zones)
    (name,) = target.clusters
    endpoints = (Endpoint("10.2.0.1", 1, locality=A), Endpoint("10.2.0.2", 1, locality=B))
    reviews = replace(target, clusters={name: replace(target.clusters[name], endpoints=endpoints)})
    destinations.publish(snapshot(reviews))
    upstream, rng = destinations.upstreams[name], random.Random(1)
    assert localities(upstream, rng) == {A, B}
    assert {host.recovered for host in upstream.hosts.values()} == {500.0}
    peers = replace(own_service(), clusters=_halved(own_service()))
    destinations.publish(snapshot(reviews, peers))
    assert localities(upstream, rng) == {A}
    destinations.close()


def localities(upstream: Upstream, rng: random.Random) -> set[Locality]:
    picked = [upstream.pick((), 0, rng, 0.0) for _ in range(20)]
    return {host.endpoint.locality for host in picked if host is not None}


def _halved(target: Target) -> dict[str, ClusterConfig]:
    """One instance in each zone."""
    ((name, config),) = target.clusters.items()
    return {name: replace(config, endpoints=config.endpoints[1:3])}


def test_calls_may_be_placed_by_the_address_of_the_process(destinations: Destinations) -> None:
    cluster = "outbound|80||reviews"
    forward = Forward((WeightedCluster(cluster),), hash_policies=(HashPolicy("source_ip"),))
    route = Route("r", RouteMatch(PathMatch("prefix", "/")), forward)
    target = service("reviews", [f"10.2.0.{number}:1" for number in range(9)], lb_policy=LbPolicy.MAGLEV, routes=[route])
    destinations.publish(Snapshot(1, {target.authority: target}))
    plan = destinations.current[target.authority]._plans[0]
    assert plan.hasher is not None
    assert plan.hasher(Call("GET", "reviews:80", "/", ()), random.Random(1)).value == as_hash()("10.1.1.1")
    destinations.close()
