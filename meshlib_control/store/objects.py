"""Documents by the SHA-256 of their canonical JSON: written once, never changed, verified when read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping

from meshlib_control.errors import StoreError
from meshlib_control.store.large import read_large, unpack, write_large
from meshlib_control.store.model import Store
from meshlib_control.store.trees import OBJECTS, Document, sha256

# Above this many unknown documents, one scan is cheaper than a read each; also how many are read or written at once.
BATCH = 32


class Objects:
    """The documents of one repository, with those of the current revision in memory."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: Mapping[str, Document] = {}

    def remember(self, documents: Mapping[str, Document]) -> None:
        """Keep these in memory, and no others."""
        self._known = dict(documents)

    async def load(self, names: Iterable[str]) -> dict[str, Document]:
        """Raises `StoreError` when one is missing, or is not what its name says."""
        wanted = set(names)
        found = {name: self._known[name] for name in wanted if name in self._known}
        missing = sorted(wanted - found.keys())
        for name, content in (await self._read(missing)).items():
            if content is None or sha256(content) != name:
                state = "missing" if content is None else "corrupt"
                raise StoreError(f"{OBJECTS}{name} is {state} in the store; apply its resource again, or roll back")
            found[name] = json.loads(content)
        return found

    async def write(self, contents: Mapping[str, bytes]) -> None:
        """All of them, also those that are there: a new revision of its key protects an object from pruning."""
        pending = list(contents.items())
        for start in range(0, len(pending), BATCH):
            batch = pending[start : start + BATCH]
            await asyncio.gather(*(write_large(self._store, OBJECTS + name, content) for name, content in batch))

    async def _read(self, names: list[str]) -> dict[str, bytes | None]:
        if len(names) <= BATCH:
            contents = await asyncio.gather(*(read_large(self._store, OBJECTS + name) for name in names))
            return dict(zip(names, contents, strict=True))
        values = {entry.key: entry.value for entry in await self._store.scan(OBJECTS)}
        return {name: unpack(OBJECTS + name, values) if OBJECTS + name in values else None for name in names}
