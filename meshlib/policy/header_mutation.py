"""Header operations of a route and its levels, as Envoy's router evaluates them (``HeaderParser``).

Level after level, the most specific first, so the least specific has the last word.  Within one level names are removed first;
then what overwrites is applied, then what is added.  An added header is another line, never joined to one that is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from meshlib.model.call import Headers
from meshlib.model.route import HeaderChanges, HeaderValue

HeaderEdit = Callable[[Headers], list[tuple[bytes, bytes]]]
"""New header pairs from old ones, which stay as they are."""

_Level = tuple[frozenset[bytes], tuple[HeaderValue, ...]]


def compile_request_edit(levels: Iterable[HeaderChanges]) -> HeaderEdit | None:
    """`levels`: the most specific first.  None: nothing is changed."""
    return _compile((frozenset(level.request_remove), level.request_add) for level in levels)


def compile_response_edit(levels: Iterable[HeaderChanges]) -> HeaderEdit | None:
    """The same for responses."""
    return _compile((frozenset(level.response_remove), level.response_add) for level in levels)


def _compile(levels: Iterable[_Level]) -> HeaderEdit | None:
    effective = [(removed, tuple(item for item in added if item.value or item.keep_empty)) for removed, added in levels]
    kept = tuple(level for level in effective if level[0] or level[1])
    if not kept:
        return None

    def edit(headers: Headers) -> list[tuple[bytes, bytes]]:
        pairs = list(headers)
        for removed, added in kept:
            if removed:
                pairs = [pair for pair in pairs if pair[0].lower() not in removed]
            if added:
                pairs = _added(pairs, added)
        return pairs

    return edit


def _added(pairs: list[tuple[bytes, bytes]], items: tuple[HeaderValue, ...]) -> list[tuple[bytes, bytes]]:
    present = {name.lower() for name, _ in pairs}
    replaced: dict[bytes, bytes] = {}  # of two for one name the later one holds
    appended: list[tuple[bytes, bytes]] = []
    for item in items:
        if item.action == "overwrite" or (item.action == "overwrite_if_exists" and item.name in present):
            replaced[item.name] = item.value
        elif item.action == "append" or (item.action == "add_if_absent" and item.name not in present):
            appended.append((item.name, item.value))
    if not replaced.keys().isdisjoint(present):
        pairs = [pair for pair in pairs if pair[0].lower() not in replaced]
    return [*pairs, *replaced.items(), *appended]
