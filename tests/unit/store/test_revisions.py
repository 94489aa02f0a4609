"""The configuration repository, over a store in memory that a test can break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

import pytest

from meshlib_control.errors import Conflict, StoreError
from meshlib_control.store.memory import MemoryStore
from meshlib_control.store.revisions import RevisionContent, Revisions
from meshlib_control.store.trees import HEAD, OBJECTS, TREES, Changes
from tests.support.polling import eventually

ROUTE = {"kind": "VirtualService", "spec": {"hosts": ["reviews"]}}
RULE = {"kind": "DestinationRule", "spec": {"host": "reviews"}}


class Breakable(MemoryStore):
    """Counts writes; loses the answer to the next write of a key, or fails reads of it."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []
        self.lose_answer_of = ""
        self.fail_reads_of = ""

    async def get(self, key: str) -> Any:
        if self.fail_reads_of and key.startswith(self.fail_reads_of):
            raise StoreError(f"{key} cannot be read")
        return await super().get(key)

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int:
        self.writes.append(key)
        revision = await super().put(key, value, expect=expect)
        if key == self.lose_answer_of:
            self.lose_answer_of = ""
            raise StoreError("connection lost")
        return revision


@pytest.fixture
def store() -> Breakable:
    return Breakable()


@pytest.fixture
def revisions(store: Breakable) -> Revisions:
    return Revisions(store, retry=0.01)


async def put(revisions: Revisions, expect: int | None = None, /, **documents: Any) -> int:
    changes = Changes({f"Kind/default/{name}": document for name, document in documents.items()})
    return await revisions.apply(changes, expect=expect, author="ann", message="test", now=1000.0)


def watching(revisions: Revisions) -> aclosing[AsyncGenerator[RevisionContent, None]]:
    return aclosing(cast(AsyncGenerator[RevisionContent, None], revisions.watch()))


async def test_before_the_first_apply_there_is_revision_zero(revisions: Revisions) -> None:
    assert await revisions.head() == 0
    assert await revisions.read() == RevisionContent()
    assert await revisions.history() == []


async def test_what_was_applied_is_read(revisions: Revisions) -> None:
    assert await put(revisions, a=ROUTE, b=RULE) == 1
    content = await revisions.read()
    assert content.documents == {"Kind/default/a": ROUTE, "Kind/default/b": RULE}
    assert content.created == {"Kind/default/a": 1, "Kind/default/b": 1}
    assert (content.revision, content.author, content.message, content.time) == (1, "ann", "test", 1000.0)


async def test_created_is_the_revision_that_first_stored_a_key(revisions: Revisions) -> None:
    await put(revisions, a=ROUTE)
    await put(revisions, a=RULE, b=RULE)
    assert (await revisions.read()).created == {"Kind/default/a": 1, "Kind/default/b": 2}
    await revisions.apply(Changes(deletes=["Kind/default/a"]), expect=None, author="", message="", now=0.0)
    await put(revisions, a=ROUTE)
    assert (await revisions.read()).created == {"Kind/default/a": 4, "Kind/default/b": 2}, "a key made anew is young"


async def test_puts_and_deletes_happen_together(revisions: Revisions) -> None:
    await put(revisions, a=ROUTE, b=RULE)
    changes = Changes({"Kind/default/c": RULE}, deletes=["Kind/default/a", "Kind/default/unknown"])
    assert await revisions.apply(changes, expect=1, author="", message="", now=0.0) == 2
    assert set((await revisions.read()).documents) == {"Kind/default/b", "Kind/default/c"}


async def test_what_changes_nothing_makes_no_revision(revisions: Revisions, store: Breakable) -> None:
    await put(revisions, a=ROUTE)
    store.writes.clear()
    assert await put(revisions, a=dict(reversed(ROUTE.items()))) == 1
    assert await revisions.apply(Changes(deletes=["Kind/x/y"]), expect=1, author="", message="", now=0.0) == 1
    assert store.writes == []


async def test_a_wrong_expectation_is_a_conflict_and_stores_nothing(revisions: Revisions) -> None:
    await put(revisions, a=ROUTE)
    for expect in (0, 2):
        with pytest.raises(Conflict) as caught:
            await put(revisions, expect, a=RULE)
        assert (caught.value.expected, caught.value.found) == (expect, 1)
    assert (await revisions.read()).documents == {"Kind/default/a": ROUTE}
    assert await put(revisions, 1, a=RULE) == 2


async def test_one_document_that_cannot_be_stored_stores_nothing(revisions: Revisions, store: Breakable) -> None:
    with pytest.raises(StoreError, match="Kind/default/bad"):
        await put(revisions, good=ROUTE, bad={"x": float("inf")})
    assert store.writes == []


async def test_of_parallel_appliers_with_one_expectation_exactly_one_wins(store: Breakable) -> None:
    replicas = [Revisions(store) for _ in range(50)]
    results = await asyncio.gather(*(put(each, 0, a=ROUTE) for each in replicas), return_exceptions=True)
    assert results.count(1) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 49
    assert await replicas[0].head() == 1


async def test_parallel_appliers_without_expectation_all_win(store: Breakable) -> None:
    replicas = [Revisions(store) for _ in range(10)]
    results = await asyncio.gather(*(put(each, None, **{f"r{n}": ROUTE}) for n, each in enumerate(replicas)))
    assert sorted(results) == list(range(1, 11))
    assert len((await replicas[0].read()).documents) == 10


async def test_a_lost_answer_to_a_write_that_happened_is_no_failure(revisions: Revisions, store: Breakable) -> None:
    store.lose_answer_of = HEAD
    assert await put(revisions, 0, a=ROUTE) == 1
    assert await revisions.head() == 1


async def test_documents_are_stored_once(revisions: Revisions, store: Breakable) -> None:
    await put(revisions, a=ROUTE, b=dict(ROUTE))
    await put(revisions, c=RULE)
    assert len(await store.scan(OBJECTS)) == 2
    assert len(await store.scan(TREES)) == 2


async def test_many_documents_are_read(revisions: Revisions, store: Breakable) -> None:
    documents: dict[str, Any] = {f"r{number}": {"number": number} for number in range(200)}
    await put(revisions, None, **documents)
    content = await Revisions(store).read()
    assert {key.rpartition("/")[2]: document for key, document in content.documents.items()} == documents


async def test_history_is_newest_first(revisions: Revisions) -> None:
    await put(revisions, a=ROUTE, b=ROUTE)
    await put(revisions, a=RULE, c=RULE)
    await revisions.apply(Changes(deletes=["Kind/default/a"]), expect=2, author="bob", message="clean", now=2.0)
    lines = await revisions.history()
    assert [(line.revision, line.parent) for line in lines] == [(3, 2), (2, 1), (1, 0)]
    counts = [(line.resources, line.added, line.changed, line.removed) for line in lines]
    assert counts == [
        (2, 0, 0, 1),
        (3, 1, 1, 0),
        (2, 2, 0, 0),
    ]
    assert (lines[0].author, lines[0].message, lines[0].time) == ("bob", "clean", 2.0)
    assert [line.revision for line in await revisions.history(limit=1)] == [3]


async def test_diff_has_both_sides(revisions: Revisions) -> None:
    await put(revisions, a=ROUTE, b=ROUTE, same=RULE)
    changes = Changes({"Kind/default/b": RULE, "Kind/default/c": RULE}, deletes=["Kind/default/a"])
    await revisions.apply(changes, expect=1, author="", message="", now=0.0)
    found = [(each.key, each.before, each.after) for each in await revisions.diff(1, 2)]
    assert found == [("Kind/default/a", ROUTE, None), ("Kind/default/b", ROUTE, RULE), ("Kind/default/c", None, RULE)]
    assert [each.after for each in await revisions.diff(0, 1)] == [ROUTE, ROUTE, RULE]
    assert await revisions.diff(2, 2) == []


async def test_rollback_is_a_new_revision_with_the_old_content(revisions: Revisions) -> None:
    await put(revisions, a=ROUTE)
    await put(revisions, a=RULE, b=RULE)
    assert await revisions.rollback(1, expect=2, author="bob", message="oops", now=3.0) == 3
    content = await revisions.read()
    assert content.documents == {"Kind/default/a": ROUTE}
    assert content.created == {"Kind/default/a": 1}
    assert (await revisions.history())[0].rolled_back_to == 1
    assert await revisions.rollback(1, expect=None, author="", message="", now=4.0) == 3, "nothing to do"
    with pytest.raises(Conflict):
        await revisions.rollback(2, expect=2, author="", message="", now=4.0)


async def test_a_revision_that_is_not_kept_is_named(revisions: Revisions) -> None:
    with pytest.raises(StoreError, match="there is no revision 7; there are none yet"):
        await revisions.read(7)
    await put(revisions, a=ROUTE)
    with pytest.raises(StoreError, match="there is no revision 7; kept are 1 to 1"):
        await revisions.diff(1, 7)


async def test_only_the_last_revisions_and_what_they_point_to_stay(store: Breakable) -> None:
    revisions = Revisions(store, keep=4)
    for number in range(20):
        await put(revisions, always=RULE, a={"number": number})
    assert [line.revision for line in await revisions.history()] == [20, 19, 18, 17]
    assert len(await store.scan(TREES)) == 4
    assert len(await store.scan(OBJECTS)) == 5
    assert (await revisions.read(17)).documents["Kind/default/a"] == {"number": 16}


async def test_pruning_spares_what_a_writer_has_just_written_again(store: Breakable) -> None:
    """A document of a dropped revision comes back while it is being pruned."""
    revisions, other = Revisions(store, keep=1), Revisions(store, keep=1)
    await put(revisions, a=ROUTE)
    await put(revisions, a=RULE)

    scan = store.scan

    async def scan_then_write(prefix: str) -> Any:
        listed = await scan(prefix)
        if prefix == TREES:
            await put(other, a=ROUTE)
        return listed

    store.scan = scan_then_write  # type: ignore[method-assign]
    await revisions.prune()
    store.scan = scan  # type: ignore[method-assign]
    assert (await Revisions(store).read()).documents == {"Kind/default/a": ROUTE}


async def test_orphans_of_a_crashed_writer_are_pruned(revisions: Revisions, store: Breakable) -> None:
    await put(revisions, a=ROUTE)
    await store.put(f"{OBJECTS}{'0' * 64}", b"1\nx")
    await store.put(f"{TREES}2/{'0' * 64}", b"1\nx")
    assert await revisions.prune() == 2
    assert (await Revisions(store).read()).documents == {"Kind/default/a": ROUTE}


async def test_watch_yields_each_revision_once(revisions: Revisions) -> None:
    async with watching(revisions) as contents:
        assert (await anext(contents)).revision == 0
        await put(revisions, a=ROUTE)
        assert (await anext(contents)).documents == {"Kind/default/a": ROUTE}
        await revisions.prune()
        await put(revisions, a=RULE)
        assert (await anext(contents)).revision == 2


async def test_watch_keeps_the_last_good_content_when_the_store_was_wiped(revisions: Revisions, store: Breakable) -> None:
    async with watching(revisions) as contents:
        await put(revisions, a=ROUTE)
        assert (await anext(contents)).revision == 1
        await store.delete(HEAD)
        waiting = asyncio.ensure_future(anext(contents))
        await eventually(lambda: revisions.suspicious)
        assert not waiting.done()
        assert "revision 1 is kept" in revisions.suspicious
        await put(revisions, b=RULE)
        assert (await waiting).documents == {"Kind/default/b": RULE}, "real configuration ends it"
        assert revisions.suspicious == ""


async def test_watch_waits_out_a_revision_that_cannot_be_read(revisions: Revisions, store: Breakable) -> None:
    async with watching(revisions) as contents:
        assert (await anext(contents)).revision == 0
        store.fail_reads_of = OBJECTS
        await put(Revisions(store), a=ROUTE)
        waiting = asyncio.ensure_future(anext(contents))
        await eventually(lambda: revisions.suspicious)
        assert "cannot be read" in revisions.suspicious
        store.fail_reads_of = ""
        assert (await waiting).documents == {"Kind/default/a": ROUTE}


@pytest.mark.parametrize("damage", [b"garbage", None])
async def test_damaged_objects_are_named(revisions: Revisions, store: Breakable, damage: bytes | None) -> None:
    await put(revisions, a=ROUTE)
    (entry,) = await store.scan(OBJECTS)
    await (store.put(entry.key, damage) if damage else store.delete(entry.key))
    with pytest.raises(StoreError, match=entry.key):
        await Revisions(store).read()
