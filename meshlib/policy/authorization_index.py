"""Which of many policies a request can be about: they are filed under the paths, header values and claims that they name.

A policy for some paths is looked at only for those, so that the hundredth policy costs what the first does.  Looking one up
gives candidates in the order of the policies; each of them is still evaluated whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from meshlib.model.inbound import Inspection
from meshlib.policy.authorization_keys import PATH, Key, Keys, Subject
from meshlib.policy.authorization_metadata import texts_at
from meshlib.policy.authorization_predicates import Test, header_values

T = TypeVar("T")

FEW = 4
"""So many policies are looked through faster than they are looked up."""


@dataclass(frozen=True, slots=True)
class Entry:
    """`keys` None: it may be about any request."""

    name: str
    test: Test
    keys: Keys | None


FirstMatch = Callable[[Inspection], "str | None"]
"""The name of the first policy that matches."""

Numbers = tuple[int, ...]
Candidates: TypeAlias = "Callable[[Inspection], Numbers]"
"""Places of the policies that name what a request has, in any order, perhaps repeated."""


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


def _lookup(entries: Sequence[Entry]) -> FirstMatch:
    pairs = [(entry.test, entry.name) for entry in entries]
    anywhere = tuple(number for number, entry in enumerate(entries) if entry.keys is None)
    first, *more = _files(entries)
    scan = _scan(pairs)

    def found(inspection: Inspection) -> str | None:
        if inspection.readings is not None:  # it has other paths than the one that it would be looked up by
            return scan(inspection)
        numbers = first(inspection)
        for candidates in more:
            numbers += candidates(inspection)
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


def _files(entries: Sequence[Entry]) -> list[Candidates]:
    """One file for each subject."""
    keyed: dict[Subject, list[tuple[Key, int]]] = {}
    for number, entry in enumerate(entries):
        for key in entry.keys or ():
            keyed.setdefault(key.subject, []).append((key, number))
    return [_by_path(pairs) if subject == PATH else _by_value(subject, pairs) for subject, pairs in keyed.items()]


def _by_path(pairs: Sequence[tuple[Key, int]]) -> Candidates:
    exact = _table([(key.text, number) for key, number in pairs if key.kind == "exact"]).get
    prefixes = _by_length([(key.text, number) for key, number in pairs if key.kind == "prefix"])
    suffixes = _by_length([(key.text, number) for key, number in pairs if key.kind == "suffix"])

    def candidates(inspection: Inspection) -> Numbers:
        path = inspection.path
        numbers = exact(path, ())
        for length, table in prefixes:
            numbers += table.get(path[:length], ())
        for length, table in suffixes:
            numbers += table.get(path[-length:], ())
        return numbers

    return candidates


def _by_value(subject: Subject, pairs: Sequence[tuple[Key, int]]) -> Candidates:
    kind, name, *path = subject
    if kind == "metadata":
        texts, values_of = _table([(key.text, number) for key, number in pairs]), texts_at(name, path)
        return lambda inspection: sum((texts.get(value, ()) for value in values_of(inspection)), ())
    header = name.encode("ascii")
    values = _table([(key.text.encode("utf-8"), number) for key, number in pairs])

    def candidates(inspection: Inspection) -> Numbers:
        found = header_values(inspection, header)
        if len(found) == 1:
            return values.get(found[0], ())
        return sum((values.get(value, ()) for value in found), ())

    return candidates


def _by_length(pairs: Sequence[tuple[str, int]]) -> list[tuple[int, dict[str, Numbers]]]:
    """A path shorter than a text is no text's beginning or end, and is not found under it."""
    lengths = sorted({len(text) for text, _ in pairs})
    return [(length, _table([pair for pair in pairs if len(pair[0]) == length])) for length in lengths]


def _table(pairs: Sequence[tuple[T, int]]) -> dict[T, Numbers]:
    table: dict[T, Numbers] = {}
    for text, number in pairs:
        table[text] = (*table.get(text, ()), number)
    return table
