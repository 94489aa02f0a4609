"""The asyncio pool of one endpoint.

A connection carries one request at a time.  Idle connections are used last in, first out, so that the surplus of a peak ages
and is closed.  When none is idle, Envoy's rules hold (``envoy.config.cluster.v3.CircuitBreakers``): the request counts as
pending, opens a connection if the cluster may have one more (or this endpoint has none), and otherwise waits in line.
The pool never sends anything twice: whether a failed request may be repeated is the flow's decision.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable
from copy import copy
from time import monotonic
from typing import Final

from meshlib.errors import TimeoutName
from meshlib.model.endpoint import Endpoint
from meshlib.runtime.http.aio_connection import AsyncConnection
from meshlib.runtime.http.aio_response import AsyncResponse
from meshlib.runtime.http.connector import AsyncConnector, AsyncTcpConnector, apply_keepalive
from meshlib.runtime.http.failures import connect_failure
from meshlib.runtime.http.patience import Patience
from meshlib.runtime.http.settings import NEVER, NO_TIMEOUTS, PoolSettings, Timeouts, earlier
from meshlib.wire.errors import (
    CannotConnect,
    LimitReached,
    NoIdentity,
    PoolTimedOut,
    RequestFailed,
    TimedOut,
    WireError,
)
from meshlib.wire.request import asks_to_close, expects_continue

SMALL: Final = 32 * 1024  # a body up to this size is written together with its head


class AsyncPool:
    """Connections to `endpoint` on the running loop.  Made, used and closed on that loop only.

    `settings` may be replaced at any time, by ones with the same `limits`.  After a fork, a child forgets its parent's pools
    without calling them: their loop is the parent's.
    """

    def __init__(self, endpoint: Endpoint, settings: PoolSettings, *, connector: AsyncConnector | None = None) -> None:
        self.endpoint = endpoint
        self.settings = settings
        self.draining = False
        self._connector = connector or AsyncTcpConnector()
        self._loop = asyncio.get_running_loop()
        self._connections: set[AsyncConnection] = set()
        self._opening = 0
        self._idle: list[AsyncConnection] = []
        self._waiting: deque[asyncio.Future[AsyncConnection | None]] = deque()
        self._closed = False
        self._sweep: asyncio.TimerHandle | None = None
        self._sweep_at = NEVER

    def __repr__(self) -> str:
        idle, busy = len(self._idle), len(self._connections) - len(self._idle)
        state = " closed" if self._closed else " draining" if self.draining else ""
        counts = f"idle={idle} busy={busy} opening={self._opening} waiting={len(self._waiting)}"
        return f"<AsyncPool {self.endpoint.key} {counts}{state}>"

    async def send(
        self,
        head: bytes,
        body: bytes | AsyncIterable[bytes] | None = None,
        *,
        method: str = "GET",
        timeouts: Timeouts = NO_TIMEOUTS,
        deadline: float | None = None,
        deadline_name: TimeoutName = "deadline",
        whole: bool = False,
    ) -> AsyncResponse:
        """Send one request (its `head` made by `wire.request.encode_head`) and wait for the head of its response.

        `deadline`, on the clock of `time.monotonic` (which is asyncio's), holds to the end of the response's body, as does
        ``timeouts.total``; the tighter one wins and is named in the error.  One named ``per_try`` ends with the head, as in
        Envoy, unless the response is wanted whole; `limit` of the response then says what its body has.  Cancelling
        closes the connection.

        `whole`: come back when the body is complete, too; cheaper for callers who read all of it anyway.

        Raises WireError; with a body, RequestFailed with the body's own exception as its cause.
        """
        if deadline is not None or timeouts.total is not None:
            deadline, deadline_name = self._limit(timeouts.total, deadline, deadline_name)
        idle = self._idle
        connection = idle.pop() if idle else await self._acquire(timeouts, deadline, deadline_name)
        connection.begin(timeouts, deadline, deadline_name, whole=whole)
        head_only, close = method == "HEAD", asks_to_close(head)
        if body is None:
            waiter = connection.exchange(head, head_only=head_only, close=close)
        elif type(body) is bytes and len(body) <= SMALL and not expects_continue(head):
            waiter = connection.exchange(head + body, head_only=head_only, close=close)
        else:
            try:
                waiter = connection.stream(head, body, head_only=head_only, close=close)
            except BaseException:  # not iterable
                connection.abort(None)
                raise
        try:
            return await waiter
        except asyncio.CancelledError:
            connection.cancelled(waiter)
            raise

    def connect_by(self, connector: AsyncConnector) -> None:
        """Connections are opened in another way from now on; those that were opened in the old one take no new requests."""
        self._connector = connector
        self.retire()

    def retire(self) -> None:
        """Close idle connections that take no new requests: too old, or from before a change of identity or trust."""
        self._stop_sweep()
        self._sweep_idle()

    def drain(self) -> None:
        """The endpoint is leaving: idle connections close now, busy ones after their request.  `send` goes on working."""
        self.draining = True
        for connection in self._idle[:]:
            connection.abort(None)
        self._stop_sweep()

    def close(self) -> None:
        """`drain`, and refuse what comes from now on and what waits for a connection."""
        self._closed = True
        self.drain()
        self._fail_waiting(RequestFailed(f"the connection pool of {self.endpoint} was closed", sent=False))

    def abort(self) -> None:
        """`close`, and end what is under way: its callers get RequestFailed."""
        self.close()
        for connection in list(self._connections):
            connection.fail(RequestFailed(f"the connection pool of {self.endpoint} was closed"))

    def forget(self) -> None:
        """The loop is closed, and with it all that was open: from any thread, nothing here will run again."""
        connections, self._connections, self._idle = self._connections, set(), []
        for _ in range(len(connections) + self._opening):
            self.settings.limits.connection_closed()
        self._opening = 0

    # --- from the connections

    def connection_ready(self, connection: AsyncConnection) -> None:
        """Its exchange ended, and it can carry another one."""
        now = monotonic()
        if self.draining or self._is_worn(connection, now):
            connection.abort(None)
            return
        waiting = self._waiting
        while waiting:
            waiter = waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        connection.idle_since = now
        self._idle.append(connection)
        if self._sweep is None:
            self._schedule_sweep()
        elif connection.ends < self._sweep_at or self.settings.max_connection_duration:
            self._stop_sweep()  # the new one may be due before the others
            self._schedule_sweep()

    def connection_gone(self, connection: AsyncConnection) -> None:
        """It is closed."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self.settings.limits.connection_closed()
        self._offer_opening()

    # --- getting a connection

    @staticmethod
    def _limit(total: float | None, deadline: float | None, name: TimeoutName) -> tuple[float, TimeoutName]:
        now = monotonic()
        at, which = earlier(deadline, name, now=now, seconds=total, name="total")
        if at <= now:
            raise TimedOut(f"no time was left to send the request ({which} timeout)", which, sent=False)
        return at, which

    async def _acquire(self, timeouts: Timeouts, deadline: float | None, deadline_name: TimeoutName) -> AsyncConnection:
        if self._closed:
            raise RequestFailed(f"the connection pool of {self.endpoint} was closed", sent=False)
        limits = self.settings.limits
        if not limits.try_pending():
            raise LimitReached(f"{limits.pending} requests are waiting for a connection already (max_pending_requests)")
        try:
            while True:
                if self._try_opening():
                    return await self._open(timeouts.connect, deadline, deadline_name)
                connection = await self._wait(timeouts.pool, deadline, deadline_name)
                if connection is None:
                    return await self._open(timeouts.connect, deadline, deadline_name)
                if not connection.closed:
                    return connection
        finally:
            limits.pending_ended()

    async def _wait(self, pool: float | None, deadline: float | None, deadline_name: TimeoutName) -> AsyncConnection | None:
        """In line for a connection; None: for the right to open one, which is taken already."""
        now = monotonic()
        until, which = earlier(deadline, deadline_name, now=now, seconds=pool, name="pool")
        waiter: asyncio.Future[AsyncConnection | None] = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            async with Patience(until - now):
                return await waiter
        except (TimeoutError, asyncio.CancelledError) as error:
            self._give_back(waiter)
            if isinstance(error, asyncio.CancelledError):
                raise
        message = f"no connection to {self.endpoint} became free in time ({which} timeout)"
        raise PoolTimedOut(message) if which == "pool" else TimedOut(message, which, sent=False)

    def _give_back(self, waiter: asyncio.Future[AsyncConnection | None]) -> None:
        """Its owner stopped waiting; what it was given in the last moment goes to the next one."""
        if not waiter.done():
            waiter.cancel()
        if waiter.cancelled():
            if waiter in self._waiting:
                self._waiting.remove(waiter)
        elif waiter.exception() is None:
            connection = waiter.result()
            if connection is None:
                self._opening -= 1
                self.settings.limits.connection_closed()
                self._offer_opening()
            elif not connection.closed:
                self.connection_ready(connection)

    async def _open(self, connect: float | None, deadline: float | None, deadline_name: TimeoutName) -> AsyncConnection:
        """A new connection; `_try_opening` has allowed and counted it."""
        now = monotonic()
        seconds = min(connect or NEVER, self.settings.connect_timeout or NEVER)
        until, which = earlier(deadline, deadline_name, now=now, seconds=seconds, name="connect")
        limit = Patience(until - now)
        connector = self._connector
        try:
            async with limit:
                connection = await connector.open(self.endpoint, self._new_connection)
        except BaseException as error:
            self._opening -= 1
            self.settings.limits.connection_closed()
            failure = connect_failure(self.endpoint, error, which if limit.expired() else None)
            if isinstance(failure, CannotConnect):
                # As in Envoy: whoever waits for this endpoint would only run into the same wall, one after the other.
                self._fail_waiting(failure)
            else:
                self._offer_opening()
            if failure is None:
                raise
            raise failure from None if isinstance(failure, NoIdentity) else error
        self._opening -= 1
        connection.connector = connector
        connection.ends, connection.generation = connector.lifetime(connection.transport)
        self._connections.add(connection)
        if connection.closed:
            self.connection_gone(connection)
            raise CannotConnect(f"{self.endpoint} closed the connection as soon as it was made")
        if self.settings.tcp_keepalive is not None:
            apply_keepalive(connection.transport.get_extra_info("socket"), self.settings.tcp_keepalive)
        return connection

    def _new_connection(self) -> AsyncConnection:
        return AsyncConnection(self, self.settings, self._loop)

    def _try_opening(self) -> bool:
        first = not self._connections and not self._opening
        if not self.settings.limits.try_connection(first=first):
            return False
        self._opening += 1
        return True

    def _offer_opening(self) -> None:
        """A connection of ours ended: the first in line may open one in its place."""
        waiting = self._waiting
        while waiting and waiting[0].done():
            waiting.popleft()
        if waiting and self._try_opening():
            waiting.popleft().set_result(None)

    def _fail_waiting(self, error: WireError) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(copy(error))

    # --- idle connections

    def _is_worn(self, connection: AsyncConnection, now: float) -> bool:
        connector = self._connector
        if connection.ends <= now or connection.connector is not connector or connection.generation != connector.generation:
            return True
        settings = self.settings
        requests, seconds = settings.max_requests_per_connection, settings.max_connection_duration
        if not requests and not seconds:
            return False
        return 0 < requests <= connection.wire.exchanges or 0 < seconds <= now - connection.opened_at

    def _due(self, connection: AsyncConnection) -> float:
        """When an idle connection is to be closed."""
        connector, settings = self._connector, self.settings
        if connection.connector is not connector or connection.generation != connector.generation:
            return 0.0
        idle = connection.idle_since + settings.idle_timeout if settings.idle_timeout else NEVER
        worn = connection.opened_at + settings.max_connection_duration if settings.max_connection_duration else NEVER
        return min(idle, worn, connection.ends)

    def _sweep_idle(self) -> None:
        self._sweep = None
        self._sweep_at = NEVER
        now = monotonic()
        for connection in [connection for connection in self._idle if self._due(connection) <= now]:
            connection.abort(None)
        self._schedule_sweep()

    def _schedule_sweep(self) -> None:
        due = min(map(self._due, self._idle), default=NEVER)
        if due != NEVER:
            self._sweep_at = due
            self._sweep = self._loop.call_later(max(0.001, due - monotonic()), self._sweep_idle)

    def _stop_sweep(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
            self._sweep_at = NEVER
