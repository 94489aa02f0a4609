"""Publishing, waiting and listening; forgetting in a forked child."""

from __future__ import annotations

import asyncio
import threading

import pytest

from meshlib.model.snapshot import Snapshot
from meshlib.runtime.snapshots import ControlState, Reach, SnapshotStore


def newer(generation: int) -> Snapshot:
    return Snapshot(generation)


def has(snapshot: Snapshot, _: ControlState) -> bool:
    return snapshot.generation >= 2


def test_a_wait_for_what_is_there_returns_at_once() -> None:
    store = SnapshotStore()
    store.publish(newer(2))
    assert store.wait(has, 0.0)


def test_a_wait_for_what_does_not_come_ends_in_time() -> None:
    store = SnapshotStore()
    store.publish(newer(1))
    assert not store.wait(has, 0.0)


def test_a_thread_is_woken_by_the_snapshot_that_it_waits_for() -> None:
    store = SnapshotStore()
    found: list[bool] = []
    looked = threading.Event()

    def look(snapshot: Snapshot, control: ControlState) -> bool:
        looked.set()
        return has(snapshot, control)

    thread = threading.Thread(target=lambda: found.append(store.wait(look, 30.0)))
    thread.start()
    assert looked.wait(30.0)
    store.publish(newer(1))
    assert found == []
    store.publish(newer(2))
    thread.join(30.0)
    assert found == [True]
    assert store._waiters == {}


def test_losing_the_control_service_wakes_too() -> None:
    """A new target fails fast and says why."""
    store = SnapshotStore()
    store.set_control(ControlState(Reach.UNREACHABLE, "connection refused"))
    assert store.wait(lambda _, control: control.reach is Reach.UNREACHABLE, 0.0)


async def test_coroutines_wait_without_a_thread() -> None:
    store = SnapshotStore()
    waiting = [asyncio.create_task(store.wait_async(has, 30.0)) for _ in range(3)]
    await asyncio.sleep(0)
    threading.Thread(target=store.publish, args=(newer(2),)).start()
    assert await asyncio.gather(*waiting) == [True] * 3
    assert store._waiters == {}


async def test_a_coroutines_wait_ends_in_time() -> None:
    assert not await SnapshotStore().wait_async(has, 0.0)


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    store = SnapshotStore()
    waiting = asyncio.create_task(store.wait_async(has, None))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert store._waiters == {}


def test_a_loop_that_was_closed_meanwhile_does_not_trouble_the_publisher() -> None:
    store = SnapshotStore()
    loop = asyncio.new_event_loop()
    task = loop.create_task(store.wait_async(has, None))
    loop.run_until_complete(asyncio.sleep(0))
    waiters = dict(store._waiters)
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    store._waiters.update(waiters)
    store.publish(newer(2))
    assert store.current.generation == 2


def test_listeners_hear_of_a_snapshot_before_anybody_can_see_it() -> None:
    """Who finds a target in the current snapshot may rely on what was compiled from it."""
    store = SnapshotStore()
    seen: list[tuple[int, int]] = []
    store.listen(lambda snapshot: seen.append((snapshot.generation, store.current.generation)))
    store.publish(newer(2))
    assert seen == [(2, 0)]
    assert store.current.generation == 2


def test_a_listener_that_fails_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    store = SnapshotStore()
    heard: list[int] = []

    def fail(_: Snapshot) -> None:
        raise ZeroDivisionError

    store.listen(fail)
    stop = store.listen(lambda snapshot: heard.append(snapshot.generation))
    store.publish(newer(1))
    stop()
    stop()
    store.publish(newer(2))
    assert heard == [1]
    assert "a snapshot listener failed" in caplog.text


def test_a_forked_child_keeps_the_snapshot_and_nothing_else() -> None:
    store = SnapshotStore()
    store.publish(newer(2))
    store.set_control(ControlState(Reach.CONNECTED))
    lock = store._lock
    store.forget()
    assert store.current.generation == 2
    assert store.control_state.reach is Reach.IDLE
    assert store._lock is not lock
