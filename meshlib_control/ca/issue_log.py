"""The append-only log of what was issued.

Records are queued here and written in batches, each under a key of its own that is never written again, so that issuing goes
on while the store cannot be written.  The queue is bounded; when it is full nothing is issued any more: there is no certificate
that cannot be accounted for.  A batch is deleted some time after its last certificate has expired.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable
from itertools import islice

import msgspec

from meshlib_control.errors import Conflict, StoreError
from meshlib_control.store.model import Store

log = logging.getLogger(__name__)
audit = logging.getLogger("meshlib_control.ca.audit")

PREFIX = "ca/log/"
BATCH = 1000
"""Records of one write: 400 KB at most."""
FLUSH_INTERVAL = 1.0  # seconds


class IssueRecord(msgspec.Struct, frozen=True):
    """`serial` in hex; `caller`: how it proved who it is; `csr`: SHA-256 of the request; `authority`: id of the root.

    Times in Unix seconds.
    """

    serial: str
    identity: str
    caller: str
    csr: str
    issued: float
    not_before: float
    not_after: float
    authority: str


class IssueLog:
    """`retention`: seconds for which a record outlives its certificate; `limit`: records that may wait to be written."""

    def __init__(self, store: Store, *, retention: float, limit: int, clock: Callable[[], float]) -> None:
        self._store = store
        self._retention = retention
        self._limit = limit
        self._clock = clock
        self._waiting: deque[IssueRecord] = deque()
        self._appending = threading.Lock()  # a queue must not grow under somebody who reads it
        self._flushing = asyncio.Lock()
        self.problem = ""  # why records are waiting

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        return len(self._waiting) >= self._limit

    def append(self, record: IssueRecord) -> None:
        """From any thread; never waits."""
        with self._appending:
            self._waiting.append(record)
        audit.info(
            "issued %s to %s, valid until %.0f, for %s, CSR %s",
            record.serial, record.identity, record.not_after, record.caller, record.csr,
        )  # fmt: skip

    async def flush(self) -> None:
        """Write what waits.  Raises `StoreError`; what was not written waits on."""
        async with self._flushing:
            while batch := self._batch():
                key = f"{PREFIX}{max(record.not_after for record in batch):012.0f}-{secrets.token_hex(8)}"
                try:
                    await self._store.put(key, b"\n".join(map(msgspec.json.encode, batch)), expect=0)
                except Conflict:
                    # The key is random: this is our own write, whose answer was lost and which was sent again.
                    log.debug("%s was written already", key)
                for _ in batch:
                    self._waiting.popleft()

    def _batch(self) -> list[IssueRecord]:
        with self._appending:
            return list(islice(self._waiting, BATCH))

    async def run(self) -> None:
        """Flush again and again."""
        while True:
            await asyncio.sleep(FLUSH_INTERVAL)
            try:
                await self.flush()
                self.problem = ""
            except StoreError as error:
                if not self.problem:
                    log.warning("the log of issued certificates cannot be written: %s; its records wait", error)
                self.problem = f"{self.waiting} of {self._limit} records of issued certificates wait to be written: {error}"

    async def records(self) -> list[IssueRecord]:
        """All that is kept, oldest first.  Raises `StoreError`."""
        entries = await self._store.scan(PREFIX)
        # A batch whose writing was interrupted may be there twice.
        found = {record.serial: record for entry in entries for record in _read(entry.key, entry.value)}
        return sorted(found.values(), key=lambda record: (record.issued, record.serial))

    async def exists(self) -> bool:
        """Whether anything was ever issued from this store, as far as it can tell."""
        return bool(await self._store.scan(PREFIX))

    async def prune(self) -> int:
        """Delete batches whose certificates have all expired long enough ago; returns how many.  Raises `StoreError`."""
        limit = f"{PREFIX}{max(0.0, self._clock() - self._retention):012.0f}"
        old = [entry for entry in await self._store.scan(PREFIX) if entry.key < limit]
        for entry in old:
            await self._store.delete(entry.key)
        return len(old)


def _read(key: str, value: bytes) -> list[IssueRecord]:
    try:
        return [msgspec.json.decode(line, type=IssueRecord) for line in value.splitlines()]
    except msgspec.DecodeError as error:
        raise StoreError(f"{key} is damaged: {error}") from error
