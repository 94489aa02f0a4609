"""Header operations of a route and its levels, as Envoy's router evaluates them (``HeaderParser``).

Level after level, the most specific first, so the least specific has the last word.  Within one level names are removed first;
then what overwrites is applied, then what is added.  An added header is another line, never joined to one that is there.

Nearly all operations are the same whatever headers they meet: those of all levels together are one set of names that go and
one list of headers that come last.  Only what asks for a header's presence has to be evaluated level by level.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from meshlib.model.call import Headers
from meshlib.model.route import HeaderChanges, HeaderValue

Pairs = list[tuple[bytes, bytes]]


class HeaderEdit(Protocol):
    """New header pairs from old ones, which stay as they are."""

    def __call__(self, headers: Headers, names: Iterable[bytes] | None = None, /) -> Pairs:
        """`names`: of these headers in lower case, where somebody has them at hand."""
        ...


_Level = tuple[frozenset[bytes], tuple[HeaderValue, ...]]


def compile_request_edit(levels: Iterable[HeaderChanges], without: frozenset[bytes] = frozenset()) -> HeaderEdit | None:
    """`levels`: the most specific first; `without`: names that are gone in the end, whatever those say.

    None: nothing is changed.
    """
    return _compile([*((frozenset(level.request_remove), level.request_add) for level in levels), (without, ())])


def compile_response_edit(levels: Iterable[HeaderChanges]) -> HeaderEdit | None:
    """The same for responses."""
    return _compile((frozenset(level.response_remove), level.response_add) for level in levels)


def _compile(levels: Iterable[_Level]) -> HeaderEdit | None:
    effective = [(removed, tuple(item for item in added if item.value or item.keep_empty)) for removed, added in levels]
    kept = tuple(level for level in effective if level[0] or level[1])
    if not kept:
        return None
    if all(item.action in ("append", "overwrite") for _, added in kept for item in added):
        return _folded(kept)

    def edit(headers: Headers, names: Iterable[bytes] | None = None, /) -> Pairs:
        pairs = list(headers)
        for removed, added in kept:
            if removed:
                pairs = [pair for pair in pairs if pair[0].lower() not in removed]
            if added:
                pairs = _added(pairs, added)
        return pairs

    return edit


def _folded(levels: Sequence[_Level]) -> HeaderEdit:
    """All levels at once."""
    gone: frozenset[bytes] = frozenset()
    tail: Pairs = []
    for removed, added in levels:
        replaced = frozenset(item.name for item in added if item.action == "overwrite")
        gone |= removed | replaced
        tail = _added([pair for pair in tail if pair[0].lower() not in removed], added)
    last = tuple(tail)
    if not gone:
        return lambda headers, names=None, /: [*headers, *last]

    def edit(headers: Headers, names: Iterable[bytes] | None = None, /) -> Pairs:
        if names is not None and gone.isdisjoint(names):
            return [*headers, *last]
        kept = [pair for pair in headers if pair[0].lower() not in gone]
        kept += last
        return kept

    return edit


def _added(pairs: Pairs, items: tuple[HeaderValue, ...]) -> Pairs:
    present = {name.lower() for name, _ in pairs}
    replaced: dict[bytes, bytes] = {}  # of two for one name the later one holds
    appended: Pairs = []
    for item in items:
        if item.action == "overwrite" or (item.action == "overwrite_if_exists" and item.name in present):
            replaced[item.name] = item.value
        elif item.action == "append" or (item.action == "add_if_absent" and item.name not in present):
            appended.append((item.name, item.value))
    if not replaced.keys().isdisjoint(present):
        pairs = [pair for pair in pairs if pair[0].lower() not in replaced]
    return [*pairs, *replaced.items(), *appended]
