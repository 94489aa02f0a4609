"""The blocking pool of one endpoint, for any number of threads.  The rules are those of `aio`.

Every decision is made under one lock, and nothing waits while it is held.  There is no thread of its own here: connections
that were idle for too long are closed when somebody comes by, or by the owner's `sweep`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from copy import copy
from time import monotonic
from typing import Final

from meshlib.errors import TimeoutName
from meshlib.model.endpoint import Endpoint
from meshlib.runtime.http.blocking_connection import BlockingConnection
from meshlib.runtime.http.blocking_response import BlockingResponse
from meshlib.runtime.http.connector import Connector, TcpConnector, apply_keepalive
from meshlib.runtime.http.failures import connect_failure
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


class _Waiter:
    """One thread in line.  `done` is guarded by the pool's lock."""

    __slots__ = ("_signal", "connection", "done", "error")

    def __init__(self) -> None:
        self.done = False
        self.connection: BlockingConnection | None = None  # None when done: the right to open one
        self.error: WireError | None = None
        self._signal = threading.Lock()
        self._signal.acquire()

    def resolve(self, connection: BlockingConnection | None, error: WireError | None = None) -> None:
        self.done = True
        self.connection = connection
        self.error = error
        self._signal.release()

    def wait(self, seconds: float) -> None:
        self._signal.acquire(timeout=-1 if seconds == NEVER else min(max(0.0, seconds), threading.TIMEOUT_MAX))


class BlockingPool:
    """Connections to `endpoint`.

    `settings` may be replaced at any time, by ones with the same `limits`.  After a fork, a child forgets its parent's pools
    without calling them.
    """

    def __init__(self, endpoint: Endpoint, settings: PoolSettings, *, connector: Connector | None = None) -> None:
        self.endpoint = endpoint
        self.settings = settings
        self.draining = False
        self._connector = connector or TcpConnector()
        self._lock = threading.Lock()
        self._connections: set[BlockingConnection] = set()
        self._opening = 0
        self._idle: list[BlockingConnection] = []
        self._waiting: deque[_Waiter] = deque()
        self._closed = False

    def __repr__(self) -> str:
        idle, busy = len(self._idle), len(self._connections) - len(self._idle)
        state = " closed" if self._closed else " draining" if self.draining else ""
        counts = f"idle={idle} busy={busy} opening={self._opening} waiting={len(self._waiting)}"
        return f"<BlockingPool {self.endpoint.key} {counts}{state}>"

    def send(
        self,
        head: bytes,
        body: bytes | Iterable[bytes] | None = None,
        *,
        method: str = "GET",
        timeouts: Timeouts = NO_TIMEOUTS,
        deadline: float | None = None,
        deadline_name: TimeoutName = "deadline",
        whole: bool = False,
        begun: Callable[[Callable[[], None]], None] | None = None,
    ) -> BlockingResponse:
        """Send one request (its `head` made by `wire.request.encode_head`) and wait for the head of its response.

        `deadline`, on the clock of `time.monotonic`, holds to the end of the response's body, as does
        ``timeouts.total``; the tighter one wins and is named in the error.  One named ``per_try`` ends with the head, as in
        Envoy, unless the response is wanted whole; `limit` of the response then says what its body has.

        `whole`: come back when the body is complete, too; cheaper for callers who read all of it anyway.

        `begun` is told, once there is a connection, what another thread can call to end the exchange.

        Raises WireError; with a body, RequestFailed with the body's own exception as its cause.
        """
        if deadline is not None or timeouts.total is not None:
            deadline, deadline_name = self._limit(timeouts.total, deadline, deadline_name)
        connection = self._take_idle() or self._acquire(timeouts, deadline, deadline_name)
        connection.begin(timeouts, deadline, deadline_name, whole=whole)
        if begun is not None:
            exchange = connection.exchanged
            begun(lambda: self._shut(connection, exchange))
        head_only, close = method == "HEAD", asks_to_close(head)
        if body is None:
            return connection.exchange(head, head_only=head_only, close=close)
        if type(body) is bytes and len(body) <= SMALL and not expects_continue(head):
            return connection.exchange(head + body, head_only=head_only, close=close)
        return connection.stream(head, body, head_only=head_only, close=close)

    def connect_by(self, connector: Connector) -> None:
        """Connections are opened in another way from now on; those that were opened in the old one take no new requests."""
        self._connector = connector
        self.sweep()

    def drain(self) -> None:
        """The endpoint is leaving: idle connections close now, busy ones after their request.  `send` goes on working."""
        self.draining = True
        self._discard_idle(NEVER)

    def close(self) -> None:
        """`drain`, and refuse what comes from now on and what waits for a connection."""
        self._closed = True
        self.drain()
        self._fail_waiting(RequestFailed(f"the connection pool of {self.endpoint} was closed", sent=False))

    def sweep(self) -> None:
        """Close connections that were idle, or lived, for too long, or are from before a change of identity or trust."""
        self._discard_idle(monotonic())

    # --- from the connections

    def connection_ready(self, connection: BlockingConnection) -> None:
        """Its exchange ended, and it can carry another one."""
        now = monotonic()
        if self.draining or self._is_worn(connection, now):
            connection.abort(None)
            return
        with self._lock:
            connection.exchanged += 1
            if self._waiting:
                self._waiting.popleft().resolve(connection)
                return
            connection.idle_since = now
            self._idle.append(connection)
            overdue = self._due(self._idle[0]) <= now
        if overdue or self.draining:  # `drain` may have come while we were here
            self._discard_idle(NEVER if self.draining else now)

    def connection_gone(self, connection: BlockingConnection) -> None:
        """It is closed."""
        with self._lock:
            if connection not in self._connections:
                return
            self._connections.discard(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self.settings.limits.connection_closed()
            self._offer_opening()

    def _shut(self, connection: BlockingConnection, exchange: int) -> None:
        """End an exchange that still goes on; by now the connection may be another's."""
        with self._lock:
            if connection.exchanged == exchange and not connection.closed:
                connection.shut()

    # --- getting a connection

    @staticmethod
    def _limit(total: float | None, deadline: float | None, name: TimeoutName) -> tuple[float, TimeoutName]:
        now = monotonic()
        at, which = earlier(deadline, name, now=now, seconds=total, name="total")
        if at <= now:
            raise TimedOut(f"no time was left to send the request ({which} timeout)", which, sent=False)
        return at, which

    def _take_idle(self) -> BlockingConnection | None:
        """The idle connection that was used last, if it is still alive."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if not connection.is_stale() and self._due(connection) > monotonic():
                return connection
            connection.abort(None)

    def _acquire(self, timeouts: Timeouts, deadline: float | None, deadline_name: TimeoutName) -> BlockingConnection:
        limits = self.settings.limits
        if self._closed:
            raise RequestFailed(f"the connection pool of {self.endpoint} was closed", sent=False)
        if not limits.try_pending():
            raise LimitReached(f"{limits.pending} requests are waiting for a connection already (max_pending_requests)")
        try:
            while True:
                waiter = _Waiter()
                with self._lock:
                    if self._idle:
                        waiter.resolve(self._idle.pop())
                    elif self._try_opening():
                        waiter.resolve(None)
                    else:
                        self._waiting.append(waiter)
                if not waiter.done:
                    self._wait(waiter, timeouts.pool, deadline, deadline_name)
                if waiter.error is not None:
                    raise waiter.error
                connection = waiter.connection
                if connection is None:
                    return self._open(timeouts.connect, deadline, deadline_name)
                if not connection.closed and not connection.is_stale():
                    return connection
                connection.abort(None)
        finally:
            limits.pending_ended()

    def _wait(self, waiter: _Waiter, pool: float | None, deadline: float | None, deadline_name: TimeoutName) -> None:
        """In line, until `waiter` is done."""
        now = monotonic()
        until, which = earlier(deadline, deadline_name, now=now, seconds=pool, name="pool")
        try:
            waiter.wait(until - now)
        except BaseException:  # a signal's exception: what was given in the last moment goes to the next in line
            if self._leave(waiter):
                self._give_back(waiter)
            raise
        if not self._leave(waiter):
            message = f"no connection to {self.endpoint} became free in time ({which} timeout)"
            raise PoolTimedOut(message) if which == "pool" else TimedOut(message, which, sent=False)

    def _leave(self, waiter: _Waiter) -> bool:
        """Leave the line; True: not needed, it was served."""
        with self._lock:
            if not waiter.done:
                self._waiting.remove(waiter)
            return waiter.done

    def _give_back(self, waiter: _Waiter) -> None:
        if waiter.connection is not None:
            self.connection_ready(waiter.connection)
        elif waiter.error is None:
            self._opening_failed(None)

    def _open(self, connect: float | None, deadline: float | None, deadline_name: TimeoutName) -> BlockingConnection:
        """A new connection; `_try_opening` has allowed and counted it."""
        now = monotonic()
        seconds = min(connect or NEVER, self.settings.connect_timeout or NEVER)
        until, which = earlier(deadline, deadline_name, now=now, seconds=seconds, name="connect")
        connector = self._connector
        try:
            connected = connector.open(self.endpoint, None if until == NEVER else max(0.001, until - now))
        except BaseException as error:
            # The kernel's own ETIMEDOUT is a TimeoutError as well; a clock tick of doubt goes to ours.
            failure = connect_failure(self.endpoint, error, which if monotonic() >= until - 0.01 else None)
            self._opening_failed(failure)
            if failure is None:
                raise
            raise failure from None if isinstance(failure, NoIdentity) else error
        if self.settings.tcp_keepalive is not None:
            apply_keepalive(connected, self.settings.tcp_keepalive)
        connection = BlockingConnection(self, self.settings, connected)
        connection.connector = connector
        connection.ends, connection.generation = connector.lifetime(connected)
        with self._lock:
            self._opening -= 1
            self._connections.add(connection)
        return connection

    def _opening_failed(self, failure: WireError | None) -> None:
        self.settings.limits.connection_closed()
        with self._lock:
            self._opening -= 1
            if not isinstance(failure, CannotConnect):
                self._offer_opening()
                return
        # As in Envoy: whoever waits for this endpoint would only run into the same wall, one after the other.
        self._fail_waiting(failure)

    def _try_opening(self) -> bool:
        """Call with the lock held."""
        first = not self._connections and not self._opening
        if not self.settings.limits.try_connection(first=first):
            return False
        self._opening += 1
        return True

    def _offer_opening(self) -> None:
        """A connection of ours ended: the first in line may open one in its place.  Call with the lock held."""
        if self._waiting and self._try_opening():
            self._waiting.popleft().resolve(None)

    def _fail_waiting(self, error: WireError) -> None:
        with self._lock:
            while self._waiting:
                self._waiting.popleft().resolve(None, copy(error))

    # --- idle connections

    def _is_worn(self, connection: BlockingConnection, now: float) -> bool:
        connector = self._connector
        if connection.ends <= now or connection.connector is not connector or connection.generation != connector.generation:
            return True
        settings = self.settings
        requests, seconds = settings.max_requests_per_connection, settings.max_connection_duration
        if not requests and not seconds:
            return False
        return 0 < requests <= connection.wire.exchanges or 0 < seconds <= now - connection.opened_at

    def _due(self, connection: BlockingConnection) -> float:
        """When an idle connection is to be closed."""
        connector, settings = self._connector, self.settings
        if connection.connector is not connector or connection.generation != connector.generation:
            return 0.0
        idle = connection.idle_since + settings.idle_timeout if settings.idle_timeout else NEVER
        worn = connection.opened_at + settings.max_connection_duration if settings.max_connection_duration else NEVER
        return min(idle, worn, connection.ends)

    def _discard_idle(self, until: float) -> None:
        """Those that are due by `until`."""
        with self._lock:
            due = [connection for connection in self._idle if self._due(connection) <= until]
            for connection in due:
                self._idle.remove(connection)
        for connection in due:
            connection.abort(None)
