"""The attempts of one call over HTTP/1.1: each is sent over its endpoint's connections, and comes to an outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast

from meshlib.flow.commands import Attempt
from meshlib.model.call import Call
from meshlib.model.outcome import Outcome, Reset
from meshlib.model.request import Request
from meshlib.runtime.http.aio_response import AsyncResponse
from meshlib.runtime.http.blocking_response import BlockingResponse
from meshlib.runtime.racing import Abort, AsyncRace, BlockingRace
from meshlib.wire.errors import WireError
from meshlib.wire.request import encode_head

if TYPE_CHECKING:
    from meshlib.runtime.surroundings import Network


class AsyncAttempts:
    """What a driver sends with.  ``last`` is the open response of the attempt before; it is given up for the next one."""

    __slots__ = ("_call", "_clock", "_loop", "_network", "_request", "_whole", "last")

    def __init__(self, network: Network, request: Request, call: Call, clock: Callable[[], float], *, whole: bool) -> None:
        """On the running loop.  `whole`: an attempt is over when its body is there, too."""
        self._network = network
        self._request = request
        self._call = call
        self._clock = clock
        self._whole = whole
        self._loop = asyncio.get_running_loop()
        self.last: AsyncResponse | None = None

    async def __call__(self, attempt: Attempt) -> Outcome:
        if self.last is not None:
            self.last.abandon()
            self.last = None
        request = self._request
        try:
            self.last = response = await self._network.for_loop(attempt.host, attempt.cluster, self._loop).send(
                _head(request, self._call, attempt),
                request.body,  # type: ignore[arg-type]  # an iterable of the wrong kind is the caller's error
                method=request.method,
                timeouts=request.timeouts,
                deadline=attempt.deadline,
                deadline_name=attempt.deadline_name,
                whole=self._whole and attempt.deadline_name != "per_try",  # a try's timeout ends with the head
            )
        except WireError as error:
            return _reset(error, self._clock)
        return Outcome(
            self._clock(), status=response.status, headers=response.headers, complete=response.closed, response=response
        )

    def race(self, sleep: Callable[[float], Awaitable[None]]) -> AsyncRace:
        """Several at the same time."""
        return AsyncRace(self._apart, _abandon, sleep=sleep, clock=self._clock)

    def _apart(self, attempt: Attempt) -> Awaitable[Outcome]:
        return AsyncAttempts(self._network, self._request, self._call, self._clock, whole=self._whole)(attempt)


class BlockingAttempts:
    """The same for callers that block their thread."""

    __slots__ = ("_call", "_clock", "_network", "_request", "_whole", "last")

    def __init__(self, network: Network, request: Request, call: Call, clock: Callable[[], float], *, whole: bool) -> None:
        self._network = network
        self._request = request
        self._call = call
        self._clock = clock
        self._whole = whole
        self.last: BlockingResponse | None = None

    def __call__(self, attempt: Attempt, abort: Abort | None = None) -> Outcome:
        """`abort`: by which another thread can end it."""
        if self.last is not None:
            self.last.close()
            self.last = None
        request = self._request
        try:
            self.last = response = self._network.blocking(attempt.host, attempt.cluster).send(
                _head(request, self._call, attempt),
                request.body,  # type: ignore[arg-type]
                method=request.method,
                timeouts=request.timeouts,
                deadline=attempt.deadline,
                deadline_name=attempt.deadline_name,
                whole=self._whole and attempt.deadline_name != "per_try",
                begun=None if abort is None else abort.begun,
            )
        except WireError as error:
            return _reset(error, self._clock)
        return Outcome(
            self._clock(), status=response.status, headers=response.headers, complete=response.closed, response=response
        )

    def race(self) -> BlockingRace:
        """Several at the same time, each in a thread of its own."""
        return BlockingRace(self._apart, _close, clock=self._clock)

    def _apart(self, attempt: Attempt, abort: Abort) -> Outcome:
        return BlockingAttempts(self._network, self._request, self._call, self._clock, whole=self._whole)(attempt, abort)


def _abandon(outcome: Outcome) -> None:
    if outcome.response is not None:
        cast("AsyncResponse", outcome.response).abandon()


def _close(outcome: Outcome) -> None:
    if outcome.response is not None:
        cast("BlockingResponse", outcome.response).close()


def _reset(error: WireError, clock: Callable[[], float]) -> Outcome:
    if error.reset is Reset.LOCAL and error.__cause__ is not None:
        raise error.__cause__  # the caller's own body failed: that is the caller's exception, not ours
    return error.outcome(clock())


def _head(request: Request, call: Call, attempt: Attempt) -> bytes:
    """Path, host and headers are the call's: the route may have changed them."""
    more = attempt.headers
    sent = [*call.headers, *more] if more else call.headers
    return encode_head(request.method, call.path, sent, authority=call.host, body_length=request.length)
