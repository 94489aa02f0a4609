"""Identities that get no certificate any more, however well they prove who they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from meshlib.lowlevel import SpiffeId
from meshlib_control.ca.state import BANS
from meshlib_control.errors import StoreError
from meshlib_control.store.model import Entry, Store


class Ban(msgspec.Struct, frozen=True):
    """`time` in Unix seconds."""

    identity: str
    time: float
    by: str = ""
    reason: str = ""


class Bans:
    """Those of the store, as `follow` last heard of them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._bans: dict[str, Ban] = {}  # by key; replaced, never changed: other threads look into it

    @property
    def all(self) -> tuple[Ban, ...]:
        return tuple(sorted(self._bans.values(), key=lambda ban: ban.identity))

    def contains(self, identity: SpiffeId) -> bool:
        return _key(str(identity)) in self._bans

    def follow(self, entries: Iterable[Entry]) -> bool:
        """Go by these entries; True when that changed something.  One that cannot be read still bans: the key says whom."""
        bans = {entry.key: _read(entry) for entry in entries}
        changed = bans != self._bans
        self._bans = bans
        return changed

    async def add(self, ban: Ban) -> None:
        key = _key(ban.identity)
        await self._store.put(key, msgspec.json.encode(ban))
        self._bans = {**self._bans, key: ban}

    async def remove(self, identity: SpiffeId) -> bool:
        key = _key(str(identity))
        found = await self._store.get(key)
        await self._store.delete(key)
        self._bans = {each: ban for each, ban in self._bans.items() if each != key}
        return found is not None


def _key(identity: str) -> str:
    return BANS + hashlib.sha256(identity.encode()).hexdigest()


def _read(entry: Entry) -> Ban:
    try:
        return msgspec.json.decode(entry.value, type=Ban)
    except msgspec.DecodeError as error:
        return Ban(f"unreadable: {entry.key}", 0.0, reason=str(StoreError(f"{entry.key} is damaged: {error}")))
