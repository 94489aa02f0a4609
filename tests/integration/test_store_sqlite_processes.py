"""One SQLite file, several processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import cast

from meshlib_control.store.model import Entry
from meshlib_control.store.sqlite import SqliteStore

INCREMENTS = """
import asyncio, sys
from meshlib_control.errors import Conflict
from meshlib_control.store.sqlite import SqliteStore

async def main() -> None:
    store = SqliteStore(sys.argv[1])
    done = 0
    while done < 25:
        entry = await store.get("counter")
        try:
            value = int(entry.value) + 1 if entry else 1
            await store.put("counter", str(value).encode(), expect=entry.revision if entry else 0)
            done += 1
        except Conflict:
            pass
    await store.close()

asyncio.run(main())
"""
ROOT = Path(__file__).resolve().parents[2]


def writer(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", INCREMENTS, str(path)], cwd=ROOT)


def test_processes_that_count_together_lose_no_step(tmp_path: Path) -> None:
    """All four create the file at once, too."""
    writers = [writer(tmp_path / "mesh.db") for _ in range(4)]
    assert [process.wait(timeout=100) for process in writers] == [0] * 4

    async def read() -> Entry | None:
        store = SqliteStore(tmp_path / "mesh.db")
        entry = await store.get("counter")
        await store.close()
        return entry

    entry = asyncio.run(read())
    assert entry is not None
    assert entry.value == b"100"


async def test_a_watch_sees_the_writes_of_another_process(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "mesh.db", poll=0.02)
    async with aclosing(cast(AsyncGenerator[list[Entry], None], store.watch("counter"))) as changes:
        assert await anext(changes) == []
        process = writer(tmp_path / "mesh.db")
        async with asyncio.timeout(100):
            while [entry.value for entry in await anext(changes)] != [b"25"]:
                pass
        assert process.wait(timeout=60) == 0
    await store.close()
