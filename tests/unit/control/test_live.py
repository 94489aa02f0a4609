"""Sources joined into worlds; whatever one of them cannot give stays as it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshlib_control.catalog.model import CatalogSnapshot, Instance, Port, Service
from meshlib_control.compile import World
from meshlib_control.compile.trust import Trust
from meshlib_control.errors import StoreError
from meshlib_control.live import LiveWorld
from meshlib_control.static import StaticConfig
from meshlib_control.store.memory import MemoryStore
from meshlib_control.store.revisions import Revisions
from meshlib_control.store.trees import Changes
from tests.support.polling import eventually
from tests.unit.admin.support import MESH, from_file

HOST = "db.default.svc.cluster.local"
SERVICE = Service(HOST, "default", (Port(80),))
DOCUMENTS = {str(resource.key): resource.document for resource in from_file(MESH)}


class Feed:
    """A catalog that says what the test puts in."""

    def __init__(self) -> None:
        self.snapshots: asyncio.Queue[CatalogSnapshot | Exception] = asyncio.Queue()

    async def watch(self) -> AsyncIterator[CatalogSnapshot]:
        while True:
            item = await self.snapshots.get()
            if isinstance(item, Exception):
                raise item
            yield item


class Lab:
    def __init__(self) -> None:
        self.revisions = Revisions(MemoryStore())
        self.feed = Feed()
        self.live = LiveWorld(self.revisions, self.feed, StaticConfig([], interval=1), domain="cluster.local")
        self.worlds: list[World] = []

    async def store(self) -> int:
        return await self.revisions.apply(Changes(puts=DOCUMENTS), expect=None, author="", message="", now=0.0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.live.load(CatalogSnapshot())
        task = asyncio.create_task(self.live.run(self.worlds.append))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_the_first_world_has_what_the_store_has() -> None:
    lab = Lab()
    await lab.store()
    await lab.live.load(CatalogSnapshot(services={HOST: SERVICE}))
    assert set(lab.live.world.services.hosts) == {HOST, "reviews.default.svc.cluster.local"}
    assert lab.live.revision == 1


async def test_changes_of_store_and_catalog_are_published() -> None:
    lab = Lab()
    async with lab.running():
        await lab.store()
        await eventually(lambda: lab.worlds and "reviews.default.svc.cluster.local" in lab.worlds[-1].services.hosts)
        lab.feed.snapshots.put_nowait(CatalogSnapshot(services={HOST: SERVICE}))
        await eventually(lambda: HOST in lab.worlds[-1].services.hosts)
        assert lab.live.problems == []


async def test_worlds_that_differ_in_instances_alone_share_their_routing() -> None:
    """What `affected` needs to be quick."""
    lab = Lab()
    await lab.store()
    services = {HOST: SERVICE}
    async with lab.running():
        lab.feed.snapshots.put_nowait(CatalogSnapshot(services=services))
        await eventually(lambda: lab.worlds and HOST in lab.worlds[-1].services.hosts)
        before = lab.worlds[-1]
        instances = {HOST: (Instance("a", "10.0.0.1", 80),)}
        lab.feed.snapshots.put_nowait(CatalogSnapshot(services=dict(services), instances=instances))
        await eventually(lambda: lab.worlds[-1].instances == instances)
        assert lab.worlds[-1].routing is before.routing


async def test_a_trust_domain_that_is_not_the_authoritys_is_a_problem() -> None:
    lab = Lab()
    lab.live.take_trust(Trust("mesh.test"))
    text = "{apiVersion: meshlib.io/v1, kind: MeshConfig, metadata: {name: mesh}, spec: {trustDomain: %s}}"
    for said in ("other.test", "mesh.test"):
        documents = {str(resource.key): resource.document for resource in from_file(text % said)}
        await lab.revisions.apply(Changes(puts=documents), expect=None, author="", message="", now=0.0)
        await lab.live.load(CatalogSnapshot())
        assert [("trustDomain other.test" in problem) for problem in lab.live.problems] == [True] * (said == "other.test")
        assert lab.live.world.trust.domain == "mesh.test"


async def test_a_burst_makes_few_worlds() -> None:
    lab = Lab()
    async with lab.running():
        for number in range(200):
            lab.feed.snapshots.put_nowait(CatalogSnapshot(services={HOST: SERVICE}, revision=number))
        await eventually(lambda: lab.live.snapshot.revision == 199 and len(lab.worlds) > 0)
        assert len(lab.worlds) < 100


async def test_a_source_that_fails_is_a_problem_and_is_asked_again() -> None:
    lab = Lab()
    async with lab.running():
        lab.feed.snapshots.put_nowait(CatalogSnapshot(services={HOST: SERVICE}))
        await eventually(lambda: lab.worlds)
        lab.feed.snapshots.put_nowait(StoreError("gone"))
        await eventually(lambda: lab.live.problems == ["catalog: gone; what was read before stays in use"])
        assert HOST in lab.live.world.services.hosts
        lab.feed.snapshots.put_nowait(CatalogSnapshot(revision=7))
        await eventually(lambda: lab.live.snapshot.revision == 7)
        assert lab.live.problems == []


async def test_a_defect_in_one_source_does_not_stop_the_others() -> None:
    lab = Lab()
    async with lab.running():
        lab.feed.snapshots.put_nowait(ValueError("a bug"))
        await eventually(lambda: lab.live.problems)
        assert "ValueError" in lab.live.problems[0]
        await lab.store()
        await eventually(lambda: lab.live.revision == 1)


async def test_a_stored_resource_that_became_unreadable_stays_as_it_was_read_last() -> None:
    """A newer version of the control service may write what this one does not know."""
    lab = Lab()
    key = "ServiceEntry/default/reviews"
    async with lab.running():
        await lab.store()
        await eventually(lambda: lab.live.revision == 1)
        strange = {**DOCUMENTS[key], "apiVersion": "networking.istio.io/v9"}
        await lab.revisions.apply(Changes(puts={key: strange}), expect=None, author="", message="", now=0.0)
        await eventually(lambda: lab.live.problems)
        assert key in lab.live.problems[0]
        await eventually(lambda: lab.live.world.routing.config.revision == 2)
        assert "reviews.default.svc.cluster.local" in lab.live.world.services.hosts
        await lab.revisions.apply(Changes(puts={key: DOCUMENTS[key]}), expect=None, author="", message="", now=0.0)
        await eventually(lambda: not lab.live.problems)
