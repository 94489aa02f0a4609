"""The state that replicas share: its steps, and that nobody but them can write it."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from meshlib_control.ca import state
from meshlib_control.ca.errors import CaError, KeyUnusable, RotationRefused
from meshlib_control.ca.keys import Sealed
from meshlib_control.ca.state import ACTIVATE, REVOKE, TAINT, Authority, CaState, Phase, Step
from tests.support.authority import TRUST_DOMAIN, new_kek

SEALED = Sealed("kek", 1, b"box")


def authority(name: str, phase: Phase = Phase.ACTIVE) -> Authority:
    return Authority(name * 64, phase, 1.0, f"root {name}", (f"chain {name}",), SEALED, SEALED)


FIRST = CaState("lineage", TRUST_DOMAIN, 1, (authority("a"),))
PREPARED = state.prepared(FIRST, authority("b", Phase.PREPARED))
ACTIVATED = state.stepped(PREPARED, ACTIVATE, 2.0)
TAINTED = state.stepped(ACTIVATED, TAINT, 3.0)
REVOKED = state.stepped(TAINTED, REVOKE, 4.0)


def phases(current: CaState) -> dict[str, str]:
    return {each.id[0]: str(each.phase) for each in current.authorities}


def test_a_rotation_takes_four_steps() -> None:
    assert [phases(each) for each in (FIRST, PREPARED, ACTIVATED, TAINTED, REVOKED)] == [
        {"a": "active"},
        {"a": "active", "b": "prepared"},
        {"a": "old", "b": "active"},
        {"a": "tainted", "b": "active"},
        {"b": "active"},
    ]
    assert [each.epoch for each in (FIRST, PREPARED, ACTIVATED, TAINTED, REVOKED)] == [1, 2, 3, 4, 5]
    assert {each.lineage for each in (FIRST, PREPARED, ACTIVATED, TAINTED, REVOKED)} == {"lineage"}


def test_both_roots_are_trusted_in_between_and_a_taint_puts_the_old_one_last() -> None:
    orders = [[each.id[0] for each in current.trusted] for current in (FIRST, PREPARED, ACTIVATED, TAINTED, REVOKED)]
    assert orders == [["a"], ["a", "b"], ["a", "b"], ["b", "a"], ["b"]]


def test_a_step_notes_when_it_was_taken() -> None:
    assert {each.id[0]: each.since for each in ACTIVATED.authorities} == {"a": 2.0, "b": 2.0}
    assert {each.id[0]: each.since for each in TAINTED.authorities} == {"a": 3.0, "b": 2.0}


@pytest.mark.parametrize(
    ("current", "step"),
    [
        (FIRST, ACTIVATE), (FIRST, TAINT), (FIRST, REVOKE),
        (PREPARED, TAINT), (PREPARED, REVOKE),
        (ACTIVATED, ACTIVATE), (ACTIVATED, REVOKE),
        (TAINTED, ACTIVATE), (TAINTED, TAINT),
        (REVOKED, ACTIVATE), (REVOKED, TAINT), (REVOKED, REVOKE),
    ],
    ids=lambda each: each.name if isinstance(each, Step) else f"epoch {each.epoch}",
)  # fmt: skip
def test_steps_out_of_order_are_refused(current: CaState, step: Step) -> None:
    with pytest.raises(RotationRefused, match=f"cannot {step.name}.*no root is {step.before}.* first"):
        state.stepped(current, step, 9.0)


@pytest.mark.parametrize("current", [PREPARED, ACTIVATED, TAINTED], ids=lambda each: f"epoch {each.epoch}")
def test_one_rotation_at_a_time(current: CaState) -> None:
    with pytest.raises(RotationRefused, match="another rotation is under way"):
        state.prepared(current, authority("c", Phase.PREPARED))


def test_a_root_does_not_replace_itself() -> None:
    with pytest.raises(RotationRefused, match="is the one in use"):
        state.prepared(FIRST, authority("a", Phase.PREPARED))


def test_a_renewed_signing_certificate_is_that_of_its_authority_alone() -> None:
    changed = state.renewed(ACTIVATED, "b" * 64, ("new chain",), SEALED)
    assert [each.chain for each in changed.authorities] == [("chain a",), ("new chain",)]
    assert changed.epoch == ACTIVATED.epoch + 1


def test_what_is_stored_is_read_again() -> None:
    kek = new_kek()
    assert state.decoded(state.encoded(TAINTED, kek), kek) == TAINTED


def test_a_root_cannot_be_slipped_in() -> None:
    """Who can write to the store, but does not have the key, cannot make the mesh trust a root of his."""
    kek = new_kek()
    stored = json.loads(state.encoded(FIRST, kek))
    stored["state"]["authorities"][0]["root"] = "root of somebody else"
    with pytest.raises(KeyUnusable, match="changed, moved or cut short"):
        state.decoded(json.dumps(stored).encode(), kek)


def test_a_state_of_another_key_is_called_that() -> None:
    with pytest.raises(KeyUnusable, match="does not open"):
        state.decoded(state.encoded(FIRST, new_kek()), new_kek())


@pytest.mark.parametrize("value", [b"", b"{}", b"null", b"\xff", b'{"format": "x"}'])
def test_what_is_no_state_is_damaged(value: bytes) -> None:
    with pytest.raises(CaError, match=r"cannot be read.*damaged"):
        state.decoded(value, new_kek())


def test_a_newer_format_is_not_guessed_at() -> None:
    kek = new_kek()
    stored = json.loads(state.encoded(FIRST, kek))
    with pytest.raises(CaError, match="format 2, and this version knows 1"):
        state.decoded(json.dumps({**stored, "format": 2}).encode(), kek)


def test_the_private_keys_have_places_of_their_own() -> None:
    assert state.key_path(b"one") != state.key_path(b"two")
    assert replace(SEALED, version=2) != SEALED
