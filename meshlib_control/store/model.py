"""What every store can do: bytes under keys, compare-and-set, list, watch.  Nothing else is asked of one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """A value and its revision.  Revisions grow with every write of the key; 0 stands for "does not exist"."""

    key: str  # "config/head": segments of [A-Za-z0-9._-]+ joined by "/"
    value: bytes
    revision: int


class Store(Protocol):
    """A key-value store.  All methods raise `StoreError` when the store cannot be reached."""

    async def get(self, key: str) -> Entry | None:
        """The newest committed value (a consistent read)."""
        ...

    async def scan(self, prefix: str) -> list[Entry]:
        """All entries whose key starts with `prefix`, ordered by key."""
        ...

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int:
        """Write and return the new revision.

        `expect`: None writes in any case; 0 only when the key does not exist; else only over that revision.
        Raises `Conflict` when it does not hold.  At most 512,000 bytes (Consul's limit).
        """
        ...

    async def delete(self, key: str, *, expect: int | None = None) -> None:
        """Remove a key; removing what is not there is fine unless `expect` says otherwise.  Raises `Conflict`."""
        ...

    def watch(self, prefix: str) -> AsyncIterator[list[Entry]]:
        """The entries under `prefix`, now and again after each change of them.

        Never ends by itself; outages of the store are waited out inside (the last list stays true for the consumer).
        """
        ...

    async def close(self) -> None:
        """Release files, sockets and tasks.  Idempotent."""
        ...
