"""By what policies are told apart without evaluating them: paths, values of headers, claims."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, cast

from meshlib.model.route import StringMatch

Subject = tuple[str, ...]
"""What a key is about: ``("path",)``, ``("header", "x-team")``, ``("metadata", filter, *path)``."""

PATH: Subject = ("path",)


class Key(NamedTuple):
    """One value that a request may have."""

    subject: Subject
    kind: Literal["exact", "prefix", "suffix"]
    text: str


Keys = frozenset[Key]
"""A request that has none of them cannot match.  Of nothing: none can."""


def header_subject(name: str) -> Subject:
    return "header", name.lower()


def exact_keys(subject: Subject, matches: Iterable[StringMatch]) -> Keys | None:
    """None when one of `matches` takes more than one value."""
    found = list(matches)
    if any(match.kind != "exact" or match.ignore_case for match in found):
        return None
    return frozenset(Key(subject, "exact", match.value) for match in found)


def path_keys(matches: Iterable[StringMatch]) -> Keys | None:
    """None when one of `matches` may take any path."""
    found = list(matches)
    if any(match.kind in ("contains", "regex") or match.ignore_case or not match.value for match in found):
        return None
    return frozenset(Key(PATH, cast("Literal['exact', 'prefix', 'suffix']", match.kind), match.value) for match in found)


def template_keys(template: str) -> Keys:
    literal = template.partition("*")[0]
    return frozenset({Key(PATH, "prefix", literal) if "*" in template else Key(PATH, "exact", template)})
