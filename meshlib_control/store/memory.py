"""A store that lasts as long as the process: for tests and ``--store memory``."""

from __future__ import annotations

from collections.abc import AsyncIterator

from meshlib_control.changes import Changes
from meshlib_control.errors import Conflict, StoreError
from meshlib_control.store.keys import check_key, check_prefix, check_value
from meshlib_control.store.model import Entry


class MemoryStore:
    """Nothing here awaits between reading and writing, so every method is atomic on its loop."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._revision = 0  # of the whole store: a key that is made anew never repeats a revision
        self._changes = Changes()
        self._closed = False

    async def get(self, key: str) -> Entry | None:
        self._check_open()
        check_key(key)
        return self._entries.get(key)

    async def scan(self, prefix: str) -> list[Entry]:
        self._check_open()
        check_prefix(prefix)
        return [self._entries[key] for key in sorted(self._entries) if key.startswith(prefix)]

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int:
        self._check_open()
        check_key(key)
        check_value(key, value)
        self._check_revision(key, expect)
        self._revision += 1
        self._entries[key] = Entry(key, bytes(value), self._revision)
        self._changes.notify()
        return self._revision

    async def delete(self, key: str, *, expect: int | None = None) -> None:
        self._check_open()
        check_key(key)
        self._check_revision(key, expect)
        if self._entries.pop(key, None):
            self._revision += 1
            self._changes.notify()

    async def watch(self, prefix: str) -> AsyncIterator[list[Entry]]:
        last: list[Entry] | None = None
        while True:
            seen = self._changes.count
            entries = await self.scan(prefix)
            if entries != last:
                last = entries
                yield list(entries)
            await self._changes.after(seen)

    async def close(self) -> None:
        self._closed = True
        self._changes.notify()

    def _check_revision(self, key: str, expect: int | None) -> None:
        found = self._entries[key].revision if key in self._entries else 0
        if expect is not None and expect != found:
            raise Conflict(key, expect, found)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the memory store is closed")
