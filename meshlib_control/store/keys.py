"""What all stores ask of keys and values, checked in one place so that they agree."""

from __future__ import annotations

import re

from meshlib_control.errors import StoreError

VALUE_LIMIT = 512_000

_KEY = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_PREFIX = re.compile(r"([A-Za-z0-9._-]+/)*[A-Za-z0-9._-]*")


def check_key(key: str) -> None:
    """Raises `StoreError`.  Dot segments are refused: URLs and paths would fold them."""
    if not _KEY.fullmatch(key) or not {".", ".."}.isdisjoint(key.split("/")):
        raise StoreError(f"{key!r} is no key: segments of letters, digits, '.', '_' and '-', joined by '/'")


def check_prefix(prefix: str) -> None:
    """Raises `StoreError`.  A prefix may end within a segment; the empty one is every key."""
    if not _PREFIX.fullmatch(prefix) or not {".", ".."}.isdisjoint(prefix.split("/")[:-1]):
        raise StoreError(f"{prefix!r} is no prefix of a key")


def check_value(key: str, value: bytes) -> None:
    if len(value) > VALUE_LIMIT:
        raise StoreError(f"the value of {key} has {len(value)} bytes; at most {VALUE_LIMIT} fit")
