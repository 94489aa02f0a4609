"""Bounded loads against picks that were seen on Envoy 1.40, requests held open one after the other."""

from __future__ import annotations

import pytest

from meshlib.policy.balancing.bounded_load import BoundedLoad, shuffled, slots_of
from meshlib.policy.balancing.maglev import Maglev
from meshlib.policy.balancing.placing import Table
from meshlib.policy.balancing.ring_hash import Ring
from tests.support.hosts import WEIGHTS, as_hash, entries, letters, made

H = as_hash()


@pytest.mark.parametrize(("active", "factor", "weight", "slots"), [(0, 150, 0.2, 1), (9, 150, 0.2, 3), (99, 125, 0.25, 32)])
def test_slots(active: int, factor: int, weight: float, slots: int) -> None:
    assert slots_of(active, factor, weight) == slots


@pytest.mark.parametrize(
    ("kind", "key", "picks"),
    [
        ("maglev", "user-0", [5, 5, 2, 2, 1, 5, 2, 1, 1, 3, 5, 2]),
        ("maglev", "user-3", [3, 3, 4, 4, 1, 3, 4, 1, 1, 5, 3, 4]),
        ("ring", "user-0", [5, 5, 5, 5, 5, 2, 5, 2, 5, 2, 5, 1]),
        ("ring", "user-3", [4, 4, 4, 3, 4, 3, 4, 3, 3, 4, 1, 1]),
    ],
)
def test_where_overlapping_requests_of_one_key_go(kind: str, key: str, picks: list[int]) -> None:
    hosts = made((1,) * 5 if kind == "maglev" else WEIGHTS, first=21011)
    order = entries(hosts)
    table: Table = Maglev(order, 65_537) if kind == "maglev" else Ring(order, 1024, 8 * 1024 * 1024)
    bounded = BoundedLoad(table, order, 100 if kind == "maglev" else 150, hosts)
    seen = []
    for _ in picks:
        host = bounded.pick(H(key))
        host.active += 1
        seen.append(host.endpoint.port - 21010)
    assert seen == picks


def test_without_load_it_is_the_table() -> None:
    hosts = letters()
    order = entries(hosts)
    table = Maglev(order, 251)
    bounded = BoundedLoad(table, order, 100, hosts)
    assert all(bounded.pick(H(f"k{number}")) is table.pick(H(f"k{number}")) for number in range(50))


def test_where_all_are_full_the_least_loaded_is_taken() -> None:
    hosts = letters()
    for host in hosts:
        host.active = 50
    hosts[3].active = 40
    order = entries(hosts)
    for index, host in enumerate(hosts):
        host.active += index == 0
    picked = BoundedLoad(Maglev(order, 251), order, 100, hosts).pick(H("a"))
    assert picked.active == min(host.active for host in hosts)


def test_the_order_of_a_shuffle_is_the_hashs() -> None:
    hosts = letters()
    assert shuffled(hosts, 7) == shuffled(hosts, 7 + 2**32)
    assert {host.key for host in shuffled(hosts, 7)} == {host.key for host in hosts}
    assert len({tuple(host.key for host in shuffled(hosts, seed)) for seed in range(20)}) > 10
