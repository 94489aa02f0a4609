"""The two drivers of client flows.  All logic is in the flow; all waiting is here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager

from meshlib.flow.client import ClientFlow
from meshlib.flow.commands import Attempt
from meshlib.flow.served import Served
from meshlib.model.outcome import Outcome

Lock = AbstractContextManager[object]
"""One short lock for all policy state of a mesh: steps never wait, so it is never held for more than microseconds."""


def drive(
    flow: ClientFlow,
    send: Callable[[Attempt], Outcome],
    lock: Lock,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> Served | None:
    """Run a flow with blocking waits.  Raises what the flow raises; a flow is always closed, so its slots are given back."""
    try:
        with lock:
            command = next(flow)
        while True:
            result: Outcome | float
            if type(command) is Attempt:
                result = send(command)
            else:
                sleep(command.seconds)  # type: ignore[union-attr]  # the other command there is
                result = clock()
            with lock:
                command = flow.send(result)
    except StopIteration as stop:
        served: Served | None = stop.value
        return served
    except BaseException:
        with lock:
            flow.close()
        raise


async def adrive(
    flow: ClientFlow,
    send: Callable[[Attempt], Awaitable[Outcome]],
    lock: Lock,
    sleep: Callable[[float], Awaitable[None]],
    clock: Callable[[], float],
) -> Served | None:
    """The same, with awaits."""
    try:
        with lock:
            command = next(flow)
        while True:
            result: Outcome | float
            if type(command) is Attempt:
                result = await send(command)
            else:
                await sleep(command.seconds)  # type: ignore[union-attr]
                result = clock()
            with lock:
                command = flow.send(result)
    except StopIteration as stop:
        served: Served | None = stop.value
        return served
    except BaseException:
        with lock:
            flow.close()
        raise
