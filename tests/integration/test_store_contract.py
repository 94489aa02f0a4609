"""One suite over all stores: what `meshlib_control.store.model.Store` promises."""

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
from meshlib_control.errors import Conflict, StoreError
from meshlib_control.store.consul import ConsulStore
from meshlib_control.store.memory import MemoryStore
from meshlib_control.store.model import Entry, Store
from meshlib_control.store.sqlite import SqliteStore

FAST = BlockingRules(interval=0.02, retry_min=0.05, retry_max=0.2, wait=5.0)
NEVER = 60.0  # a deadline that only a broken store reaches


@pytest.fixture(params=["memory", "sqlite", "consul"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened: Store
    if request.param == "memory":
        opened = MemoryStore()
    elif request.param == "sqlite":
        opened = SqliteStore(tmp_path / "deep" / "mesh.db", poll=0.02)
    else:
        agent = request.getfixturevalue("consul_agent")
        opened = ConsulStore(parse_consul_url(agent.url(uuid4().hex)), rules=FAST, timeout=60.0)
    yield opened
    await opened.close()


def watching(store: Store, prefix: str) -> aclosing[AsyncGenerator[list[Entry], None]]:
    return aclosing(cast(AsyncGenerator[list[Entry], None], store.watch(prefix)))


async def next_list(changes: AsyncIterator[list[Entry]], until: Callable[[list[Entry]], bool]) -> list[Entry]:
    """The first list that is as it should be; lists in between are allowed, since watches may skip and repeat."""
    async with asyncio.timeout(NEVER):
        while True:
            entries = await anext(changes)
            if until(entries):
                return entries


async def test_what_was_put_is_got(store: Store) -> None:
    revision = await store.put("config/head", b"\x00\xff value")
    assert await store.get("config/head") == Entry("config/head", b"\x00\xff value", revision)
    assert revision > 0


async def test_what_was_never_put_is_none(store: Store) -> None:
    assert await store.get("config/head") is None


async def test_an_empty_value_is_a_value(store: Store) -> None:
    revision = await store.put("empty", b"")
    assert await store.get("empty") == Entry("empty", b"", revision)


@pytest.mark.parametrize("size", [380_001, 512_000])
async def test_large_values_fit(store: Store, size: int) -> None:
    value = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    revision = await store.put("large", value, expect=0)
    entry = await store.get("large")
    assert entry is not None
    assert (entry.value, entry.revision) == (value, revision)
    with pytest.raises(Conflict):
        await store.put("large", value[:-1] + b"y", expect=0)
    assert await store.put("large", b"small again", expect=revision) > revision


async def test_a_value_over_the_limit_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="512001 bytes"):
        await store.put("large", b"x" * 512_001)
    assert await store.get("large") is None


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "a b", "ä", "../a", "a/./b", "a?b"])
async def test_keys_outside_of_the_alphabet_are_refused(store: Store, key: str) -> None:
    with pytest.raises(StoreError, match="is no key"):
        await store.put(key, b"x")
    with pytest.raises(StoreError, match="is no key"):
        await store.get(key)


async def test_revisions_grow_also_over_deletion(store: Store) -> None:
    first = await store.put("key", b"1")
    second = await store.put("key", b"2")
    await store.delete("key")
    third = await store.put("key", b"3")
    assert first < second < third


async def test_scan_is_ordered_and_knows_its_prefix(store: Store) -> None:
    for key in ("b/2", "b/10", "a/1", "b.x", "b/1/z", "c"):
        await store.put(key, key.encode())
    assert [entry.key for entry in await store.scan("b/")] == ["b/1/z", "b/10", "b/2"]
    assert [entry.key for entry in await store.scan("b")] == ["b.x", "b/1/z", "b/10", "b/2"]
    assert [entry.value for entry in await store.scan("b/1")] == [b"b/1/z", b"b/10"]
    assert [entry.key for entry in await store.scan("")] == ["a/1", "b.x", "b/1/z", "b/10", "b/2", "c"]
    assert await store.scan("nothing/") == []


async def test_put_with_expect_zero_only_creates(store: Store) -> None:
    revision = await store.put("key", b"1", expect=0)
    with pytest.raises(Conflict) as caught:
        await store.put("key", b"2", expect=0)
    assert (caught.value.key, caught.value.expected, caught.value.found) == ("key", 0, revision)


async def test_put_with_expect_only_replaces_that_revision(store: Store) -> None:
    first = await store.put("key", b"1")
    second = await store.put("key", b"2", expect=first)
    with pytest.raises(Conflict) as caught:
        await store.put("key", b"3", expect=first)
    assert caught.value.found == second
    entry = await store.get("key")
    assert entry is not None
    assert entry.value == b"2"


async def test_put_over_what_is_gone_is_a_conflict(store: Store) -> None:
    revision = await store.put("key", b"1")
    await store.delete("key")
    with pytest.raises(Conflict) as caught:
        await store.put("key", b"2", expect=revision)
    assert caught.value.found == 0


async def test_delete_removes_and_may_be_repeated(store: Store) -> None:
    await store.put("key", b"1")
    await store.delete("key")
    await store.delete("key")
    assert await store.get("key") is None


async def test_delete_with_expect(store: Store) -> None:
    first = await store.put("key", b"1")
    second = await store.put("key", b"2")
    for wrong in (first, 0):
        with pytest.raises(Conflict):
            await store.delete("key", expect=wrong)
    await store.delete("key", expect=second)
    with pytest.raises(Conflict):
        await store.delete("key", expect=second)
    await store.delete("key", expect=0)


async def test_of_fifty_parallel_writers_exactly_one_wins(store: Store) -> None:
    for round_ in range(3):
        entry = await store.get("contended")
        at = entry.revision if entry else 0
        names = [f"{round_}-{number}".encode() for number in range(50)]
        results = await asyncio.gather(*(store.put("contended", name, expect=at) for name in names), return_exceptions=True)
        winners = [name for name, result in zip(names, results, strict=True) if isinstance(result, int)]
        assert len(winners) == 1
        assert sum(isinstance(result, Conflict) for result in results) == 49
        after = await store.get("contended")
        assert after is not None
        assert after.value == winners[0]
        assert after.revision in results


async def test_watch_begins_with_what_is_there(store: Store) -> None:
    await store.put("seen/a", b"1")
    await store.put("other", b"1")
    async with watching(store, "seen/") as changes:
        assert [entry.key for entry in await anext(changes)] == ["seen/a"]


async def test_watch_begins_with_nothing_when_there_is_nothing(store: Store) -> None:
    async with watching(store, "seen/") as changes:
        assert await anext(changes) == []
        await store.put("seen/a", b"1")
        assert [entry.value for entry in await next_list(changes, bool)] == [b"1"]


async def test_watch_tells_of_writes_and_deletions(store: Store) -> None:
    await store.put("seen/a", b"1")
    async with watching(store, "seen/") as changes:
        await anext(changes)
        await store.put("seen/a", b"2")
        assert [entry.value for entry in await next_list(changes, lambda found: found[0].value == b"2")] == [b"2"]
        await store.put("seen/b", b"3")
        assert [entry.key for entry in await next_list(changes, lambda found: len(found) == 2)] == ["seen/a", "seen/b"]
        await store.delete("seen/a")
        await store.delete("seen/b")
        await next_list(changes, lambda found: not found)


async def test_a_slow_watcher_gets_the_last_state(store: Store) -> None:
    async with watching(store, "seen/") as changes:
        await anext(changes)
        for number in range(20):
            await store.put("seen/a", b"%d" % number)
        assert [entry.value for entry in await next_list(changes, lambda found: found[0].value == b"19")] == [b"19"]


async def test_several_watchers_hear_the_same(store: Store) -> None:
    async with watching(store, "seen/") as one, watching(store, "seen/") as two:
        for changes in (one, two):
            assert await anext(changes) == []
        await store.put("seen/a", b"1")
        for changes in (one, two):
            assert [entry.value for entry in await next_list(changes, bool)] == [b"1"]


async def test_close_is_idempotent(store: Store) -> None:
    await store.put("key", b"1")
    await store.close()
    await store.close()
