"""What is wrong with a resource: all of it at once, each with its field, its value and what was expected."""

from __future__ import annotations

from dataclasses import dataclass

from meshlib.xds.types import SHORT_NAMES

SHOWN_PROBLEMS = 10
"""How many problems a NACK spells out; the rest is counted."""

_SHOWN_VALUE = 120


@dataclass(frozen=True, slots=True)
class Problem:
    """One field that cannot be used.  `field` is a path from the resource: ``virtual_hosts[0].routes[2].match.prefix``."""

    field: str
    value: str
    expected: str

    def __str__(self) -> str:
        return f"{self.field or 'resource'}: {self.value}: expected {self.expected}"


class ResourceInvalid(ValueError):
    """A resource that this data plane cannot use in full.

    Becomes the `error_detail` of a NACK (gRFC A88): the resource is refused by name and the last good version stays.
    `name` is empty when the bytes do not even give one.
    """

    def __init__(self, name: str, type_url: str, problems: tuple[Problem, ...]) -> None:
        shown = "; ".join(str(problem) for problem in problems[:SHOWN_PROBLEMS])
        hidden = len(problems) - SHOWN_PROBLEMS
        more = f"; and {hidden} more" if hidden > 0 else ""
        super().__init__(f"{SHORT_NAMES.get(type_url, type_url)} {name or '(no name)'}: {shown}{more}")
        self.name = name
        self.type_url = type_url
        self.problems = problems


class Problems:
    """Collects while a resource is being read, so that one pass reports everything."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, field: str, value: object, expected: str) -> None:
        """`value` is what the resource says; strings are shown in quotes."""
        self.describe(field, repr(value) if isinstance(value, str | bytes) else str(value), expected)

    def describe(self, field: str, state: str, expected: str) -> None:
        """`state` is in words of our own: "unset", "4 MB"."""
        shown = state if len(state) <= _SHOWN_VALUE else f"{state[:_SHOWN_VALUE]}..."
        self.found.append(Problem(field, shown, expected))

    def __bool__(self) -> bool:
        return bool(self.found)
