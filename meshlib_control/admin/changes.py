"""What an edit does to a set of documents.  Pure; documents by their key ``Kind/namespace/name``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshlib_control.admin.views import Action, Change, Document

Documents = Mapping[str, Document]


def applied(stored: Documents, wanted: Documents) -> dict[str, Document]:
    """`stored` with `wanted` put over it, resource by resource."""
    return {**stored, **wanted}


def without(stored: Documents, keys: Iterable[str]) -> dict[str, Document]:
    gone = frozenset(keys)
    return {key: document for key, document in stored.items() if key not in gone}


def between(before: Documents, after: Documents, *, also: Iterable[str] = ()) -> list[Change]:
    """What happened to each resource, in order of key; those of `also` are listed even when they are unchanged."""
    named = frozenset(also)
    changes = []
    for key in sorted(before.keys() | after.keys()):
        action = _action(before.get(key), after.get(key))
        if action != "unchanged" or key in named:
            changes.append(Change(resource=key, action=action, before=before.get(key), after=after.get(key)))
    return changes


def brief(changes: Iterable[Change]) -> list[Change]:
    """Without the documents, for answers that need not repeat them."""
    return [Change(resource=change.resource, action=change.action) for change in changes]


def _action(before: Document | None, after: Document | None) -> Action:
    if before is None:
        return "created"
    if after is None:
        return "deleted"
    return "unchanged" if before == after else "configured"
