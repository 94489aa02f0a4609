"""The lease table: registrations, renewals, owners and marks, on a clock that the tests move."""

from __future__ import annotations

import math
from typing import Any

import pytest

from meshlib_control.catalog.leases import (
    Beat,
    Deregister,
    Heartbeats,
    InvalidRegistration,
    LeaseTable,
    Record,
    Register,
    Registration,
    Renew,
    Standing,
    Stored,
    Tick,
    UnknownInstance,
    step,
)

ME, OTHER = "me", "other"
REVIEWS = Registration("r1", "reviews", "10.0.0.1", 9080)


def table_of(*events: tuple[float, Any], table: LeaseTable | None = None) -> LeaseTable:
    """The table after events at their times."""
    table = table or LeaseTable(ME)
    for now, event in events:
        table = step(table, event, now)
    return table


def ticks(start: int, end: int) -> list[tuple[float, Tick]]:
    return [(float(now), Tick()) for now in range(start, end + 1)]


def standing(table: LeaseTable, instance_id: str = "r1") -> Standing | None:
    lease = table.leases.get(instance_id)
    return lease.record.standing if lease else None


def test_a_registration_is_up_until_its_time_to_live_has_passed() -> None:
    table = table_of((0, Register(REVIEWS)), *ticks(0, 14))
    assert standing(table) is Standing.UP
    assert standing(table_of((15, Tick()), table=table)) is Standing.EXPIRED


def test_a_renewal_gives_a_full_time_to_live() -> None:
    table = table_of((0, Register(REVIEWS)), *ticks(0, 10), (10, Renew("r1")), *ticks(11, 24))
    assert standing(table) is Standing.UP
    assert standing(table_of((25, Tick()), table=table)) is Standing.EXPIRED


def test_renewals_may_be_counted_with_the_next_tick() -> None:
    table = table_of((0, Register(REVIEWS)), *ticks(0, 14), (16, Tick({"r1": 14.5})))
    assert standing(table) is Standing.UP
    assert table.leases["r1"].until == 29.5


def test_a_renewal_tells_whether_calls_are_wanted() -> None:
    table = table_of((0, Register(REVIEWS)), (1, Renew("r1", ready=False)))
    assert not table.leases["r1"].record.ready
    assert table_of((2, Renew("r1")), table=table).leases["r1"].record.ready


def test_registering_again_replaces_what_was_said() -> None:
    again = Registration("r1", "reviews", "10.0.0.1", 9081)
    table = table_of((0, Register(REVIEWS)), (5, Register(again)))
    assert table.leases["r1"].record.registration.port == 9081
    assert table.leases["r1"].until == 20


def test_deregistration_counts_at_once_and_is_remembered_for_a_while() -> None:
    table = table_of((0, Register(REVIEWS)), (1, Deregister("r1")))
    assert standing(table) is Standing.LEFT
    assert standing(table_of((300, Tick()), table=table)) is Standing.LEFT
    assert standing(table_of((301, Tick()), table=table)) is None


def test_deregistering_what_is_not_there_is_fine() -> None:
    assert table_of((0, Deregister("r1"))) == LeaseTable(ME)
    left = table_of((0, Register(REVIEWS)), (1, Deregister("r1")))
    assert table_of((2, Deregister("r1")), table=left) == left


@pytest.mark.parametrize("events", [[], [(0, Register(REVIEWS)), (1, Deregister("r1"))]], ids=["never", "deregistered"])
def test_what_is_not_registered_cannot_be_renewed(events: list[tuple[float, Any]]) -> None:
    with pytest.raises(UnknownInstance, match="register it again"):
        table_of(*events, (2, Renew("r1")))


def test_an_instance_that_was_cut_off_comes_back_with_its_renewal() -> None:
    expired = table_of((0, Register(REVIEWS)), *ticks(0, 16))
    assert standing(expired) is Standing.EXPIRED
    assert standing(table_of((20, Renew("r1")), table=expired)) is Standing.UP


def test_a_mark_of_expiry_is_forgotten() -> None:
    expired = table_of((0, Register(REVIEWS)), *ticks(0, 15))
    assert standing(table_of((314, Tick()), (314.5, Tick()), table=expired)) is Standing.EXPIRED
    forgotten = table_of(*((float(now), Tick()) for now in range(16, 700, 4)), table=expired)
    assert standing(forgotten) is None


def test_a_process_that_stood_still_blames_no_instance() -> None:
    """A stopped or starved control service: nobody could renew."""
    table = table_of((0, Register(REVIEWS)), *ticks(0, 10), (200, Tick()))
    assert standing(table) is Standing.UP
    assert standing(table_of(*ticks(201, 205), table=table)) is Standing.EXPIRED


def stored(owner: str, *, ready: bool = True, mark: Standing = Standing.UP) -> Stored:
    return Stored({"r1": Record(REVIEWS, owner, ready, mark)})


def test_what_another_replica_stored_is_taken_over_without_a_clock() -> None:
    table = table_of((0, stored(OTHER)), *ticks(0, 100))
    assert standing(table) is Standing.UP
    assert table.leases["r1"].until == math.inf


def test_what_another_replica_removed_is_gone() -> None:
    assert table_of((0, stored(OTHER)), (1, Stored({}))).leases == {}


def test_what_the_store_lost_of_ours_stays() -> None:
    table = table_of((0, Register(REVIEWS)), (1, Stored({})))
    assert standing(table) is Standing.UP


def test_a_renewal_at_another_replica_moves_the_lease() -> None:
    mine = table_of((0, stored(OTHER)), (5, Renew("r1")))
    assert (mine.leases["r1"].record.owner, mine.leases["r1"].until) == (ME, 20)
    theirs = table_of((0, Register(REVIEWS)), (5, stored(OTHER)), *ticks(5, 60))
    assert theirs.leases["r1"].record.owner == OTHER
    assert standing(theirs) is Standing.UP, "its owner watches the time"


def beats(revision: int, *, left: bool = False) -> Heartbeats:
    return Heartbeats({OTHER: Beat(revision, left), ME: Beat(99)})


def test_leases_of_a_silent_replica_are_adopted_with_a_full_time_to_live() -> None:
    table = table_of((0, stored(OTHER)), (0, beats(1)), (5, beats(1)), (10, beats(1)))
    assert table.leases["r1"].record.owner == OTHER
    adopted = table_of((15, beats(1)), table=table)
    assert (adopted.leases["r1"].record.owner, adopted.leases["r1"].until) == (ME, 30)


def test_a_replica_that_beats_keeps_its_leases() -> None:
    events = [(float(5 * number), beats(number)) for number in range(20)]
    assert table_of((0, stored(OTHER)), *events).leases["r1"].record.owner == OTHER


def test_leases_of_a_replica_that_said_goodbye_are_adopted_at_once() -> None:
    table = table_of((0, stored(OTHER)), (1, beats(5, left=True)))
    assert (table.leases["r1"].record.owner, table.leases["r1"].until) == (ME, 16)


def test_leases_of_a_replica_nobody_has_heard_of_are_adopted_in_the_end() -> None:
    silence = Heartbeats({ME: Beat(1)})
    table = table_of((0, stored(OTHER)), *((float(5 * number), silence) for number in range(3)))
    assert table.leases["r1"].record.owner == ME


def test_marks_are_adopted_too_so_that_somebody_forgets_them() -> None:
    table = table_of((0, stored(OTHER, mark=Standing.LEFT)), (1, beats(1, left=True)))
    assert standing(table) is Standing.LEFT
    assert table.leases["r1"].until == 301


def test_time_proves_nothing_while_no_heartbeats_can_be_read() -> None:
    table = table_of((0, stored(OTHER)), (0, beats(1)), *ticks(0, 1000))
    assert table.leases["r1"].record.owner == OTHER


def test_defaults_are_those_of_the_protocol() -> None:
    registration = Registration("i", "Reviews", "10.0.0.1", 80, namespace="", protocol="", weight=0)
    assert (registration.service, registration.namespace, registration.protocol, registration.weight) == (
        "reviews",
        "default",
        "http",
        1,
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("instance_id", ""),
        ("instance_id", "x" * 254),
        ("instance_id", "a\nb"),
        ("service", ""),
        ("service", "a.b"),
        ("service", "-a"),
        ("namespace", "a_b"),
        ("address", "localhost"),
        ("address", "0.0.0.0"),
        ("address", "10.0.0.1:80"),
        ("port", 0),
        ("port", 65536),
        ("service_port", -1),
        ("weight", -1),
        ("weight", 200_000),
    ],
)
def test_registrations_that_cannot_be_served_are_refused(field: str, value: object) -> None:
    fields: dict[str, Any] = {"instance_id": "i", "service": "s", "address": "::1", "port": 80}
    assert Registration(**fields)
    with pytest.raises(InvalidRegistration, match=field):
        Registration(**{**fields, field: value})
