"""Header operations of all levels at once, held against the rules level by level."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from meshlib.flow.alterations import alterations_of
from meshlib.model.call import Call
from meshlib.model.route import (
    Forward,
    HashPolicy,
    HeaderAction,
    HeaderChanges,
    HeaderValue,
    PathMatch,
    Route,
    RouteMatch,
    WeightedCluster,
)
from meshlib.policy.header_mutation import compile_request_edit
from meshlib.policy.matching import header_values, values_of

Pairs = list[tuple[bytes, bytes]]

NAMES = st.sampled_from([b"a", b"b", b"c", b"host", b"x-envoy-original-path"])
VALUES = st.sampled_from([b"1", b"2", b""])
ACTIONS: Sequence[HeaderAction] = ("append", "overwrite", "add_if_absent", "overwrite_if_exists")
HEADERS = st.lists(st.tuples(st.one_of(NAMES, NAMES.map(bytes.upper)), VALUES), max_size=6)


def levels(actions: Sequence[HeaderAction]) -> st.SearchStrategy[list[HeaderChanges]]:
    value = st.builds(HeaderValue, NAMES, VALUES, st.sampled_from(actions), st.booleans())
    added, removed = st.lists(value, max_size=3).map(tuple), st.lists(NAMES, max_size=2).map(tuple)
    return st.lists(st.builds(HeaderChanges, request_add=added, request_remove=removed), min_size=1, max_size=3)


def by_the_rules(headers: Pairs, of: list[HeaderChanges]) -> Pairs:
    """Removals, then what overwrites, then what is added; one level after the other."""
    for level in of:
        headers = [pair for pair in headers if pair[0].lower() not in level.request_remove]
        present = {name.lower() for name, _ in headers}
        overwriting: dict[bytes, bytes] = {}
        added: Pairs = []
        for item in level.request_add:
            if not item.value and not item.keep_empty:
                continue
            if item.action == "overwrite" or (item.action == "overwrite_if_exists" and item.name in present):
                overwriting[item.name] = item.value
            elif item.action == "append" or (item.action == "add_if_absent" and item.name not in present):
                added.append((item.name, item.value))
        headers = [pair for pair in headers if pair[0].lower() not in overwriting]
        headers += [*overwriting.items(), *added]
    return headers


@given(HEADERS, st.one_of(levels(ACTIONS), levels(ACTIONS[:2])))
def test_all_levels_at_once_are_as_one_after_the_other(headers: Pairs, of: list[HeaderChanges]) -> None:
    edit = compile_request_edit(of)
    before = list(headers)
    assert (headers if edit is None else edit(headers)) == by_the_rules(headers, of)
    assert headers == before


@given(HEADERS, st.one_of(levels(ACTIONS), levels(ACTIONS[:2])))
def test_an_edited_request_is_filed_by_name_as_any_other(headers: Pairs, of: list[HeaderChanges]) -> None:
    """Whatever was filed before its route has changed it."""
    action = Forward((WeightedCluster("c"),), prefix_rewrite="/v2", hash_policies=(HashPolicy("header", "a"),))
    host = HeaderChanges(request_add=(HeaderValue(b"z", b"1"),))
    altered = alterations_of(Route("r", RouteMatch(PathMatch("prefix", "/")), action, headers=of[0]), host)
    assert altered is not None
    fresh, filed = Call("GET", "r:80", "/a", headers), Call("GET", "r:80", "/a", headers)
    assert list(values_of(filed, b"a")) == header_values(headers, b"a")
    for call in (fresh, filed):
        altered.apply(call, altered.draw(_NoDice()))
    assert filed.headers == fresh.headers
    for name in (b"a", b"b", b"c", b"host", b"x-envoy-original-path", b"z", b"none"):
        assert list(values_of(filed, name)) == header_values(fresh.headers, name)


class _NoDice:
    """There is one share."""

    def random(self) -> float:
        raise AssertionError

    def randrange(self, stop: int, /) -> int:
        raise AssertionError
