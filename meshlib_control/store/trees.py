"""The values of the configuration repository and their bytes.  Pure.

As in git: a document is an object named by its SHA-256, a revision is a tree of such names, and one small value, the
head, says which trees there are.  Only the head ever changes, and it changes by compare-and-set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from meshlib_control.errors import StoreError

Document = Mapping[str, Any]

HEAD = "config/head"
OBJECTS = "config/objects/"
TREES = "config/trees/"


@dataclass(frozen=True, slots=True)
class Changes:
    """What an apply does, all or nothing.  Keys are "Kind/namespace/name"."""

    puts: Mapping[str, Document] = field(default_factory=dict)
    deletes: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Blob:
    """Where a tree points: the document's SHA-256, and the revision that first stored its key."""

    sha256: str
    created: int


@dataclass(frozen=True, slots=True)
class Tree:
    """One revision.  `time` is in seconds since the epoch; `rolled_back_to` is 0 but after a rollback."""

    revision: int
    parent: int
    author: str
    message: str
    time: float
    entries: Mapping[str, Blob] = field(default_factory=dict)
    added: int = 0
    changed: int = 0
    removed: int = 0
    rolled_back_to: int = 0


@dataclass(frozen=True, slots=True)
class Head:
    """`trees` maps the revisions that are kept to the SHA-256 of their tree; the newest is the current one."""

    trees: Mapping[int, str] = field(default_factory=dict)

    @property
    def revision(self) -> int:
        return max(self.trees, default=0)


def tree_key(revision: int, sha256: str) -> str:
    """The hash is part of the key: two writers that race for a revision never write over each other's tree."""
    return f"{TREES}{revision}/{sha256}"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def document_bytes(key: str, document: Document) -> bytes:
    """Canonical JSON: equal documents have equal bytes.  Raises `StoreError` for what JSON cannot say."""
    try:
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"{key} cannot be stored as JSON: {error}") from error


def tree_bytes(tree: Tree, nonce: str) -> bytes:
    """`nonce` makes two writers' trees differ even when they do the same, so that the head tells who of them won."""
    fields = {name: getattr(tree, name) for name in ("revision", "parent", "author", "message", "time")}
    fields |= {name: getattr(tree, name) for name in ("added", "changed", "removed", "rolled_back_to")}
    entries = {key: [blob.sha256, blob.created] for key, blob in tree.entries.items()}
    return document_bytes(f"{TREES}{tree.revision}", fields | {"entries": entries, "nonce": nonce})


def read_tree(key: str, content: bytes) -> Tree:
    fields = _json(key, content)
    fields.pop("nonce", None)
    try:
        entries = {name: Blob(str(blob[0]), int(blob[1])) for name, blob in fields.pop("entries").items()}
        return Tree(**fields, entries=entries)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{key} is corrupt: {error!r}") from error


def head_bytes(head: Head) -> bytes:
    return document_bytes(HEAD, {"trees": {str(revision): name for revision, name in head.trees.items()}})


def read_head(content: bytes) -> Head:
    try:
        return Head({int(revision): str(name) for revision, name in _json(HEAD, content)["trees"].items()})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{HEAD} is corrupt: {error!r}") from error


def grown(parent: Tree, entries: Mapping[str, Blob], **fields: Any) -> Tree:
    """The tree that follows `parent`, with the counts of what differs."""
    common = parent.entries.keys() & entries.keys()
    return Tree(
        revision=parent.revision + 1,
        parent=parent.revision,
        entries=entries,
        added=len(entries.keys() - common),
        changed=sum(parent.entries[key].sha256 != entries[key].sha256 for key in common),
        removed=len(parent.entries.keys() - common),
        **fields,
    )


def advanced(head: Head, revision: int, name: str, keep: int) -> Head:
    """The head with one more tree, and without those that are older than the last `keep`."""
    kept = sorted([*head.trees, revision])[-keep:]
    return Head({number: name if number == revision else head.trees[number] for number in kept})


def _json(key: str, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise StoreError(f"{key} is corrupt: {error}") from error
    if not isinstance(value, dict):
        raise StoreError(f"{key} is corrupt: expected a JSON object")
    return value
