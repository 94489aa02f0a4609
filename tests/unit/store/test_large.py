"""Values of any size over a limited store."""

from __future__ import annotations

import random

import pytest

from meshlib_control.errors import StoreError
from meshlib_control.store.large import chunk_keys, pack, read_large, unpack, write_large
from meshlib_control.store.memory import MemoryStore

NOISE = random.Random(1).randbytes(1_000_000)  # does not compress


def values_of(parts: list[bytes]) -> dict[str, bytes]:
    return {f"k.{number}" if number else "k": part for number, part in enumerate(parts)}


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 5_000_000, NOISE])
def test_what_is_packed_is_unpacked(content: bytes) -> None:
    assert unpack("k", values_of(pack(content))) == content


def test_chunks_stay_below_the_limit_of_stores() -> None:
    parts = pack(NOISE)
    assert len(parts) == 3
    assert all(len(part) <= 400_010 for part in parts)
    assert chunk_keys("k", parts[0]) == ["k.1", "k.2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.pop("k.1"), "chunk 'k.1' is missing"),
        (lambda values: values.update({"k": b"garbage"}), "number of its chunks"),
        (lambda values: values.update({"k": b"1\ngarbage"}), "corrupt"),
        (lambda values: values.update({"k.2": b""}), "ends too early"),
    ],
)
def test_damage_is_noticed(change: object, message: str) -> None:
    values = values_of(pack(NOISE))
    assert callable(change)
    change(values)
    with pytest.raises(StoreError, match=message):
        unpack("k", values)


async def test_the_first_chunk_is_written_last() -> None:
    """Who finds the key must find all of it."""

    class Ordered(MemoryStore):
        written: list[str] = []  # noqa: RUF012

        async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int:
            self.written.append(key)
            return await super().put(key, value, expect=expect)

    store = Ordered()
    await write_large(store, "k", NOISE)
    assert store.written == ["k.2", "k.1", "k"]
    assert await read_large(store, "k") == NOISE
    assert await read_large(store, "other") is None
