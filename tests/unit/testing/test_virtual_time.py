"""Time that passes only when everybody waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from meshlib.testing import VirtualTime


@pytest.fixture
def time() -> Iterator[VirtualTime]:
    made = VirtualTime()
    yield made
    made.close()


def test_timers_of_asyncio_cost_nothing_and_are_exact(time: VirtualTime) -> None:
    async def main() -> list[float]:
        seen = []
        try:
            async with asyncio.timeout(1.5):
                await asyncio.sleep(86_400.0)
        except TimeoutError:
            seen.append(time.clock.now)
        await asyncio.sleep(0.1)
        return [*seen, time.clock.now]

    assert time.run(main()) == [1001.5, 1001.6]


def test_what_is_due_happens_in_its_order(time: VirtualTime) -> None:
    order: list[str] = []

    async def after(seconds: float, name: str) -> None:
        await asyncio.sleep(seconds)
        order.append(f"{name}@{time.clock.now:g}")

    async def main() -> None:
        await asyncio.gather(after(3, "c"), after(1, "a"), after(2, "b"), after(1, "also a"))

    time.run(main())
    assert order == ["a@1001", "also a@1001", "b@1002", "c@1003"]


def test_what_was_left_waiting_goes_on_with_the_next_who_waits(time: VirtualTime) -> None:
    done: list[float] = []

    async def later() -> None:
        await asyncio.sleep(5.0)
        done.append(time.clock.now)

    async def main() -> asyncio.Task[None]:
        return asyncio.create_task(later())

    left = time.run(main())
    time.sleep(4.0)
    assert done == []
    time.sleep(4.0)
    assert done == [1005.0]
    assert left.done()


def test_blocking_functions_take_turns_with_the_loop(time: VirtualTime) -> None:
    order: list[str] = []

    def work(name: str, seconds: float) -> str:
        order.append(f"{name} begins")
        time.sleep(seconds)
        order.append(f"{name} ends")
        return name

    async def main() -> list[str]:
        return list(await asyncio.gather(time.fibers.call(work, "slow", 2.0), time.fibers.call(work, "fast", 1.0)))

    assert time.run(main()) == ["slow", "fast"]
    assert order == ["slow begins", "fast begins", "fast ends", "slow ends"]
    assert time.clock.now == 1002.0


def test_a_blocking_function_raises_what_it_raises(time: VirtualTime) -> None:
    def work(error: BaseException) -> None:
        raise error

    with pytest.raises(KeyError):
        time.run(time.fibers.call(work, KeyError("x")))
    with pytest.raises(RuntimeError, match="StopIteration"):
        time.run(time.fibers.call(work, StopIteration()))


def test_the_end_wakes_who_still_waits() -> None:
    time = VirtualTime()
    ended: list[str] = []

    def work() -> None:
        try:
            time.sleep(3600.0)
        finally:
            ended.append("blocking")

    async def main() -> None:
        loop.append(asyncio.create_task(time.fibers.call(work)))
        await asyncio.sleep(1.0)

    loop: list[asyncio.Task[None]] = []
    time.run(main())
    before = threading.active_count()
    time.close()
    time.close()
    assert ended == ["blocking"]
    assert threading.active_count() == before - 1


def test_the_clock_stands_still_while_a_thread_works(time: VirtualTime) -> None:
    """The thread is let go by something that no timer may overtake."""
    gate = threading.Event()

    async def main() -> float:
        work = asyncio.create_task(asyncio.to_thread(gate.wait, 30.0))
        asyncio.get_running_loop().call_later(1.0, lambda: None)
        await asyncio.sleep(0)
        threading.Timer(0.02, gate.set).start()
        async with asyncio.timeout(5.0):
            assert await work
        return time.clock.now

    assert time.run(main()) == 1000.0


def test_several_threads_may_ask_at_the_same_time(time: VirtualTime) -> None:
    def ask() -> None:
        for _ in range(20):
            time.sleep(1.0)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert not any(thread.is_alive() for thread in threads)
    assert time.clock.now >= 1020.0


async def test_another_loop_is_given_its_turns(time: VirtualTime) -> None:
    """Whoever has something to ask has asked it before time moves."""
    asked: list[float] = []

    async def ask(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        asked.append(time.clock.now)
        await time.asleep(1.0)

    await asyncio.gather(*(ask(turns) for turns in range(10)))
    assert asked == [1000.0] * 10
    assert time.clock.now == 1001.0


async def test_who_is_cancelled_elsewhere_is_cancelled_here(time: VirtualTime) -> None:
    seen: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    task = asyncio.create_task(time.arun(work()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await time.asleep(0.0)
    assert seen == ["cancelled"]


def test_settling_lets_everything_happen_but_time(time: VirtualTime) -> None:
    seen: list[str] = []

    async def steps() -> None:
        for name in ("one", "two"):
            seen.append(name)
            await asyncio.sleep(0)
        await asyncio.sleep(1.0)
        seen.append("late")

    async def main() -> asyncio.Task[None]:
        return asyncio.create_task(steps())

    task = time.run(main())
    time.settle()
    assert seen == ["one", "two"]
    assert time.clock.now == 1000.0
    time.sleep(2.0)
    assert task.done()
