"""Maglev against vectors that were verified on Envoy 1.40."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.model.endpoint import Endpoint
from meshlib.policy.balancing import Host
from meshlib.policy.balancing.maglev import Maglev
from tests.support.hosts import WEIGHTS, as_hash, entries, letter, letters

H = as_hash()
SIZE = 65_537

VECTORS = [
    # key, slot of 65537, equal weights, weights 1 2 3 5 7, slot of 251, the same weights there, equal weights at attempt 1
    ("", 33714, "A", "D", 40, "D", "B"),
    ("a", 46963, "E", "E", 31, "E", "C"),
    ("user-0", 18706, "B", "B", 20, "E", "C"),
    ("user-1", 11668, "A", "D", 167, "D", "A"),
    ("user-2", 31810, "D", "D", 53, "E", "B"),
    ("user-3", 9778, "D", "D", 205, "E", "B"),
    ("user-4", 163, "D", "D", 172, "D", "C"),
    ("hello world", 55508, "D", "D", 127, "D", "D"),
]


def table(weights: tuple[int, ...] = (1, 1, 1, 1, 1), size: int = SIZE) -> Maglev:
    return Maglev(entries(letters(weights)), size)


@pytest.mark.parametrize(("key", "slot", "equal", "weighted", "small_slot", "small", "again"), VECTORS)
def test_choices(key: str, slot: int, equal: str, weighted: str, small_slot: int, small: str, again: str) -> None:
    hashed = H(key)
    assert (hashed % SIZE, hashed % 251) == (slot, small_slot)
    assert letter(table().pick(hashed)) == equal
    assert letter(table(WEIGHTS).pick(hashed)) == weighted
    assert letter(table(WEIGHTS, 251).pick(hashed)) == small
    assert letter(table().pick(hashed, 1)) == again


def shown(of: Maglev, count: int) -> str:
    return "".join(letter(of.pick(slot)) for slot in range(count))


def test_the_first_slots() -> None:
    assert shown(table(), 20) == "DDDBCADDECCAEDCCAADD"
    assert shown(table(WEIGHTS, 251), 20) == "CDBDDCDEEEEEEEEEDEBE"


def test_slots_are_shared_by_weight() -> None:
    assert Counter(shown(table(), SIZE)) == {"A": 13108, "B": 13108, "C": 13107, "D": 13107, "E": 13107}
    assert Counter(shown(table(WEIGHTS), SIZE)) == {"A": 3641, "B": 7282, "C": 10923, "D": 18205, "E": 25486}
    assert Counter(shown(table(WEIGHTS, 251), 251)) == {"A": 14, "B": 28, "C": 42, "D": 70, "E": 97}


@pytest.mark.parametrize(("key", "last"), [("alice", 1), ("bob", 3), ("carol", 2), ("dave", 3), ("erin", 2), ("/cart?id=1", 1)])
def test_other_addresses(key: str, last: int) -> None:
    hosts = [Host(Endpoint(f"10.0.0.{number}", 80, weight=weight)) for number, weight in ((1, 1), (2, 1), (3, 2))]
    assert Maglev(entries(hosts), SIZE).pick(H(key)).key == f"10.0.0.{last}:80"


def test_the_order_of_the_configuration_does_not_matter() -> None:
    hosts = letters(WEIGHTS)
    random.Random(1).shuffle(hosts)
    assert shown(Maglev(entries(hosts), 251), 251) == shown(table(WEIGHTS, 251), 251)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=12))
def test_every_slot_has_an_owner_and_shares_are_fair(weights: list[int]) -> None:
    hosts = [Host(Endpoint("10.0.0.1", 1 + index, weight=weight)) for index, weight in enumerate(weights)]
    size = 2003
    counts = Counter(Maglev(entries(hosts), size).slots)
    assert sum(counts.values()) == size
    for index, host in enumerate(sorted(hosts, key=lambda each: each.key)):
        assert abs(counts[index] - size * host.weight / sum(weights)) <= len(hosts) + 1


def test_few_slots_change_hands_when_a_host_leaves() -> None:
    hosts = letters()
    before, after = Maglev(entries(hosts), SIZE), Maglev(entries(hosts[1:]), SIZE)
    gone = hosts[0]
    moved = sum(before.pick(slot) is not gone and before.pick(slot) is not after.pick(slot) for slot in range(SIZE))
    assert moved < SIZE * 0.1
