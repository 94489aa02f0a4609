"""The catalog over registrations alone: snapshots, their revisions, and the guard."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import cast

from meshlib_control.catalog.catalog import Catalog
from meshlib_control.catalog.guard import GuardRules
from meshlib_control.catalog.leases import Registration
from meshlib_control.catalog.model import CatalogSnapshot, Port
from meshlib_control.catalog.registrations import Registrations
from meshlib_control.store.memory import MemoryStore
from tests.support.polling import eventually

HOST = "reviews.default.svc.cluster.local"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def running(
    store: MemoryStore, clock: Clock, rules: GuardRules | None = None
) -> AsyncIterator[tuple[Catalog, Registrations]]:
    registrations = Registrations(store, clock=clock, tick=3600.0)
    catalog = Catalog(registrations, rules=rules or GuardRules(), clock=clock)
    await catalog.start()
    try:
        yield catalog, registrations
    finally:
        await catalog.close()


def registration(number: int, port: int = 9080) -> Registration:
    return Registration(f"r{number}", "reviews", f"10.0.0.{number}", port, labels={"version": f"v{number}"})


def ids(catalog: Catalog) -> list[str]:
    return [instance.id for instance in catalog.snapshot.instances.get(HOST, ())]


async def test_registrations_appear_and_leave() -> None:
    async with running(MemoryStore(), Clock()) as (catalog, registrations):
        assert catalog.snapshot == CatalogSnapshot()
        await registrations.register(registration(1))
        await registrations.register(registration(2, 9081))
        await eventually(lambda: ids(catalog) == ["r1", "r2"])
        assert catalog.snapshot.services[HOST].ports == (Port(80),)
        await registrations.deregister("r2")
        await eventually(lambda: ids(catalog) == ["r1"])
        assert catalog.snapshot.services[HOST].ports == (Port(80), Port(9080))
        await registrations.deregister("r1")
        await eventually(lambda: catalog.snapshot.instances == {HOST: ()})
        assert catalog.snapshot.suspicious == {}
        assert HOST in catalog.snapshot.services


async def test_equal_content_makes_no_snapshot_and_each_change_a_higher_revision() -> None:
    async with running(MemoryStore(), Clock()) as (catalog, registrations):
        await registrations.register(registration(1))
        await eventually(lambda: ids(catalog) == ["r1"])
        before = catalog.snapshot
        await registrations.register(registration(1))
        await registrations.renew("r1", ready=True)
        await registrations.register(registration(2))
        await eventually(lambda: ids(catalog) == ["r1", "r2"])
        assert catalog.snapshot.revision == before.revision + 1


async def test_watch_yields_now_and_after_changes() -> None:
    async with (
        running(MemoryStore(), Clock()) as (catalog, registrations),
        aclosing(cast(AsyncGenerator[CatalogSnapshot, None], catalog.watch())) as snapshots,
    ):
        assert (await anext(snapshots)).instances == {}
        await registrations.register(registration(1))
        assert len((await anext(snapshots)).instances[HOST]) == 1


async def test_a_restarted_catalog_starts_with_its_instances() -> None:
    store, clock = MemoryStore(), Clock()
    async with running(store, clock) as (_, registrations):
        await registrations.register(registration(1))
    async with running(store, clock) as (catalog, _):
        assert ids(catalog) == ["r1"]


async def test_leases_that_expire_all_at_once_are_held_and_reported() -> None:
    """A partition between the control service and everybody else."""
    clock = Clock()
    async with running(MemoryStore(), clock, GuardRules(hold_empty=0.5)) as (catalog, registrations):
        for number in (1, 2):
            await registrations.register(registration(number))
        await eventually(lambda: ids(catalog) == ["r1", "r2"])
        for _ in range(16):
            clock.now += 1.0
            await registrations.tick()
        await eventually(lambda: catalog.snapshot.suspicious)
        assert ids(catalog) == ["r1", "r2"]
        assert "all 2 instances vanished" in catalog.snapshot.suspicious[HOST]
        clock.now += 1.0
        await eventually(lambda: ids(catalog) == [])
        assert catalog.snapshot.suspicious == {}
