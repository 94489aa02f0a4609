"""What the kinds share: the root of their structs, scalar types with limits, and elements that several kinds use.

Conventions of every kind: the attribute is the snake_case form of the YAML field; an optional scalar or object that is absent
is None (an enum has Istio's default instead), an absent list is (), an absent map is {}; durations are seconds.
The string below a field is its description in docs/configuration.md.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta, Struct
from msgspec import inspect as types

Duration = Annotated[float, Meta(ge=0.001, extra={"format": "duration"})]
"""Seconds, at least a millisecond.  Written as in Go: "1.5s", "10ms", "1h", "1m30s"."""

DurationOrZero = Annotated[float, Meta(ge=0, extra={"format": "duration"})]
"""As `Duration`, where "0s" has a meaning."""


def is_duration(info: types.Type) -> bool:
    """Whether a field of this type is a `Duration` or a `DurationOrZero`, optional or not."""
    match info:
        case types.Metadata():
            return (info.extra or {}).get("format") == "duration"
        case types.UnionType():
            return any(is_duration(item) for item in info.types)
        case _:
            return False


Bytes = Annotated[str, Meta(extra={"format": "base64"})]

UInt32 = Annotated[int, Meta(ge=0, le=4_294_967_295)]
Int32 = Annotated[int, Meta(ge=-2_147_483_648, le=2_147_483_647)]
UInt64 = Annotated[int, Meta(ge=0)]


class Element(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Root of every struct of a kind: immutable, camelCase in YAML, unknown fields are errors.

    Of the fields in each group of `at_most_one` (by their YAML names) a document may set one.
    """

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = ()


class StringMatch(Element, frozen=True):
    """At most one of the three; none means that the value is present, whatever it is."""

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("exact", "prefix", "regex"),)

    exact: str | None = None
    """The whole value, as it is."""
    prefix: str | None = None
    """What the value starts with."""
    regex: str | None = None
    """An RE2 expression that matches the whole value; at most 1024 characters."""


class PortSelector(Element, frozen=True):
    """A port of a host, by number."""

    number: UInt32 = 0
    """1 to 65535; has to be given."""


class Destination(Element, frozen=True):
    """Where requests go: a host of the catalog, optionally one of its subsets and ports."""

    host: str
    """A name of the catalog. A short name is completed with the namespace of the resource that holds it."""
    subset: str | None = None
    """A subset that a DestinationRule of the host defines."""
    port: PortSelector | None = None
    """Which port of the host; needed only when the host has several."""


class Percent(Element, frozen=True):
    """A share of 100."""

    value: float = 0.0
    """0 to 100."""


class PolicyTargetReference(Element, frozen=True):
    """A resource that a policy is attached to."""

    kind: Annotated[str, Meta(max_length=63)]
    """Its kind."""
    name: Annotated[str, Meta(max_length=253)]
    """Its name."""
    group: Annotated[str, Meta(max_length=253)] = ""
    """Its API group."""
    namespace: str = ""
    """Has to be left out: it is that of the policy."""
