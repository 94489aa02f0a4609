"""What only the SQLite store has: a file."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from meshlib_control.errors import StoreError
from meshlib_control.store.sqlite import SqliteStore


async def test_entries_and_revisions_survive_a_restart(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "mesh.db")
    revision = await store.put("a/b", b"1")
    await store.delete("a/b")
    await store.close()
    store = SqliteStore(tmp_path / "mesh.db")
    assert await store.get("a/b") is None
    assert await store.put("a/b", b"2") > revision
    await store.close()


async def test_nothing_is_opened_before_the_first_use(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "deep" / "mesh.db")
    assert not (tmp_path / "deep").exists()
    await store.close()


async def test_only_its_owner_may_read_the_file(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "mesh.db")
    await store.put("a", b"secret")
    modes = [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in sorted(os.listdir(tmp_path))]  # noqa: PTH116, PTH208
    await store.close()
    assert modes == [0o600] * 3


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    path.write_bytes(b"not a database, but long enough to be read as the header of one" * 20)
    store = SqliteStore(path)
    with pytest.raises(StoreError, match=f"{path}: file is not a database"):
        await store.get("a")
    await store.close()


async def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = SqliteStore(tmp_path / "file" / "mesh.db")
    with pytest.raises(StoreError, match="file"):
        await store.get("a")
    await store.close()


async def test_a_failed_write_leaves_no_transaction_open(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "mesh.db")
    await store.put("a", b"1")
    with pytest.raises(StoreError):
        await store.put("a", b"2", expect=0)
    other = sqlite3.connect(tmp_path / "mesh.db", timeout=0.0, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("ROLLBACK")
    other.close()
    await store.close()


async def test_after_close_the_store_says_so(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "mesh.db")
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.get("a")
