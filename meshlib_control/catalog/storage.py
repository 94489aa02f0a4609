"""What the catalog asks of a store, by structure: every `meshlib_control.store` has it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol


class Stored(Protocol):
    """A value and the revision of its key."""

    @property
    def key(self) -> str: ...

    @property
    def value(self) -> bytes: ...

    @property
    def revision(self) -> int: ...


class Storage(Protocol):
    """See `meshlib_control.store.model.Store` for what each promises."""

    async def get(self, key: str) -> Stored | None: ...

    async def scan(self, prefix: str) -> Sequence[Stored]: ...

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int: ...

    async def delete(self, key: str, *, expect: int | None = None) -> None: ...

    def watch(self, prefix: str) -> AsyncIterator[Sequence[Stored]]: ...
