"""Values of any size over a store whose values are limited: compressed, and cut into chunks.

The first chunk is under the key itself and says how many there are; the others are under ``<key>.<n>`` and are written
before it, so whoever finds the key finds all of it.  Meant for values that never change once written.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from meshlib_control.errors import StoreError
from meshlib_control.store.model import Store

CHUNK = 400_000
INFLATED_LIMIT = 256 * 1024 * 1024


def pack(content: bytes, chunk: int = CHUNK) -> list[bytes]:
    """The chunks of a value.  Equal contents give equal chunks."""
    packed = zlib.compress(content, 6)
    parts = [packed[start : start + chunk] for start in range(0, len(packed), chunk)]
    parts[0] = b"%d\n" % len(parts) + parts[0]
    return parts


def chunk_keys(key: str, first: bytes) -> list[str]:
    """The keys of all chunks but the first; raises `StoreError` when the first one is no chunk of ours."""
    count, newline, _ = first[:12].partition(b"\n")
    if not newline or not count.isdigit():
        raise StoreError(f"{key} is corrupt: it does not begin with the number of its chunks")
    return [f"{key}.{number}" for number in range(1, int(count))]


def unpack(key: str, values: Mapping[str, bytes]) -> bytes:
    """The value from its chunks; raises `StoreError` when one is missing or they do not decompress."""
    first = values[key]
    try:
        rest = b"".join(values[name] for name in chunk_keys(key, first))
    except KeyError as error:
        raise StoreError(f"{key} is corrupt: its chunk {error} is missing") from error
    inflate = zlib.decompressobj()
    try:
        content = inflate.decompress(first.partition(b"\n")[2] + rest, INFLATED_LIMIT)
    except zlib.error as error:
        raise StoreError(f"{key} is corrupt: {error}") from error
    if not inflate.eof:
        raise StoreError(f"{key} is corrupt: it ends too early, or is larger than {INFLATED_LIMIT} bytes")
    return content


async def write_large(store: Store, key: str, content: bytes) -> None:
    parts = pack(content)
    for number, part in reversed(list(enumerate(parts))):
        await store.put(f"{key}.{number}" if number else key, part)


async def read_large(store: Store, key: str) -> bytes | None:
    """None: there is no such key."""
    entry = await store.get(key)
    if entry is None:
        return None
    values = {key: entry.value}
    for name in chunk_keys(key, entry.value):
        part = await store.get(name)
        if part is not None:
            values[name] = part.value
    return unpack(key, values)
