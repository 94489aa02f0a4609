"""Leases of shares: what is in use never exceeds the claim, whatever becomes of messages and processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib_control.quota.claims import Claim, Sightings, Wish, settled
from meshlib_control.quota.ledger import MARGIN, TTL, Ledger

KEEP = 3.0


def told(ledger: Ledger, now: float, number: int = 1) -> dict[object, float]:
    """One round in which every stream is told at once, and says that it knows."""
    shares = dict(ledger.assign(now))
    for stream, share in shares.items():
        ledger.told(stream, share, number, now)
    for stream in shares:
        ledger.applied(stream, number)
    return shares


def test_one_stream_has_all_and_a_second_one_half_of_it() -> None:
    ledger = Ledger(100.0, KEEP)
    ledger.claim = ledger.aim = 1.0
    ledger.heard("a", 1, 0.0, 0.0)
    assert told(ledger, 0.0) == {"a": pytest.approx(1.0)}
    ledger.heard("b", 1, 0.0, 1.0)
    assert told(ledger, 1.0, 2) == {"a": pytest.approx(0.5)}
    assert told(ledger, 1.1, 3) == {"b": pytest.approx(0.5)}


def test_a_share_is_not_given_away_before_it_is_given_back() -> None:
    ledger = Ledger(100.0, KEEP)
    ledger.claim = ledger.aim = 1.0
    ledger.heard("a", 1, 0.0, 0.0)
    told(ledger, 0.0)
    ledger.heard("b", 1, 0.0, 1.0)
    shares = ledger.assign(1.0)
    assert shares == {"a": pytest.approx(0.5)}
    ledger.told("a", shares["a"], 2, 1.0)
    assert "b" not in ledger.assign(1.5)  # a has not said yet that less is in force
    ledger.applied("a", 1)  # an old answer
    assert "b" not in ledger.assign(1.6)
    ledger.applied("a", 2)
    assert ledger.assign(1.7)["b"] == pytest.approx(0.5)


def test_who_leaves_in_order_frees_his_share_at_once_and_who_vanishes_when_he_can_use_it_no_more() -> None:
    for in_order in (True, False):
        ledger = Ledger(100.0, KEEP)
        ledger.claim = ledger.aim = 1.0
        ledger.heard("a", 1, 0.0, 0.0)
        told(ledger, 0.0)
        ledger.left("a", in_order=in_order, process="a")
        ledger.heard("b", 1, 0.0, 1.0)
        assert bool(ledger.assign(1.0)) is in_order
        until = TTL + KEEP + MARGIN
        ledger.heard("b", 1, 1.0, until - 0.1)
        assert bool(ledger.assign(until - 0.1)) is in_order
        assert ledger.assign(until + 0.1)["b"] == pytest.approx(1.0)


def test_shares_follow_demand() -> None:
    ledger = Ledger(100.0, KEEP)
    ledger.claim = ledger.aim = 1.0
    shares: dict[object, float] = {}
    for second in range(20):
        ledger.heard("busy", 500, 1.0, float(second))
        ledger.heard("calm", 10, 1.0, float(second))
        for step in range(3):
            shares |= told(ledger, second + step / 10, second * 3 + step + 1)
    assert shares["calm"] == pytest.approx(0.1, abs=0.02)
    assert shares["busy"] == pytest.approx(0.9, abs=0.02)


# --- a mesh of replicas and processes, with everything going wrong


@dataclass
class Process:
    """A workload: goes by what it was told last, for the lease and the time after it."""

    share: float = 0.0
    until: float = -1.0
    replica: int = 0
    applied: int = 0

    def in_use(self, now: float) -> float:
        return self.share if now < self.until else 0.0


@dataclass
class Replica:
    ledger: Ledger = field(default_factory=lambda: Ledger(100.0, KEEP))
    sightings: Sightings = field(default_factory=Sightings)
    numbers: dict[int, int] = field(default_factory=dict)
    alive: bool = True


class Town:
    """Replicas over one document, processes, and messages on their way."""

    def __init__(self, seed: int, replicas: int, processes: int) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.document: dict[str, Claim] = {}
        self.replicas = [Replica() for _ in range(replicas)]
        self.processes = [Process(replica=self.random.randrange(replicas)) for _ in range(processes)]
        self.mail: list[tuple[float, int, int, int, float]] = []  # when, process, replica, number, share

    def in_use(self) -> float:
        return sum(process.in_use(self.now) for process in self.processes)

    def step(self) -> None:
        self.now += self.random.random() * 0.5
        self._deliver()
        for number, replica in enumerate(self.replicas):
            if replica.alive and self.random.random() < 0.8:
                self._round(number, replica)
        for number, process in enumerate(self.processes):
            replica = self.replicas[process.replica]
            if replica.alive and self.random.random() < 0.8:
                replica.ledger.applied(number, process.applied)
                replica.ledger.heard(number, self.random.randrange(200), 0.5, self.now)
        if self.random.random() < 0.05:
            self._move(self.random.randrange(len(self.processes)))
        if self.random.random() < 0.02:
            self._replace(self.random.randrange(len(self.replicas)))

    def _round(self, number: int, replica: Replica) -> None:
        ledger = replica.ledger
        wish = Wish(ledger.want, ledger.outstanding, KEEP)
        claims, _, ledger.aim = settled("b", self.document, str(number), wish, replica.sightings, self.now)
        mine = claims[str(number)]
        self.document = {**claims, str(number): Claim(mine.share, mine.want, mine.beat + 1, mine.keep)}
        ledger.claim = mine.share
        for stream, share in ledger.assign(self.now).items():
            assert isinstance(stream, int)
            count = replica.numbers[stream] = replica.numbers.get(stream, 0) + 1
            ledger.told(stream, share, count, self.now)
            if self.random.random() < 0.9:  # else it is lost with its connection
                self.mail.append((self.now + self.random.random() * MARGIN, stream, number, count, share))

    def _deliver(self) -> None:
        for letter in sorted(self.mail):
            at, number, replica, count, share = letter
            if at > self.now:
                continue
            self.mail.remove(letter)
            process = self.processes[number]
            if (
                process.replica == replica
                and self.replicas[replica].numbers.get(number) is not None
                and count > process.applied
            ):
                process.share, process.applied, process.until = share, count, self.now + TTL + KEEP

    def _move(self, number: int) -> None:
        """To another replica, with what it has; nobody tells the one before in good order."""
        process = self.processes[number]
        old = self.replicas[process.replica]
        old.ledger.left(number, in_order=False, process=number)
        old.numbers.pop(number, None)
        self.mail = [letter for letter in self.mail if letter[1] != number]
        process.replica, process.applied = self.random.randrange(len(self.replicas)), 0
        new = self.replicas[process.replica]
        new.numbers.pop(number, None)
        new.ledger.returned(number, number)

    def _replace(self, number: int) -> None:
        """A replica dies, and another one, which knows nothing, comes in its place under another name."""
        self.replicas[number].alive = False
        self.replicas.append(Replica())
        for index, process in enumerate(self.processes):
            if process.replica == number:
                process.replica, process.applied = len(self.replicas) - 1, 0
                self.mail = [letter for letter in self.mail if letter[1] != index]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), replicas=st.integers(1, 3), processes=st.integers(1, 6))
def test_shares_in_use_never_add_up_to_more_than_the_whole(seed: int, replicas: int, processes: int) -> None:
    """Across replicas, with lost messages, processes that move or vanish, and replicas that are replaced."""
    town = Town(seed, replicas, processes)
    for _ in range(150):
        town.step()
        assert town.in_use() <= 1 + 1e-6


def test_in_that_town_shares_are_given_out_all_the_same() -> None:
    """The control: most of the whole is in use, most of the time."""
    uses = []
    for seed in range(20):
        town = Town(seed, 2, 4)
        for _ in range(150):
            town.step()
            uses.append(town.in_use())
    assert sum(uses) / len(uses) > 0.5
