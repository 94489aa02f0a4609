"""Which of many policies a request can be about: they are filed under the paths that they name.

A policy for some paths is looked at only for those, so that the hundredth policy costs what the first does.  Looking one up
gives candidates in the order of the policies; each of them is still evaluated whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from meshlib.model.inbound import Inspection
from meshlib.policy.authorization_predicates import Test
from meshlib.policy.authorization_tree import PathKeys

FEW = 4
"""So many policies are looked through faster than they are looked up."""


@dataclass(frozen=True, slots=True)
class Entry:
    """`keys` None: it may be about any path."""

    name: str
    test: Test
    keys: PathKeys | None


FirstMatch = Callable[[Inspection], "str | None"]
"""The name of the first policy that matches."""


def first_match(entries: Sequence[Entry]) -> FirstMatch:
    """One function over all of `entries`."""
    if sum(entry.keys is not None for entry in entries) <= FEW:
        return _scan([(entry.test, entry.name) for entry in entries])
    return _lookup(entries)


def _scan(pairs: Sequence[tuple[Test, str]]) -> FirstMatch:
    if not pairs:
        return lambda inspection: None

    def found(inspection: Inspection) -> str | None:
        for test, name in pairs:
            if test(inspection):
                return name
        return None

    return found


_Table = dict[str, tuple[int, ...]]


def _lookup(entries: Sequence[Entry]) -> FirstMatch:
    pairs = [(entry.test, entry.name) for entry in entries]
    anywhere = tuple(number for number, entry in enumerate(entries) if entry.keys is None)
    exact = _table(entries, "exact", None).get
    prefixes = [(length, _table(entries, "prefix", length).get) for length in _lengths(entries, "prefix")]
    suffixes = [(length, _table(entries, "suffix", length).get) for length in _lengths(entries, "suffix")]

    def found(inspection: Inspection) -> str | None:
        path = inspection.path
        numbers = exact(path, ())
        for length, prefix in prefixes:
            numbers += prefix(path[:length], ())
        for length, suffix in suffixes:
            numbers += suffix(path[-length:], ())
        if not numbers:
            numbers = anywhere
        elif anywhere or len(numbers) > 1:
            numbers = tuple(sorted({*numbers, *anywhere}))
        for number in numbers:
            test, name = pairs[number]
            if test(inspection):
                return name
        return None

    return found


def _lengths(entries: Iterable[Entry], kind: str) -> list[int]:
    return sorted({len(text) for entry in entries for of, text in entry.keys or () if of == kind})


def _table(entries: Sequence[Entry], kind: str, length: int | None) -> _Table:
    """Policies by key; `length`: only keys that are so long.  A path shorter than a key is no key's beginning or end."""
    table: _Table = {}
    for number, entry in enumerate(entries):
        for of, text in sorted(entry.keys or ()):
            if of == kind and (length is None or len(text) == length):
                table[text] = (*table.get(text, ()), number)
    return table
