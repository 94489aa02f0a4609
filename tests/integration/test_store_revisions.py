"""The configuration repository over all stores: replicas, races, size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest

from meshlib_control.consul.address import parse_consul_url
from meshlib_control.consul.blocking import BlockingRules
from meshlib_control.errors import Conflict
from meshlib_control.store.consul import ConsulStore
from meshlib_control.store.model import Store
from meshlib_control.store.revisions import RevisionContent, Revisions
from meshlib_control.store.sqlite import SqliteStore
from meshlib_control.store.trees import TREES, Changes

FAST = BlockingRules(interval=0.02, retry_min=0.05, retry_max=0.2, wait=5.0)
Open = Callable[[], Store]


@pytest.fixture(params=["sqlite", "consul"])
async def open_replica(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Each call opens the same store once more, as another replica would."""
    opened: list[Store] = []
    url = request.getfixturevalue("consul_agent").url(uuid4().hex) if request.param == "consul" else ""

    def replica() -> Store:
        store: Store = (
            ConsulStore(parse_consul_url(url), rules=FAST, timeout=60.0)
            if url
            else SqliteStore(tmp_path / "mesh.db", poll=0.02)
        )
        opened.append(store)
        return store

    yield replica
    for store in opened:
        await store.close()


async def put(revisions: Revisions, name: str, document: dict[str, object], expect: int | None = None) -> int:
    changes = Changes({f"Kind/default/{name}": document})
    return await revisions.apply(changes, expect=expect, author=name, message="", now=1.0)


async def test_of_fifty_parallel_appliers_exactly_one_wins(open_replica: Open) -> None:
    replicas = [Revisions(open_replica()) for _ in range(5)]
    results = await asyncio.gather(
        *(put(replicas[number % 5], f"r{number}", {"number": number}, 0) for number in range(50)), return_exceptions=True
    )
    assert results.count(1) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 49
    assert len((await replicas[0].read()).documents) == 1


async def test_parallel_appliers_of_several_replicas_lose_nothing(open_replica: Open) -> None:
    replicas = [Revisions(open_replica()) for _ in range(4)]
    results = await asyncio.gather(*(put(replicas[n % 4], f"r{n}", {"number": n}) for n in range(24)))
    assert sorted(results) == list(range(1, 25))
    contents = [await replica.read() for replica in replicas]
    assert all(content == contents[0] for content in contents)
    assert len(contents[0].documents) == 24


async def test_replicas_hear_of_each_others_revisions(open_replica: Open) -> None:
    one, two = Revisions(open_replica()), Revisions(open_replica())
    async with aclosing(cast(AsyncGenerator[RevisionContent, None], two.watch())) as contents:
        assert (await anext(contents)).revision == 0
        await put(one, "a", {"x": 1})
        async with asyncio.timeout(60):
            assert (await anext(contents)).documents == {"Kind/default/a": {"x": 1}}
            await one.rollback(0, expect=None, author="", message="", now=2.0)
            assert (await anext(contents)).documents == {}


async def test_a_thousand_resources_in_one_revision(open_replica: Open) -> None:
    store = open_replica()
    revisions = Revisions(store)
    documents = {f"Kind/default/r{number}": {"number": number, "text": "x" * 200} for number in range(1000)}
    assert await revisions.apply(Changes(documents), expect=0, author="", message="", now=1.0) == 1
    assert await revisions.apply(Changes({"Kind/default/r7": {"new": 1}}), expect=1, author="", message="", now=1.0) == 2
    content = await Revisions(open_replica()).read()
    assert len(content.documents) == 1000
    assert content.documents["Kind/default/r7"] == {"new": 1}
    assert content.created["Kind/default/r7"] == 1
    assert max(len(entry.value) for entry in await store.scan(TREES)) < 512_000
