"""The versioned configuration: atomic changes of many resources over a store that can compare and set one key.

What makes it atomic: objects and trees are named by their content and written first, where nobody looks for them; then
one compare-and-set of the head makes the whole revision visible, or does nothing.  Replicas over one store need no other
agreement.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import cast

import tenacity

from meshlib_control.errors import Conflict, StoreError
from meshlib_control.store.large import read_large, write_large
from meshlib_control.store.model import Entry, Store
from meshlib_control.store.objects import Objects
from meshlib_control.store.trees import (
    HEAD,
    OBJECTS,
    TREES,
    Blob,
    Changes,
    Document,
    Head,
    Tree,
    advanced,
    document_bytes,
    grown,
    head_bytes,
    read_head,
    read_tree,
    sha256,
    tree_bytes,
    tree_key,
)

log = logging.getLogger(__name__)

NOTHING = Tree(revision=0, parent=0, author="", message="", time=0.0)
Next = Callable[[Head, Tree], Awaitable[Tree | None]]


@dataclass(frozen=True, slots=True)
class RevisionContent:
    """A revision with its documents.  `created` maps each key to the revision that first stored it."""

    revision: int = 0
    documents: Mapping[str, Document] = field(default_factory=dict)
    created: Mapping[str, int] = field(default_factory=dict)
    author: str = ""
    message: str = ""
    time: float = 0.0


@dataclass(frozen=True, slots=True)
class Revision:
    """A line of the history.  `time` in seconds since the epoch."""

    revision: int
    parent: int
    author: str
    message: str
    time: float
    resources: int
    added: int
    changed: int
    removed: int
    rolled_back_to: int  # 0: this was no rollback


@dataclass(frozen=True, slots=True)
class Difference:
    """One key between two revisions; None on the side where it is not."""

    key: str
    before: Document | None
    after: Document | None


class Revisions:
    """The last `keep` revisions over a store.  All methods raise `StoreError` when the store cannot be reached."""

    def __init__(self, store: Store, *, keep: int = 100, retry: float = 1.0) -> None:
        self._store = store
        self._keep = max(1, keep)
        self._retry = retry  # seconds between attempts to read a revision that cannot be read
        self._objects = Objects(store)
        self._applying = asyncio.Lock()  # spares the writers of this process the conflicts among themselves
        self.suspicious = ""  # why `watch` keeps an older content than the store's; empty: it does not

    async def head(self) -> int:
        """The current revision; 0 before the first."""
        return (await self._head())[0].revision

    async def read(self, revision: int | None = None) -> RevisionContent:
        """A revision with its documents, the current one by default; 0 is always there, and empty."""
        head, _ = await self._head()
        return await self._content(await self._tree(head, head.revision if revision is None else revision))

    async def apply(self, changes: Changes, *, expect: int | None, author: str, message: str, now: float) -> int:
        """Store all of the changes, or none, and return the new revision; the current one when nothing differs.

        `expect`: the revision that the changes were made against; raises `Conflict` when it is not the current one.
        None: retried over whatever is current.  `now` in seconds since the epoch.
        """
        contents = {key: document_bytes(key, document) for key, document in changes.puts.items()}
        names = {key: sha256(content) for key, content in contents.items()}

        async def following(_: Head, parent: Tree) -> Tree | None:
            entries = {key: blob for key, blob in parent.entries.items() if key not in changes.deletes}
            for key, name in names.items():
                entries[key] = Blob(name, entries[key].created if key in entries else parent.revision + 1)
            if entries == parent.entries:
                return None
            await self._objects.write({names[key]: content for key, content in contents.items()})
            return grown(parent, entries, author=author, message=message, time=now)

        return await self._commit(following, expect)

    async def rollback(self, revision: int, *, expect: int | None, author: str, message: str, now: float) -> int:
        """A new revision with the content of an old one, ages of the resources included."""

        async def following(head: Head, parent: Tree) -> Tree | None:
            old = await self._tree(head, revision)
            if old.entries == parent.entries:
                return None
            documents = await self._objects.load(blob.sha256 for blob in old.entries.values())
            await self._objects.write({name: document_bytes(name, document) for name, document in documents.items()})
            return grown(parent, old.entries, author=author, message=message, time=now, rolled_back_to=revision)

        return await self._commit(following, expect)

    async def history(self, limit: int = 50) -> list[Revision]:
        """Newest first, as far back as revisions are kept."""
        head, _ = await self._head()
        return [_line(await self._tree(head, revision)) for revision in sorted(head.trees, reverse=True)[:limit]]

    async def diff(self, before: int, after: int) -> list[Difference]:
        """What changes from one revision to another, ordered by key."""
        head, _ = await self._head()
        old, new = _names(await self._tree(head, before)), _names(await self._tree(head, after))
        keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        documents = await self._objects.load(name for names in (old, new) for key in keys if (name := names.get(key)))
        return [Difference(key, documents.get(old.get(key, "")), documents.get(new.get(key, ""))) for key in keys]

    async def watch(self) -> AsyncIterator[RevisionContent]:
        """The current revision, and each one that follows (several at once may come as the last of them).

        A head that is gone or unreadable after there was one is an accident of the store, not an order to forget
        everything: what was yielded last stays true, and `suspicious` says why.
        """
        current: RevisionContent | None = None
        with suppress(StoreError, Conflict):
            await self._begin()
        heads = cast(AsyncGenerator[list[Entry], None], self._store.watch(HEAD))
        async with aclosing(heads):
            async for found in heads:
                if not found and current is not None and current.revision:
                    self._suspect(f"{HEAD} has vanished from the store; revision {current.revision} is kept")
                    continue
                content = await self._readable()
                if content != current:
                    current = content
                    yield content

    async def prune(self) -> int:
        """Delete what no kept revision points to; returns how many keys.

        Safe beside writers: the head is written once between listing and deleting, so whoever began before that has to
        begin again, and an object that was written after the listing has another revision than the one deleted.
        """
        listed = [*await self._store.scan(OBJECTS), *await self._store.scan(TREES)]
        head, at = await self._head()
        if not at:
            return 0
        used = await self._used(head)
        try:
            await self._store.put(HEAD, head_bytes(head), expect=at)
        except Conflict:
            return 0  # somebody is writing: another time
        deleted = 0
        for entry in listed:
            if entry.key.partition(".")[0] in used:
                continue
            try:
                await self._store.delete(entry.key, expect=entry.revision)
            except Conflict:
                continue  # written since it was listed: somebody needs it
            deleted += 1
        return deleted

    async def _begin(self) -> None:
        """Write the head of nothing if there is none.

        Consul answers a query for a key that does not exist whenever any other key changes.  Such answers without news are
        rationed, so the first revision would be noticed seconds late.
        """
        if await self._store.get(HEAD) is None:
            await self._store.put(HEAD, head_bytes(Head()), expect=0)

    async def _head(self) -> tuple[Head, int]:
        """The head, and the store's revision of it."""
        entry = await self._store.get(HEAD)
        return (read_head(entry.value), entry.revision) if entry else (Head(), 0)

    async def _tree(self, head: Head, revision: int) -> Tree:
        if revision == 0:
            return NOTHING
        name = head.trees.get(revision)
        if name is None:
            kept = f"kept are {min(head.trees)} to {head.revision}" if head.trees else "there are none yet"
            raise StoreError(f"there is no revision {revision}; {kept}")
        key = tree_key(revision, name)
        content = await read_large(self._store, key)
        if content is None or sha256(content) != name:
            raise StoreError(f"revision {revision} is damaged: {key} is {'missing' if content is None else 'corrupt'}")
        return read_tree(key, content)

    async def _content(self, tree: Tree) -> RevisionContent:
        loaded = await self._objects.load(blob.sha256 for blob in tree.entries.values())
        self._objects.remember(loaded)
        return RevisionContent(
            revision=tree.revision,
            documents={key: loaded[blob.sha256] for key, blob in tree.entries.items()},
            created={key: blob.created for key, blob in tree.entries.items()},
            author=tree.author,
            message=tree.message,
            time=tree.time,
        )

    async def _readable(self) -> RevisionContent:
        """The current content, waited for as long as it takes."""
        while True:
            try:
                content = await self.read()
            except StoreError as error:
                self._suspect(str(error))
                await asyncio.sleep(self._retry)
            else:
                self.suspicious = ""
                return content

    def _suspect(self, why: str) -> None:
        if why != self.suspicious:
            log.warning("configuration: %s", why)
        self.suspicious = why

    async def _commit(self, following: Next, expect: int | None) -> int:
        """Build the next tree over the current one and move the head to it, again and again if others are faster."""
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, Conflict) and expect is None),
            wait=tenacity.wait_random_exponential(multiplier=0.02, max=1.0),
            stop=tenacity.stop_after_delay(30.0),
            reraise=True,
        )
        async with self._applying:
            step: tuple[int, int] = await retrying(self._try_commit, following, expect)
        before, revision = step
        if revision > before and revision % max(1, self._keep // 4) == 0:
            try:
                await self.prune()
            except StoreError as error:
                log.warning("configuration: old revisions were not pruned: %s", error)
        return revision

    async def _try_commit(self, following: Next, expect: int | None) -> tuple[int, int]:
        """The revision before and after; they are the same when there was nothing to do."""
        head, at = await self._head()
        if expect is not None and expect != head.revision:
            raise Conflict(HEAD, expect, head.revision)
        parent = await self._tree(head, head.revision)
        tree = await following(head, parent)
        if tree is None:
            return parent.revision, parent.revision
        content = tree_bytes(tree, nonce=uuid.uuid4().hex)
        name = sha256(content)
        await write_large(self._store, tree_key(tree.revision, name), content)
        try:
            await self._store.put(HEAD, head_bytes(advanced(head, tree.revision, name, self._keep)), expect=at)
        except StoreError as error:
            # The answer may have been lost, or the request repeated below us: the head itself tells who won.
            found, _ = await self._head()
            if found.trees.get(tree.revision) != name:
                raise Conflict(HEAD, parent.revision, found.revision) if isinstance(error, Conflict) else error from None
        return parent.revision, tree.revision

    async def _used(self, head: Head) -> set[str]:
        used = {tree_key(revision, name) for revision, name in head.trees.items()}
        for revision in head.trees:
            used |= {OBJECTS + blob.sha256 for blob in (await self._tree(head, revision)).entries.values()}
        return used


def _names(tree: Tree) -> dict[str, str]:
    return {key: blob.sha256 for key, blob in tree.entries.items()}


def _line(tree: Tree) -> Revision:
    return Revision(
        revision=tree.revision,
        parent=tree.parent,
        author=tree.author,
        message=tree.message,
        time=tree.time,
        resources=len(tree.entries),
        added=tree.added,
        changed=tree.changed,
        removed=tree.removed,
        rolled_back_to=tree.rolled_back_to,
    )
