"""Registrations over a store in memory: restarts, outages, replicas.  Clock and ticks are moved by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from meshlib_control.catalog.leases import Registration, Standing, Terms, UnknownInstance
from meshlib_control.catalog.records import HEARTBEATS, PREFIX, record_key
from meshlib_control.catalog.registrations import Registrations
from meshlib_control.errors import StoreError
from meshlib_control.store.memory import MemoryStore
from tests.support.polling import eventually

REVIEWS = Registration("r1", "reviews", "10.0.0.1", 9080, labels={"version": "v2"})
NEVER = 3600.0  # no tick comes by itself


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Lossy(MemoryStore):
    """A store that can be away."""

    away = False

    def _check_open(self) -> None:
        super()._check_open()
        if self.away:
            raise StoreError("the store is away")


@asynccontextmanager
async def running(store: MemoryStore, clock: Clock, **terms: Any) -> AsyncIterator[Registrations]:
    registrations = Registrations(store, clock=clock, tick=NEVER, terms=Terms(**terms))
    await registrations.start()
    try:
        yield registrations
    finally:
        await registrations.close()


def standing(registrations: Registrations, instance_id: str = "r1") -> Standing | None:
    lease = registrations.table.leases.get(instance_id)
    return lease.record.standing if lease else None


async def pass_time(clock: Clock, seconds: int, *replicas: Registrations, renewing: Registrations | None = None) -> None:
    """In steps of a second, each a tick of all replicas."""
    for _ in range(seconds):
        clock.now += 1.0
        if renewing is not None:
            await renewing.renew("r1")
        for registrations in replicas:
            await registrations.tick()


async def test_a_registration_is_kept_by_renewals_and_ends_without() -> None:
    clock = Clock()
    async with running(MemoryStore(), clock) as registrations:
        terms = await registrations.register(REVIEWS)
        assert (terms.ttl, terms.renew_interval) == (15.0, 5.0)
        await pass_time(clock, 30, registrations, renewing=registrations)
        assert standing(registrations) is Standing.UP
        await pass_time(clock, 14, registrations)
        assert standing(registrations) is Standing.UP
        await pass_time(clock, 1, registrations)
        assert standing(registrations) is Standing.EXPIRED


async def test_deregistration_is_seen_as_such_and_cannot_be_renewed() -> None:
    async with running(MemoryStore(), Clock()) as registrations:
        await registrations.register(REVIEWS)
        await registrations.deregister("r1")
        await registrations.deregister("never there")
        assert standing(registrations) is Standing.LEFT
        with pytest.raises(UnknownInstance):
            await registrations.renew("r1")


async def test_renewals_write_nothing() -> None:
    clock, store = Clock(), MemoryStore()
    async with running(store, clock) as registrations:
        await registrations.register(REVIEWS)
        before = await store.scan(PREFIX)
        changes = registrations.changes.count
        await pass_time(clock, 4, registrations, renewing=registrations)
        assert await store.scan(PREFIX) == before
        assert registrations.changes.count == changes
        await registrations.renew("r1", ready=False)
        assert await store.scan(PREFIX) != before, "wanting no calls is news for everybody"
        assert registrations.changes.count > changes


async def test_a_restarted_service_has_its_instances_and_gives_them_time() -> None:
    clock, store = Clock(), MemoryStore()
    async with running(store, clock) as registrations:
        await registrations.register(REVIEWS)
    clock.now += 3600.0
    async with running(store, clock) as restarted:
        lease = restarted.table.leases["r1"]
        assert lease.record.registration == REVIEWS
        assert (lease.record.owner, lease.until) == (restarted.table.me, clock.now + 15.0)
        await restarted.renew("r1")


async def test_after_a_kill_the_instances_are_there_and_adopted_a_little_later() -> None:
    clock, store = Clock(), MemoryStore()
    killed = Registrations(store, clock=clock)
    await killed.register(REVIEWS)  # never closed: it beats once, and then nothing is heard of it
    await store.put(HEARTBEATS + killed.table.me, b"here")
    async with running(store, clock) as registrations:
        assert standing(registrations) is Standing.UP
        assert registrations.table.leases["r1"].record.owner == killed.table.me
        await pass_time(clock, 15, registrations)
        assert registrations.table.leases["r1"].record.owner == registrations.table.me
        await pass_time(clock, 10, registrations)
        assert standing(registrations) is Standing.UP
        await pass_time(clock, 10, registrations)
        assert standing(registrations) is Standing.EXPIRED


async def test_replicas_share_registrations_and_their_ends() -> None:
    clock, store = Clock(), MemoryStore()
    async with running(store, clock) as one, running(store, clock) as two:
        await one.register(REVIEWS)
        await eventually(lambda: standing(two) is Standing.UP)
        await one.renew("r1", ready=False)
        await eventually(lambda: not two.table.leases["r1"].record.ready)
        await two.deregister("r1")
        await eventually(lambda: standing(one) is Standing.LEFT)
        assert standing(two) is Standing.LEFT


async def test_an_instance_that_moves_to_another_replica_is_not_dropped_by_the_first() -> None:
    clock, store = Clock(), MemoryStore()
    async with running(store, clock) as one, running(store, clock) as two:
        await one.register(REVIEWS)
        await eventually(lambda: standing(two) is Standing.UP)
        await pass_time(clock, 40, one, two, renewing=two)
        assert standing(one) is standing(two) is Standing.UP
        assert one.table.leases["r1"].record.owner == two.table.me


async def test_replicas_that_both_live_do_not_take_each_others_leases() -> None:
    clock, store = Clock(), MemoryStore()
    async with running(store, clock) as one, running(store, clock) as two:
        await one.register(REVIEWS)
        await eventually(lambda: standing(two) is Standing.UP)
        await pass_time(clock, 60, one, two, renewing=one)
        assert two.table.leases["r1"].record.owner == one.table.me


async def test_while_the_store_is_away_everything_goes_on_and_is_written_later() -> None:
    clock, store = Clock(), Lossy()
    async with running(store, clock) as registrations:
        await registrations.register(REVIEWS)
        store.away = True
        await registrations.register(Registration("r2", "reviews", "10.0.0.2", 9080))
        await registrations.deregister("r1")
        assert (standing(registrations, "r1"), standing(registrations, "r2")) == (Standing.LEFT, Standing.UP)
        store.away = False
        await registrations.tick()
        assert [entry.key for entry in await store.scan(PREFIX)] == sorted([record_key("r1"), record_key("r2")])


async def test_what_the_store_lost_is_written_again() -> None:
    clock, store = Clock(), MemoryStore()
    async with running(store, clock) as registrations:
        await registrations.register(REVIEWS)
        await store.delete(record_key("r1"))
        await eventually(lambda: "r1" in registrations.unwritten)
        await registrations.tick()
        assert await store.get(record_key("r1")) is not None
        assert standing(registrations) is Standing.UP


async def test_a_service_starts_without_its_store() -> None:
    store = Lossy()
    store.away = True
    registrations = Registrations(store, clock=Clock())
    await registrations.register(REVIEWS)
    assert standing(registrations) is Standing.UP


async def test_garbage_in_the_store_hides_nothing() -> None:
    store = MemoryStore()
    await store.put(PREFIX + "garbage", b"{")
    async with running(store, Clock()) as registrations:
        await registrations.register(REVIEWS)
    async with running(store, Clock()) as registrations:
        assert standing(registrations) is Standing.UP


async def test_marks_and_heartbeats_do_not_pile_up() -> None:
    clock, store = Clock(), MemoryStore()
    for _ in range(3):
        async with running(store, clock) as registrations:
            await registrations.register(REVIEWS)
    async with running(store, clock, remember=3.0) as registrations:
        await registrations.deregister("r1")
        await pass_time(clock, 12, registrations)
        assert registrations.table.leases == {}
        assert [entry.key for entry in await store.scan("")] == [HEARTBEATS + registrations.table.me]


async def test_T05_an_instance_that_expired_still_has_an_owner() -> None:
    """Otherwise anybody could bring the dead instances of others back."""
    clock = Clock()
    async with running(MemoryStore(), clock) as registrations:
        await registrations.register(REVIEWS)
        assert registrations.registration("r1") == REVIEWS
        await pass_time(clock, 20, registrations)
        assert standing(registrations) is Standing.EXPIRED
        assert registrations.registration("r1") == REVIEWS
        await registrations.deregister("r1")
        assert registrations.registration("r1") is None
        assert registrations.registration("unknown") is None
