"""Sends copies of calls to mirrors, and forgets what comes of them.

All of it happens on a private event loop in a daemon thread, started with the first copy: the caller waits for nothing, and
nothing that happens to a copy is ever seen by him.  So many copies may be under way at once; above that they are dropped and
counted.  Only what is at hand as bytes can be copied: a body that is streamed belongs to the call alone, and so do calls of
gRPC's, whose messages its own channels write.

A copy goes where the mesh's configuration leads, by an endpoint's own connection, with the headers that the call has there:
nothing that callers must not say is among those.  It never goes by the caller's own transport.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Final, Protocol

from meshlib import errors
from meshlib.flow.client import ClientFlow, client_flow
from meshlib.flow.commands import Attempt, Copy
from meshlib.flow.record import CallRecord
from meshlib.flow.served import Served
from meshlib.model.outcome import Outcome
from meshlib.policy.rng import Rng
from meshlib.runtime.drive import Lock, adrive
from meshlib.runtime.fork import forget_in_child, keep_for_ever
from meshlib.telemetry.events import Emit, Event, Throttle
from meshlib.wire.errors import WireError
from meshlib.wire.request import encode_head

if TYPE_CHECKING:
    from meshlib.runtime.http.aio_response import AsyncResponse
    from meshlib.runtime.surroundings import Network

logger = logging.getLogger("meshlib")

MAX_IN_FLIGHT: Final = 128

_CLOSING = 5.0
"""Seconds that closing waits for the thread."""


class Running(Protocol):
    """Where copies are sent from."""

    def start(self, send: Callable[[Copy, bytes], object], copy: Copy, body: bytes) -> None:
        """Begin the coroutine ``send(copy, body)``, in an empty context."""
        ...

    def stop(self) -> None: ...


class Mirroring:
    """One per client.  The counters change under the client's lock.

    `sent`: copies that were answered, with whatever status.  `failed`: those that were not.  `dropped`: too many were under
    way.  `unrepeatable`: calls whose body cannot be sent twice.
    """

    def __init__(
        self, network: Network, lock: Lock, rng: Rng, clock: Callable[[], float], running: Running | None = None
    ) -> None:
        """`running`: a simulation's; None: a thread, once it is needed."""
        self.sent = 0
        self.failed = 0
        self.dropped = 0
        self.unrepeatable = 0
        self.emit: Emit | None = None
        self._drops = Throttle()
        self._network = network
        self._lock = lock
        self._rng = rng
        self._clock = clock
        self._in_flight = 0
        self._idle = threading.Event()
        self._idle.set()
        self._closed = False
        self._running: Running | None = running
        forget_in_child(self)

    def following(self, flow: ClientFlow, body: object) -> ClientFlow:
        """`flow` without its copies: those are taken out, and sent with `body`."""
        try:
            command = next(flow)
            while True:
                if type(command) is Copy:
                    self._take(command, body)
                    command = next(flow)
                else:
                    command = flow.send((yield command))
        except StopIteration as stop:
            served: Served | None = stop.value
            return served
        finally:
            flow.close()

    def wait_idle(self, timeout: float) -> bool:
        """Block until no copy is under way; False when `timeout` seconds passed first."""
        return self._idle.wait(timeout)

    def close(self) -> None:
        """Give up what is under way, and start nothing any more."""
        with self._lock:
            self._closed = True
            running, self._running = self._running, None
        if running is not None:
            running.stop()

    def forget(self) -> None:
        """In a forked child: the thread, and what it sends, are the parent's."""
        keep_for_ever(self._running)
        self._running = None
        self._in_flight = 0
        self._idle = threading.Event()
        self._idle.set()

    def _take(self, copy: Copy, body: object) -> None:
        """Under the client's lock, as all steps of flows."""
        if type(body) is not bytes:
            self.unrepeatable += 1
            return
        if self._in_flight >= MAX_IN_FLIGHT or self._closed:
            self._drop(copy, f"{self._in_flight} are under way")
            return
        running = self._running
        if running is None:
            try:
                running = self._running = _Running()
            except (OSError, RuntimeError) as error:  # no more files or threads: that is no reason to fail the call
                self._drop(copy, f"it could not be started: {error}")
                return
        self._in_flight += 1
        self._idle.clear()
        running.start(self._send, copy, body)

    def _drop(self, copy: Copy, why: str) -> None:
        self.dropped += 1
        if self.emit is not None and self._drops.lets(now := self._clock()):
            self.emit(Event("mirroring.dropped", now, reason=f"a copy to {copy.call.authority}: {why}"))

    async def _send(self, copy: Copy, body: bytes) -> None:
        answered = False
        try:
            answered = await self._exchange(copy, body)
        except (errors.MeshError, WireError) as error:
            logger.debug("a copy of %s %s came to nothing: %s", copy.call.method, copy.call.path, error)
        except Exception:  # the caller must never notice, but somebody should
            logger.exception("a copy of %s %s could not be sent", copy.call.method, copy.call.path)
        finally:
            with self._lock:
                self.sent += answered
                self.failed += not answered
                self._in_flight -= 1
                if not self._in_flight:
                    self._idle.set()

    async def _exchange(self, copy: Copy, body: bytes) -> bool:
        """One try, its response read to the end and thrown away.  False: the mirror is outside of the mesh."""
        call = copy.call
        call.started = self._clock()
        loop = asyncio.get_running_loop()
        response: AsyncResponse | None = None

        async def send(attempt: Attempt) -> Outcome:
            nonlocal response
            headers = [*call.headers, *attempt.headers]
            head = encode_head(call.method, call.path, headers, authority=call.host, body_length=len(body))
            try:
                response = await self._network.for_loop(attempt.host, attempt.cluster, loop).send(
                    head, body, method=call.method, deadline=attempt.deadline, deadline_name=attempt.deadline_name
                )
            except WireError as error:
                return error.outcome(self._clock())
            return Outcome(self._clock(), status=response.status, headers=response.headers, complete=response.closed)

        flow = client_flow(call, copy.destination, CallRecord(call.authority, call.started), self._rng)
        served: Served | None = None
        try:
            served = await adrive(flow, send, self._lock, asyncio.sleep, self._clock)
            if response is not None:
                async for _ in response:
                    pass
        finally:
            if response is not None:
                response.abandon()
            if served is not None and served.lease is not None:
                with self._lock:
                    served.lease.release()
        return served is not None


class _Running:
    """The loop and its thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="meshlib-mirroring", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._loop.close()
            raise

    def start(self, send: Callable[[Copy, bytes], object], copy: Copy, body: bytes) -> None:
        # In an empty context: a copy is not part of the request that is being served.
        self._loop.call_soon_threadsafe(self._launch, send, copy, body, context=Context())

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_CLOSING)

    def _launch(self, send: Callable[[Copy, bytes], object], copy: Copy, body: bytes) -> None:
        task: asyncio.Task[None] = self._loop.create_task(send(copy, body))  # type: ignore[arg-type]  # a coroutine
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._wait())

    async def _wait(self) -> None:
        await self._stopping.wait()
