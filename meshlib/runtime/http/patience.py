"""A time limit for waiting on the network that a blocked event loop does not use up."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final

from meshlib.runtime.http.settings import NEVER

_TURNS: Final = 5
"""Turns of the loop, each of which polls: a connection that the kernel has made takes four to reach its waiter."""

_TURN: Final = 0.001  # not 0: uvloop would run that before it polls


class Patience:
    """``async with Patience(seconds):`` raises TimeoutError when `seconds` passed, as asyncio.timeout does.

    But what the loop has had no chance to see may be there already: an application that computes for a second must not take
    its own lateness for the network's.  So when time is up, the loop first gets to look at what happened meanwhile.
    """

    __slots__ = ("_handle", "_limit", "_loop")

    def __init__(self, seconds: float) -> None:
        """`seconds` may be NEVER."""
        self._loop = asyncio.get_running_loop()
        self._limit = asyncio.timeout(None)
        self._handle: asyncio.TimerHandle | None = None
        if seconds != NEVER:
            self._handle = self._loop.call_later(max(0.0, seconds), self._ring, _TURNS)

    def expired(self) -> bool:
        return self._limit.expired()

    async def __aenter__(self) -> Patience:
        await self._limit.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
        await self._limit.__aexit__(kind, error, trace)

    def _ring(self, turns: int) -> None:
        if turns:
            self._handle = self._loop.call_later(_TURN, self._ring, turns - 1)
        else:
            self._limit.reschedule(self._loop.time())
