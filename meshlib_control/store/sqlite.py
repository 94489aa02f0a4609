"""The embedded store: one SQLite file that several processes of one machine may share.

Every statement runs in one worker thread, so a slow disk never stops the event loop.  Write-ahead logging lets readers
go on while one writes; ``synchronous=FULL`` makes an acknowledged write survive a power cut.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import tenacity

from meshlib_control.changes import Changes
from meshlib_control.errors import Conflict, StoreError
from meshlib_control.store.keys import check_key, check_prefix, check_value
from meshlib_control.store.model import Entry

T = TypeVar("T")
log = logging.getLogger(__name__)

Step = Callable[[sqlite3.Connection], Callable[[], None]]  # writes, and returns what is to be done after the commit

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
        self._pending: deque[tuple[Step, Future[Any]]] = deque()  # filled by the loop, emptied by the thread
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
        """Writes that come while another is on its way to the disk share the next transaction: one sync for all."""
        result: Future[T] = Future()

        def step(connection: sqlite3.Connection) -> Callable[[], None]:
            try:
                value = write(connection)
            except Conflict as conflict:
                # Nothing was written before it was found; the others of the transaction go on.
                return partial(result.set_exception, conflict)
            return partial(result.set_result, value)

        self._pending.append((step, result))
        try:
            await self._run(self._write_pending)
        except StoreError as error:
            # The file could not be opened.  Whatever still waits must not be written behind the back of its caller.
            while self._pending:
                self._pending.popleft()[1].set_exception(error)
            raise
        self._changes.notify()
        # Done: by this call of ours, or by an earlier one that took it along.
        return result.result(timeout=0)

    def _write_pending(self, connection: sqlite3.Connection) -> None:
        pending = []
        while self._pending:
            pending.append(self._pending.popleft())
        if not pending:
            return
        try:
            connection.execute("BEGIN IMMEDIATE")
            finish = [step(connection) for step, _ in pending]
            connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            failure = self._failure(error) if isinstance(error, sqlite3.Error) else error
            for _, result in pending:
                result.set_exception(failure)
            return
        for each in finish:
            each()

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
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> StoreError:
        return StoreError(f"the store {self.path}: {error}")

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
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


# SQLite's own waiting does not cover the change to write-ahead logging, which several may try to make at once.
@tenacity.retry(
    retry=tenacity.retry_if_exception(lambda error: isinstance(error, sqlite3.OperationalError) and "locked" in str(error)),
    wait=tenacity.wait_random(0.005, 0.05),
    stop=tenacity.stop_after_delay(BUSY_TIMEOUT),
    reraise=True,
)
def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.executescript(SCHEMA)


def _check_revision(connection: sqlite3.Connection, key: str, expect: int | None) -> None:
    if expect is None:
        return
    row = connection.execute("SELECT revision FROM entries WHERE key = ?", (key,)).fetchone()
    found = int(row[0]) if row else 0
    if found != expect:
        raise Conflict(key, expect, found)


def _count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count FROM changes").fetchone()[0])
