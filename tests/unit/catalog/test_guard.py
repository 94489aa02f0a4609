"""The guard against instances that vanish by accident."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from meshlib_control.catalog import guard
from meshlib_control.catalog.guard import Guarded, GuardRules
from meshlib_control.catalog.model import Instance, InstanceHealth, Port, Service
from meshlib_control.catalog.offers import Seen

RULES = GuardRules()
HOST = "reviews.default.svc.cluster.local"
SERVICE = Service(HOST, "default", (Port(80),))
State = dict[str, Guarded]


def instance(number: int, health: InstanceHealth = InstanceHealth.HEALTHY) -> Instance:
    return Instance(f"i{number}", "10.0.0.1", 9000 + number, health=health)


def seen(*numbers: int, left: tuple[int, ...] = ()) -> Seen:
    return Seen({HOST: SERVICE}, {HOST: tuple(instance(n) for n in numbers)}, frozenset(f"i{n}" for n in left))


def run(*steps: tuple[float, Seen], state: State | None = None) -> State:
    state = state or {}
    for now, what in steps:
        state = guard.update(state, what, now, RULES)
    return state


def ids(state: State) -> list[int]:
    return [int(each.id[1:]) for each in state[HOST].instances]


def test_what_sources_say_is_taken() -> None:
    state = run((0, seen(1, 2)), (1, seen(1, 2, 3)))
    assert ids(state) == [1, 2, 3]
    assert guard.reason(state[HOST]) == ""
    assert guard.deadline(state, RULES) == math.inf


def test_a_service_that_never_had_instances_is_empty() -> None:
    assert ids(run((0, seen()))) == []


def test_all_gone_at_once_is_held_for_five_minutes_and_reported() -> None:
    state = run((0, seen(1, 2)), (10, seen()))
    assert ids(state) == [1, 2]
    assert "all 2 instances vanished" in guard.reason(state[HOST])
    assert guard.deadline(state, RULES) == 310
    assert ids(run((309.9, seen()), state=state)) == [1, 2]
    ended = run((310, seen()), state=state)
    assert ids(ended) == []
    assert guard.reason(ended[HOST]) == ""


def test_deregistration_is_honoured_at_once() -> None:
    assert ids(run((0, seen(1, 2)), (1, seen(left=(1, 2))))) == []


def test_deregistration_of_what_is_held_is_honoured_at_once() -> None:
    assert ids(run((0, seen(1, 2)), (1, seen()), (2, seen(left=(1,))))) == [2]


def test_instances_that_were_draining_are_not_held() -> None:
    draining = Seen({HOST: SERVICE}, {HOST: (instance(1, InstanceHealth.DRAINING),)})
    assert ids(run((0, draining), (1, seen()))) == []


def test_real_data_ends_the_hold() -> None:
    state = run((0, seen(1, 2)), (1, seen()), (30, seen(3)))
    assert ids(state) == [3], "the others have been missing for longer than the hold of a shrink"
    assert guard.reason(state[HOST]) == ""


def test_what_comes_back_is_as_before() -> None:
    state = run((0, seen(1, 2)), (1, seen()), (2, seen(1, 2)))
    assert ids(state) == [1, 2]
    assert guard.reason(state[HOST]) == ""


def test_a_shrink_by_more_than_half_is_held_for_a_moment() -> None:
    state = run((0, seen(1, 2, 3, 4, 5)), (1, seen(1)))
    assert ids(state) == [1, 2, 3, 4, 5]
    assert "4 of 5 instances vanished at once" in guard.reason(state[HOST])
    assert guard.deadline(state, RULES) == 11
    assert ids(run((11, seen(1)), state=state)) == [1]


def test_what_is_new_is_used_during_a_hold() -> None:
    assert ids(run((0, seen(1, 2, 3)), (1, seen(4)))) == [1, 2, 3, 4]


def test_half_or_less_goes_at_once() -> None:
    assert ids(run((0, seen(1, 2, 3, 4)), (1, seen(1, 2)))) == [1, 2]
    assert ids(run((0, seen(1, 2)), (1, seen(1)))) == [1]


def test_a_slow_shrink_is_believed_step_by_step() -> None:
    state = run(*((float(10 - count), seen(*range(count))) for count in range(10, 0, -1)))
    assert ids(state) == [0]


def test_a_process_that_comes_back_under_a_new_id_is_not_kept_twice() -> None:
    again = Seen({HOST: SERVICE}, {HOST: (Instance("new", "10.0.0.1", 9001),)})
    assert [each.id for each in run((0, seen(1)), (1, again))[HOST].instances] == ["new"]


def test_a_whole_service_that_vanishes_is_held() -> None:
    state = run((0, seen(1, 2)), (1, Seen()))
    assert ids(state) == [1, 2]
    assert state[HOST].service == SERVICE
    assert guard.reason(state[HOST])
    assert guard.deadline(state, RULES) == 301
    assert run((301, Seen()), state=state) == {}


def test_a_service_whose_instances_left_stays_known_for_a_while_without_suspicion() -> None:
    state = run((0, seen(1)), (1, seen(left=(1,))), (2, Seen()))
    assert ids(state) == []
    assert guard.reason(state[HOST]) == ""
    assert run((302, Seen()), state=state) == {}


def test_a_service_that_nobody_looks_at_any_more_is_not_held() -> None:
    state = run((0, seen(1)), (1, Seen({HOST: SERVICE})))
    assert ids(state) == []
    assert not state[HOST].watched
    assert guard.reason(state[HOST]) == ""


def test_while_all_are_held_the_service_keeps_its_ports() -> None:
    wide = Service(HOST, "default", (Port(80), Port(9080)))
    state = run((0, Seen({HOST: wide}, {HOST: (instance(1),)})), (1, seen()))
    assert state[HOST].service == wide


@given(st.lists(st.tuples(st.floats(0, 40), st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9))), max_size=25))
def test_present_ones_are_always_served_and_leavers_never(script: list[tuple[float, set[int], set[int]]]) -> None:
    now = 0.0
    state: State = {}
    for pause, present, left in script:
        now += pause
        before = set(ids(state)) if state else set()
        state = guard.update(state, seen(*sorted(present), left=tuple(left - present)), now, RULES)
        found = set(ids(state))
        assert present <= found
        assert not found & (left - present)
        assert found <= present | before, "nothing comes from nowhere"
        assert guard.deadline(state, RULES) > now
        if not present and before - left:
            held = state[HOST].missing
            assert all(now - missing.since < RULES.hold_empty for missing in held.values())
