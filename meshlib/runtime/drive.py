"""The two drivers of client flows.  All logic is in the flow; all waiting is here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager

from meshlib.flow.client import ClientFlow
from meshlib.flow.commands import Attempt, Result, Sleep
from meshlib.flow.served import Served
from meshlib.model.outcome import Outcome
from meshlib.runtime.racing import AsyncRace, BlockingRace

Lock = AbstractContextManager[object]
"""One short lock for all policy state of a mesh: steps never wait, so it is never held for more than microseconds."""


def drive(
    flow: ClientFlow,
    send: Callable[[Attempt], Outcome],
    lock: Lock,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
    race: Callable[[], BlockingRace] | None = None,
) -> Served | None:
    """Run a flow with blocking waits.  Raises what the flow raises; a flow is always closed, so its slots are given back.

    `race`: makes what runs attempts at the same time; without one, no flow may ask for that.
    """
    racing: BlockingRace | None = None
    try:
        with lock:
            command = next(flow)
        while True:
            result: Result
            if type(command) is Attempt:
                result = send(command)
            elif type(command) is Sleep:
                sleep(command.seconds)
                result = clock()
            else:
                assert race is not None
                racing = racing or race()
                result = racing.perform(command)
            with lock:
                command = flow.send(result)
    except StopIteration as stop:
        served: Served | None = stop.value
        if racing is not None:
            racing.close(served.outcome if served is not None else None)
        return served
    except BaseException:
        with lock:
            flow.close()
        if racing is not None:
            racing.close(None)
        raise


async def adrive(
    flow: ClientFlow,
    send: Callable[[Attempt], Awaitable[Outcome]],
    lock: Lock,
    sleep: Callable[[float], Awaitable[None]],
    clock: Callable[[], float],
    race: Callable[[Callable[[float], Awaitable[None]]], AsyncRace] | None = None,
) -> Served | None:
    """The same, with awaits."""
    racing: AsyncRace | None = None
    try:
        with lock:
            command = next(flow)
        while True:
            result: Result
            if type(command) is Attempt:
                result = await send(command)
            elif type(command) is Sleep:
                await sleep(command.seconds)
                result = clock()
            else:
                assert race is not None
                racing = racing or race(sleep)
                result = await racing.perform(command)
            with lock:
                command = flow.send(result)
    except StopIteration as stop:
        served: Served | None = stop.value
        if racing is not None:
            racing.close(served.outcome if served is not None else None)
        return served
    except BaseException:
        with lock:
            flow.close()
        if racing is not None:
            racing.close(None)
        raise
