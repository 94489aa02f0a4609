"""The embedded store: one SQLite file that several processes of one machine may share.

Every statement runs in one worker thread, so a slow disk never stops the event loop.  Write-ahead logging lets readers
go on while one writes; ``synchronous=FULL`` makes an acknowledged write survive a power cut.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from meshlib_control.errors import Conflict, StoreError
from meshlib_control.changes import Changes
from meshlib_control.store.keys import check_key, check_prefix, check_value
from meshlib_control.store.model import Entry

T = TypeVar("T")
log = logging.getLogger(__name__)

# `changes` counts all writes of all processes: it is the revision of each write, and what watchers look at.
SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS changes (id INTEGER PRIMARY KEY CHECK (id = 1), count INTEGER NOT NULL);
INSERT OR IGNORE INTO changes VALUES (1, 0);
"""
BUSY_TIMEOUT = 10.0


class SqliteStore:
    """Opens its file on first use.  `poll`: seconds after which a write of another process is noticed."""

    def __init__(self, path: str | os.PathLike[str], *, poll: float = 0.25) -> None:
        self.path = Path(path)
        self._poll = poll
        self._changes = Changes()
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None
        self._closed = False

    async def get(self, key: str) -> Entry | None:
        check_key(key)
        rows = await self._rows("SELECT key, value, revision FROM entries WHERE key = ?", key)
        return rows[0] if rows else None

    async def scan(self, prefix: str) -> list[Entry]:
        check_prefix(prefix)
        # "0" follows "/" and all that may continue a key is below "{": the range is exactly the keys with this prefix.
        return await self._rows(
            "SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? ORDER BY key", prefix, prefix + "{"
        )

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int:
        check_key(key)
        check_value(key, value)

        def write(connection: sqlite3.Connection) -> int:
            _check_revision(connection, key, expect)
            (revision,) = connection.execute("UPDATE changes SET count = count + 1 RETURNING count").fetchone()
            connection.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", (key, value, revision))
            return int(revision)

        return await self._write(write)

    async def delete(self, key: str, *, expect: int | None = None) -> None:
        check_key(key)

        def write(connection: sqlite3.Connection) -> None:
            _check_revision(connection, key, expect)
            if connection.execute("DELETE FROM entries WHERE key = ?", (key,)).rowcount:
                connection.execute("UPDATE changes SET count = count + 1")

        await self._write(write)

    async def watch(self, prefix: str) -> AsyncIterator[list[Entry]]:
        check_prefix(prefix)
        last: list[Entry] | None = None
        count = -1
        failing = False
        while True:
            seen = self._changes.count
            try:
                now = await self._run(_count)
                entries = last if now == count and last is not None else await self.scan(prefix)
                count = now
            except StoreError as error:
                if self._closed:
                    raise
                if not failing:
                    log.warning("watching %s: %s; what is known stays, trying again", prefix, error)
                failing = True
            else:
                failing = False
                if entries != last:
                    last = entries
                    yield list(entries)
            await self._changes.after(seen, self._poll)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._changes.notify()
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._disconnect)
            thread.shutdown(wait=True)

    async def _rows(self, sql: str, *arguments: str) -> list[Entry]:
        return await self._run(lambda connection: [Entry(*row) for row in connection.execute(sql, arguments)])

    async def _write(self, write: Callable[[sqlite3.Connection], T]) -> T:
        def transaction(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = write(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return result

        result = await self._run(transaction)
        self._changes.notify()
        return result

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise StoreError(f"the store {self.path} is closed")
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="meshlib-store")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)

    def _guarded(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._connection is None:
                self._connection = _connect(self.path)
            return work(self._connection)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"the store {self.path}: {error}") from error

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Made here, since SQLite would give it the umask's mode; its side files take the mode of the main one.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_revision(connection: sqlite3.Connection, key: str, expect: int | None) -> None:
    if expect is None:
        return
    row = connection.execute("SELECT revision FROM entries WHERE key = ?", (key,)).fetchone()
    found = int(row[0]) if row else 0
    if found != expect:
        raise Conflict(key, expect, found)


def _count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count FROM changes").fetchone()[0])
