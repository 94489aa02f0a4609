"""What edits do to a set of documents."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshlib_control.admin.changes import applied, between, brief, without
from meshlib_control.admin.views import Document

A: Document = {"spec": {"weight": 1}}
B: Document = {"spec": {"weight": 2}}

documents = st.dictionaries(st.sampled_from(["K/ns/a", "K/ns/b", "K/ns/c", "K/ns/d"]), st.sampled_from([A, B]))


def test_each_resource_has_one_action() -> None:
    before = {"K/ns/changed": A, "K/ns/gone": A, "K/ns/same": A, "K/ns/untouched": A}
    after = {"K/ns/changed": B, "K/ns/new": A, "K/ns/same": A, "K/ns/untouched": A}
    actions = {change.resource: change.action for change in between(before, after, also=["K/ns/same"])}
    assert actions == {
        "K/ns/changed": "configured",
        "K/ns/gone": "deleted",
        "K/ns/new": "created",
        "K/ns/same": "unchanged",
    }


@given(documents, documents)
def test_changes_lead_from_one_set_to_the_other(before: dict[str, Document], after: dict[str, Document]) -> None:
    replayed = dict(before)
    for change in between(before, after):
        assert change.before == replayed.get(change.resource)
        if change.after is None:
            del replayed[change.resource]
        else:
            replayed[change.resource] = change.after
    assert replayed == after


@given(documents, documents)
def test_applying_twice_is_applying_once(stored: dict[str, Document], wanted: dict[str, Document]) -> None:
    once = applied(stored, wanted)
    assert between(once, applied(once, wanted)) == []


@given(documents, documents)
def test_what_was_applied_can_be_taken_away(stored: dict[str, Document], wanted: dict[str, Document]) -> None:
    assert without(applied(stored, wanted), wanted) == without(stored, wanted)


def test_brief_changes_carry_no_documents() -> None:
    (change,) = brief(between({}, {"K/ns/a": A}))
    assert (change.resource, change.action, change.before, change.after) == ("K/ns/a", "created", None, None)
