"""Regular expressions that are only globs, such as those that Istio makes of principals, namespaces and service accounts.

They are taken apart once and compared piece by piece, with exactly the meaning of the expression: literal text, gaps of
anything (``.*``, ``.+``) or of one segment (``[^/]*``, ``[^/]+``), and groups of alternatives, ``(a|b)`` and ``(a)?``.
Whatever else an expression has in it is left to RE2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import AnyStr

_SPECIAL = frozenset(".*+?()[]{}|^$\\")
_MAX_ALTERNATIVES = 16


@dataclass(frozen=True, slots=True)
class Gap:
    """`least` (0 or 1) characters or more; `segment`: none of them a slash."""

    least: int
    segment: bool


Glob = tuple["str | Gap", ...]
"""Literal text and gaps by turns, beginning and ending with text (which may be empty)."""

_GAPS = {
    ".*": Gap(0, segment=False),
    ".+": Gap(1, segment=False),
    "[^/]*": Gap(0, segment=True),
    "[^/]+": Gap(1, segment=True),
}


def parse_globs(pattern: str) -> tuple[Glob, ...] | None:
    """The globs that match what `pattern` matches as a whole; None when it is more than that."""
    found = _alternatives(pattern, 0)
    if found is None or found[1] != len(pattern):
        return None
    globs = tuple(_joined(pieces) for pieces in found[0])
    return None if any(glob is None for glob in globs) else tuple(glob for glob in globs if glob is not None)


def compile_glob(glob: Glob, encode: Callable[[str], AnyStr]) -> Callable[[AnyStr], bool]:
    """A full match.  No value may have a line feed in it: the dot of a regular expression does not match that."""
    first, last = encode(str(glob[0])), encode(str(glob[-1]))
    if len(glob) == 1:
        return first.__eq__
    gaps = [gap for gap in glob[1::2] if isinstance(gap, Gap)]
    texts = [encode(str(text)) for text in glob[2::2]]
    least = sum(gap.least for gap in gaps)
    shortest = len(first) + least + sum(map(len, texts))
    slash = encode("/")
    if len(gaps) == 1 and not gaps[0].segment:
        return lambda value: len(value) >= shortest and value.startswith(first) and value.endswith(last)

    steps = list(zip(gaps[:-1], texts[:-1], strict=True))
    final = gaps[-1]

    def matches(value: AnyStr) -> bool:
        if len(value) < shortest or not value.startswith(first) or not value.endswith(last):
            return False
        position, end = len(first), len(value) - len(last)
        for gap, text in steps:  # the leftmost place leaves the most room for the rest
            found = value.find(text, position + gap.least, end)
            if found < 0 or (gap.segment and slash in value[position:found]):
                return False
            position = found + len(text)
        return end - position >= final.least and not (final.segment and slash in value[position:end])

    return matches


def _alternatives(pattern: str, at: int) -> tuple[list[list[str | Gap]], int] | None:
    """What is between `at` and the end of the pattern or an unmatched ``)`` or ``|``-separated end of it."""
    done: list[list[str | Gap]] = []
    current: list[list[str | Gap]] = [[]]
    while at < len(pattern) and pattern[at] != ")":
        if pattern[at] == "|":
            done, current, at = done + current, [[]], at + 1
            continue
        piece = _piece(pattern, at)
        if piece is None:
            return None
        options, at = piece
        current = [[*before, *option] for before in current for option in options]
        if len(current) + len(done) > _MAX_ALTERNATIVES:
            return None
    return done + current, at


def _piece(pattern: str, at: int) -> tuple[list[list[str | Gap]], int] | None:
    """One literal character, gap or group, and where it ends."""
    for text, gap in _GAPS.items():
        if pattern.startswith(text, at):
            return _unrepeated(pattern, [[gap]], at + len(text))
    if pattern[at] == "(":
        inner = _alternatives(pattern, at + 1)
        if inner is None or not pattern.startswith(")", inner[1]):
            return None
        options, at = inner[0], inner[1] + 1
        if pattern.startswith("?", at):
            options, at = [*options, []], at + 1
        return _unrepeated(pattern, options, at)
    if pattern[at] == "\\":
        literal = pattern[at + 1 : at + 2]
        if not literal or literal.isalnum() or not literal.isascii():  # \d, \pL ...
            return None
        return _unrepeated(pattern, [[literal]], at + 2)
    return None if pattern[at] in _SPECIAL else _unrepeated(pattern, [[pattern[at]]], at + 1)


def _unrepeated(pattern: str, options: list[list[str | Gap]], at: int) -> tuple[list[list[str | Gap]], int] | None:
    return None if at < len(pattern) and pattern[at] in "*+?{" else (options, at)


def _joined(pieces: list[str | Gap]) -> Glob | None:
    """Neighbours put together; None for gaps whose leftmost end need not be the right one."""
    glob: list[str | Gap] = [""]
    anything = False
    for piece in pieces:
        last = glob[-1]
        if isinstance(piece, str):
            if isinstance(last, str):
                glob[-1] = last + piece
            else:
                glob.append(piece)
            continue
        if isinstance(last, Gap):
            if last.segment != piece.segment or last.least + piece.least > 1:
                return None  # two characters or more: how many bytes those are depends on how one reads them
            glob[-1] = Gap(last.least + piece.least, piece.segment)
        else:
            if piece.segment and anything:
                return None
            anything = anything or not piece.segment
            glob.append(piece)
    if isinstance(glob[-1], Gap):
        glob.append("")
    return tuple(glob)
