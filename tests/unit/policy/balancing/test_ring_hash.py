"""Ring hash against vectors that were verified on Envoy 1.40."""

from __future__ import annotations

from collections import Counter

import pytest

from meshlib.model.endpoint import Endpoint
from meshlib.policy.balancing import Host
from meshlib.policy.balancing.ring_hash import Ring
from tests.support.hosts import WEIGHTS, as_hash, entries, letter, letters

H = as_hash()
LARGEST = 8 * 1024 * 1024

VECTORS = [
    # key, equal weights, weights 1 2 3 5 7, the same with a ring of 10 to 16, equal weights at attempt 1
    ("user-0", "E", "E", "E", "D"),
    ("user-1", "D", "D", "D", "B"),
    ("user-2", "E", "E", "E", "B"),
    ("user-3", "B", "E", "B", "A"),
    ("user-4", "C", "C", "C", "B"),
    ("hello world", "D", "D", "D", "B"),
    ("a", "E", "E", "D", "D"),
    ("", "A", "E", "C", "C"),
]


def ring(weights: tuple[int, ...] = (1, 1, 1, 1, 1), smallest: int = 1024, largest: int = LARGEST) -> Ring:
    return Ring(entries(letters(weights)), smallest, largest)


@pytest.mark.parametrize(("key", "equal", "weighted", "small", "again"), VECTORS)
def test_choices(key: str, equal: str, weighted: str, small: str, again: str) -> None:
    hashed = H(key)
    assert letter(ring().pick(hashed)) == equal
    assert letter(ring(WEIGHTS).pick(hashed)) == weighted
    assert letter(ring(WEIGHTS, 10, 16).pick(hashed)) == small
    assert letter(ring().pick(hashed, 1)) == again


def places(of: Ring) -> list[tuple[int, str]]:
    return [(hashed, letter(of.pick(hashed))) for hashed in of.hashes]


def test_the_ends_of_the_ring() -> None:
    found = places(ring())
    assert found[:3] == [(30117701263019662, "B"), (42344432725151444, "B"), (74687599395129921, "A")]
    assert found[-1] == (18434546258836701695, "C")
    assert ring().pick(2**64 - 1) is not None  # beyond the last place comes the first
    assert letter(ring().pick(2**64 - 1)) == "B" == letter(ring().pick(0))


def test_a_small_ring_place_by_place() -> None:
    assert places(ring(WEIGHTS, 10, 16)) == [
        (4507674100625052816, "C"),
        (5853458492273080160, "D"),
        (5931361714921974726, "C"),
        (6508827507460797501, "E"),
        (6531473464903481411, "E"),
        (9090221824245284390, "E"),
        (10913767099419030411, "D"),
        (11640678133140233864, "D"),
        (12279950694791595412, "B"),
        (13247058652061642371, "B"),
        (13641113522170029077, "E"),
        (14844687884669271813, "A"),
        (15587014640788499524, "D"),
        (15912957934096902850, "E"),
        (16930366689405322812, "E"),
        (18295052890543906096, "C"),
    ]


def test_places_are_shared_by_weight() -> None:
    assert Counter(name for _, name in places(ring())) == dict.fromkeys("ABCDE", 205)
    assert Counter(name for _, name in places(ring(WEIGHTS))) == {"A": 57, "B": 114, "C": 171, "D": 285, "E": 399}


def test_fractions_of_a_place_are_not_lost() -> None:
    """Four hosts, six places: sums run on across hosts."""
    hosts = letters((1, 1, 1, 1))
    of = Ring(entries(hosts), 6, 6)
    counts = Counter(letter(of.pick(hashed)) for hashed in of.hashes)
    assert counts == {"A": 2, "B": 1, "C": 2, "D": 1}


@pytest.mark.parametrize(("key", "last"), [("alice", 2), ("bob", 3), ("carol", 1), ("dave", 2), ("erin", 3), ("/cart?id=1", 3)])
def test_other_addresses(key: str, last: int) -> None:
    hosts = [Host(Endpoint(f"10.0.0.{number}", 80, weight=weight)) for number, weight in ((1, 1), (2, 1), (3, 2))]
    assert Ring(entries(hosts), 1024, LARGEST).pick(H(key)).key == f"10.0.0.{last}:80"


def test_a_hash_key_stands_for_the_address() -> None:
    moved = [Host(Endpoint("10.9.9.9", 1 + index, hash_key=host.key)) for index, host in enumerate(letters())]
    of = Ring(entries(moved), 1024, LARGEST)
    for key, equal, *_ in VECTORS:
        assert "ABCDE"[of.pick(H(key)).endpoint.port - 1] == equal


def test_host_names_stand_for_addresses_where_that_is_asked_for() -> None:
    named = [Host(Endpoint("10.9.9.9", 1 + index, hostname=host.key)) for index, host in enumerate(letters())]
    of = Ring(entries(named, by_hostname=True), 1024, LARGEST)
    assert ["ABCDE"[of.pick(H(key)).endpoint.port - 1] for key, *_ in VECTORS] == [vector[1] for vector in VECTORS]
    assert entries(named)[0].key == b"10.9.9.9:1"
