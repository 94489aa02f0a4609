"""Registered instances, kept through restarts and shared between replicas: the shell around `catalog.leases`.

The lease table in memory is what counts; the store gets every change of it and gives back what other replicas wrote.
While the store is away, registrations and renewals go on, and are written when it is back.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import cast

from meshlib_control.catalog import leases
from meshlib_control.catalog.leases import Beat, LeaseTable, Record, Registration, Terms
from meshlib_control.catalog.records import HEARTBEATS, PREFIX, read_record, record_bytes, record_key
from meshlib_control.catalog.storage import Storage, Stored
from meshlib_control.changes import Changes
from meshlib_control.errors import Conflict, StoreError
from meshlib_control.tasks import cancel, spawn

log = logging.getLogger(__name__)

TICK = 1.0
PATIENCE = 2.0  # seconds that an instance waits for the store
TERMS = Terms()
CONCURRENCY = 32  # writes at once
GOODBYE = b"left"


class Registrations:
    """`changes` tells of every visible change; `table` is the present state.  One per control service and store."""

    def __init__(
        self,
        store: Storage,
        *,
        terms: Terms = TERMS,
        clock: Callable[[], float] = time.monotonic,
        tick: float = TICK,
    ) -> None:
        self.terms = terms
        self.changes = Changes()
        self.table = LeaseTable(me=uuid.uuid4().hex, terms=terms)
        self._store = store
        self._clock = clock
        self._tick = tick
        self._revisions: dict[str, int] = {}  # by instance id: the newest revision in the store that we know
        self._decoded: dict[str, tuple[int, Record | None]] = {}  # by key: the entry's revision, and what it says
        self._renewed: dict[str, float] = {}
        self._unwritten: dict[str, bool] = {}  # by instance id: whether the instance itself spoke to us
        self._beaten = -math.inf  # when the last heartbeat was tried
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take over what the store has, then follow it.  A store that is away is waited for in the background."""
        try:
            self._take(await self._store.scan(PREFIX))
            await self._beat()
        except StoreError as error:
            log.warning("registrations: %s; starting without those of before", error)
        self._tasks = [spawn(self._follow(), "following registrations"), spawn(self._run(), "renewing registrations")]

    async def close(self) -> None:
        """Say goodbye, so that other replicas take over at once."""
        tasks, self._tasks = self._tasks, []
        await cancel(tasks)
        if tasks:
            try:
                await self._write_all()
                await self._store.put(HEARTBEATS + self.table.me, GOODBYE)
            except StoreError as error:
                log.warning("registrations: %s; other replicas will notice by the silence", error)

    async def register(self, registration: Registration) -> Terms:
        """Begin a lease, or replace what the same instance said before."""
        await self._heard(leases.Register(registration), registration.instance_id)
        return self.terms

    async def renew(self, instance_id: str, *, ready: bool = True) -> None:
        """Raises `UnknownInstance` when it has to register again."""
        lease = self.table.leases.get(instance_id)
        if lease is not None and lease.record == Record(lease.record.registration, self.table.me, ready=ready):
            # The usual case: nothing to write, nothing to tell; counted all at once by the next tick.
            self._renewed[instance_id] = self._clock()
            return
        await self._heard(leases.Renew(instance_id, ready), instance_id)

    async def deregister(self, instance_id: str) -> None:
        """End a lease at once; one that is not there is fine."""
        await self._heard(leases.Deregister(instance_id), instance_id)

    def registration(self, instance_id: str) -> Registration | None:
        """What is known of this instance, whichever replica it speaks to; None: nothing, or that it has left.

        One that expired may come back by a renewal, which nobody else is to send.
        """
        lease = self.table.leases.get(instance_id)
        return lease.record.registration if lease is not None and lease.record.standing is not leases.Standing.LEFT else None

    @property
    def unwritten(self) -> frozenset[str]:
        """Instances whose lease the store does not have yet as it is."""
        return frozenset(self._unwritten)

    async def _heard(self, event: leases.Event, instance_id: str) -> None:
        """From the instance itself: whatever the store says, it is ours now."""
        self._step(event, claim=True)
        if instance_id in self._unwritten:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._write(instance_id)
            except (StoreError, TimeoutError) as error:
                why = str(error) or f"the store did not answer in {PATIENCE:g} s"
                log.warning("registrations: %s; %s is served, and written later", why, instance_id)

    def _step(self, event: leases.Event, *, claim: bool = False) -> None:
        before, self.table = self.table, leases.step(self.table, event, self._clock())
        changed = self._changed_by(event, before)
        for instance_id in changed:
            lease = self.table.leases.get(instance_id)
            if lease is not None and lease.record.owner == self.table.me and not isinstance(event, leases.Stored):
                self._unwritten[instance_id] = claim
        if changed:
            self.changes.notify()

    def _changed_by(self, event: leases.Event, before: LeaseTable) -> list[str]:
        """An instance's own event concerns itself alone."""
        match event:
            case leases.Register(Registration(instance_id=instance_id)):
                pass
            case leases.Renew(instance_id) | leases.Deregister(instance_id):
                pass
            case _:
                return leases.changed_records(before.leases, self.table.leases)
        old, new = ({instance_id: lease} if (lease := table.leases.get(instance_id)) else {} for table in (before, self.table))
        return leases.changed_records(old, new)

    async def tick(self) -> None:
        """Let time pass: expiry, heartbeats, and what could not be written before.  Called every `tick` seconds."""
        before = self.table.leases.keys()
        renewed, self._renewed = self._renewed, {}
        self._step(leases.Tick(renewed))
        try:
            await self._write_all()
            for instance_id in before - self.table.leases.keys():
                await self._forget(instance_id)
            if self._clock() - self._beaten >= self.terms.renew_interval:
                await self._beat()
        except StoreError as error:
            log.debug("registrations: %s; trying again", error)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._tick)
            await self.tick()

    async def _follow(self) -> None:
        """What other replicas write."""
        changes = cast(AsyncGenerator[Sequence[Stored], None], self._store.watch(PREFIX))
        async with aclosing(changes):
            async for entries in changes:
                self._take(entries)

    def _take(self, entries: Sequence[Stored]) -> None:
        """A listing may be older than what we wrote since: then ours counts."""
        records = {}
        self._decoded = {entry.key: (entry.revision, self._decode(entry)) for entry in entries}
        for entry in entries:
            record = self._decoded[entry.key][1]
            if record is None:
                continue
            instance_id = record.registration.instance_id
            ours = self.table.leases.get(instance_id)
            if ours is not None and (instance_id in self._unwritten or entry.revision < self._revisions.get(instance_id, 0)):
                records[instance_id] = ours.record
                continue
            self._revisions[instance_id] = entry.revision
            records[instance_id] = record
        self._step(leases.Stored(records))
        for instance_id, lease in self.table.leases.items():
            if instance_id not in records and lease.record.owner == self.table.me:
                self._revisions.pop(instance_id, None)
                self._unwritten.setdefault(instance_id, False)

    def _decode(self, entry: Stored) -> Record | None:
        """Of thousands of entries one is new, as a rule."""
        revision, record = self._decoded.get(entry.key, (0, None))
        if revision == entry.revision:
            return record
        record = read_record(entry.value)
        if record is None:
            log.warning("registrations: %s in the store is no registration; it is ignored", entry.key)
            return None
        lease = self.table.leases.get(record.registration.instance_id)
        return lease.record if lease is not None and lease.record == record else record

    async def _beat(self) -> None:
        self._beaten = self._clock()
        await self._store.put(HEARTBEATS + self.table.me, b"here")
        found = await self._store.scan(HEARTBEATS)
        beats = {entry.key.removeprefix(HEARTBEATS): Beat(entry.revision, entry.value == GOODBYE) for entry in found}
        self._step(leases.Heartbeats(beats))
        owners = {lease.record.owner for lease in self.table.leases.values()}
        for replica, beat in self.table.beats.items():
            # Nothing of it is left to take over: its heartbeat goes too.
            if replica not in owners and replica in beats and (beat.left or beat.missed > 2 * self.terms.silent_after):
                await self._store.delete(HEARTBEATS + replica)

    async def _write_all(self) -> None:
        slots = asyncio.Semaphore(CONCURRENCY)

        async def one(instance_id: str) -> None:
            async with slots:
                await self._write(instance_id)

        results = await asyncio.gather(*(one(name) for name in list(self._unwritten)), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _write(self, instance_id: str) -> None:
        """Until it is written, or turns out to belong to another replica."""
        key = record_key(instance_id)
        while True:
            lease = self.table.leases.get(instance_id)
            if lease is None or lease.record.owner != self.table.me:
                self._unwritten.pop(instance_id, None)
                return
            try:
                expect = self._revisions.get(instance_id, 0)
                self._revisions[instance_id] = await self._store.put(key, record_bytes(lease.record), expect=expect)
            except Conflict:
                await self._reread(instance_id)
                continue
            now = self.table.leases.get(instance_id)
            if now is not None and now.record == lease.record:
                self._unwritten.pop(instance_id, None)
                return

    async def _reread(self, instance_id: str) -> None:
        entry = await self._store.get(record_key(instance_id))
        record = read_record(entry.value) if entry else None
        self._revisions[instance_id] = entry.revision if entry else 0
        if record is None or self._unwritten.get(instance_id, False) or record.owner == self.table.me:
            return
        # Somebody else heard from the instance after we did.
        others = {name: lease.record for name, lease in self.table.leases.items()}
        self._step(leases.Stored({**others, instance_id: record}))

    async def _forget(self, instance_id: str) -> None:
        revision = self._revisions.pop(instance_id, None)
        if revision:
            try:
                await self._store.delete(record_key(instance_id), expect=revision)
            except Conflict:
                return  # it is back, at another replica
