"""What was verified a moment ago need not be verified again: a signature costs fifty times what everything else does."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

V = TypeVar("V")

CAPACITY: Final = 1024
"""Entries of one generation; there are at most two."""

LIFETIME: Final = 60.0
"""Seconds for which a verified token is believed without looking at it again, if it does not expire before."""


class Recent(Generic[V]):
    """The entries used last, at most twice `capacity`.

    Two generations instead of a linked list: an entry that is used while it is in the old one moves to the new one, and a
    full new one becomes the old one.  No step needs a lock, and threads that meet lose an entry at worst.
    """

    __slots__ = ("_capacity", "_new", "_old")

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._new: dict[bytes, V] = {}
        self._old: dict[bytes, V] = {}

    def get(self, key: bytes) -> V | None:
        found = self._new.get(key)
        if found is None and self._old:
            found = self._old.get(key)
            if found is not None:
                self.put(key, found)
        return found

    def put(self, key: bytes, value: V) -> None:
        new = self._new
        if len(new) >= self._capacity and key not in new:
            self._old, self._new = new, {}
            new = self._new
        new[key] = value

    def discard(self, key: bytes) -> None:
        self._new.pop(key, None)
        self._old.pop(key, None)

    def __len__(self) -> int:
        return len(self._new) + len(self._old.keys() - self._new.keys())
