"""Header operations of a route and its levels, as Envoy's router evaluates them (``HeaderParser``).

Level after level, the most specific first, so the least specific has the last word.  Within one level names are removed first;
then what overwrites is applied, then what is added.  An added header is another line, never joined to one that is there.

Nearly all operations are the same whatever headers they meet: those of all levels together are one set of names that go and
one list of headers that come last.  Only what asks for a header's presence has to be evaluated level by level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from meshlib.model.call import Headers
from meshlib.model.route import HeaderChanges, HeaderValue

Pairs = list[tuple[bytes, bytes]]


HeaderEdit = Callable[[Headers], Pairs]
"""New header pairs from old ones, which stay as they are."""


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
        return FoldedEdit(kept)

    def edit(headers: Headers) -> Pairs:
        pairs = list(headers)
        for removed, added in kept:
            if removed:
                pairs = [pair for pair in pairs if pair[0].lower() not in removed]
            if added:
                pairs = _added(pairs, added)
        return pairs

    return edit


class FoldedEdit:
    """All levels at once: names that are `gone`, in lower case, and the headers that come last."""

    __slots__ = ("fields", "gone", "tail")

    def __init__(self, levels: Sequence[_Level]) -> None:
        gone: frozenset[bytes] = frozenset()
        tail: Pairs = []
        for removed, added in levels:
            gone |= removed | {item.name for item in added if item.action == "overwrite"}
            tail = _added([pair for pair in tail if pair[0].lower() not in removed], added)
        self.gone = gone
        self.tail = tuple(tail)
        self.fields = {name.lower(): value for name, value in tail}

    def __call__(self, headers: Headers) -> Pairs:
        gone = self.gone
        kept = [pair for pair in headers if pair[0].lower() not in gone] if gone else [*headers]
        kept += self.tail
        return kept


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
