"""The client's side in a process: looks destinations up, drives client flows, owns the connection pools."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from math import inf
from typing import NamedTuple, Protocol, cast

from meshlib import errors
from meshlib.errors import TimeoutName
from meshlib.flow.client import ClientFlow, client_flow
from meshlib.flow.commands import ATTEMPT_COUNT, EXPECTED_TIMEOUT
from meshlib.flow.destination import Destination
from meshlib.flow.limiting import Limiting
from meshlib.flow.record import CallRecord
from meshlib.flow.served import Lease, Served
from meshlib.model.call import Call
from meshlib.model.inbound import RequestContext
from meshlib.model.request import Request
from meshlib.model.snapshot import Snapshot
from meshlib.policy.balancing import Host
from meshlib.policy.identity_headers import UNTRUSTED
from meshlib.runtime.attempts import AsyncAttempts, BlockingAttempts
from meshlib.runtime.context import CURRENT
from meshlib.runtime.destinations import Destinations
from meshlib.runtime.drive import Lock, adrive, drive
from meshlib.runtime.http.aio_response import AsyncResponse
from meshlib.runtime.http.blocking_response import BlockingResponse
from meshlib.runtime.mirroring import Mirroring
from meshlib.runtime.response import AsyncExchange, Exchange
from meshlib.runtime.surroundings import REAL, Surroundings
from meshlib.runtime.tls.contexts import TlsContexts
from meshlib.telemetry.trace import TRACEPARENT, child_traceparent

RESOLVE_TIMEOUT = 15.0
"""Seconds that a first call to a host waits for the control service's answer (gRFC A57's does-not-exist timer)."""

_OURS = UNTRUSTED | {ATTEMPT_COUNT, EXPECTED_TIMEOUT}
"""An application that forwards all headers of its own request must not hand these on: they speak of another hop, or of who
somebody is, which only certificates say."""


class Control(Protocol):
    """Where snapshots come from."""

    @property
    def current(self) -> Snapshot:
        """The newest snapshot."""
        ...

    def request(self, authority: str) -> None:
        """Ask for a destination; does nothing when that was done before.  Never waits."""
        ...

    def wait(self, known: Callable[[Snapshot], bool], timeout: float) -> bool:
        """Block until a snapshot satisfies `known`; False after `timeout` seconds.

        Raises errors.ControlError at once when the control service cannot be reached: a new target fails fast.
        """
        ...

    async def await_(self, known: Callable[[Snapshot], bool], timeout: float) -> bool:
        """The same without blocking the event loop."""
        ...


class Prepared(NamedTuple):
    """A call before its first try: what its flow needs, and the headers of every try."""

    call: Call
    destination: Destination
    record: CallRecord
    headers: list[tuple[bytes, bytes]]


class Client:
    """One per Mesh and process.  Thread-safe; serves any number of event loops."""

    def __init__(
        self,
        control: Control,
        *,
        tls: TlsContexts | None = None,
        surroundings: Surroundings = REAL,
    ) -> None:
        self._control = control
        self._rng = surroundings.rng()
        self._clock = surroundings.monotonic
        self._sleep = surroundings.sleep
        self._asleep = surroundings.asleep
        self._lock = threading.Lock()
        self._pools = surroundings.network(tls)
        self.limiting = Limiting(self._lock, self._clock)
        self.destinations = Destinations(self._lock, self._rng, self._pools.drain, self.limiting, clock=self._clock)
        self.mirroring = Mirroring(self._pools, self._lock, self._rng, self._clock)

    # --- calls

    async def aexchange(self, request: Request, *, whole: bool = False) -> AsyncExchange | None:
        """Make a call.  None: the host is outside of the mesh, the caller's own transport takes it.

        `whole`: come back when the body is there, too; cheaper for those who read all of it anyway.

        Raises errors.CallError, errors.RequestError, errors.ControlError.
        """
        settled, destination = self._find(request)
        began: float | None = None
        if not settled:
            began = self._clock()
            destination = await self._aresolve(request)
        if destination is None:
            return None
        call, record, _ = self._begin(request, began)
        attempts = AsyncAttempts(self._pools, request, call, self._clock, whole=whole)
        flow = client_flow(call, destination, record, self._rng)
        if destination.mirrored:
            flow = self.mirroring.following(flow, request.body)
        try:
            served = await adrive(flow, attempts, self._lock, self._asleep, self._clock, attempts.race)
        except BaseException:
            if attempts.last is not None:  # of a try that was to be followed by another one
                attempts.last.abandon()
            raise
        if served is None:
            return None
        response = cast("AsyncResponse | None", served.outcome.response)
        if served.lease is not None and response is not None:
            self._hold(served, served.lease, response)
        return AsyncExchange(call, record, response, served, self._clock)

    def exchange(self, request: Request, *, whole: bool = False) -> Exchange | None:
        """The same, blocking the calling thread."""
        settled, destination = self._find(request)
        began: float | None = None
        if not settled:
            began = self._clock()
            destination = self._resolve(request)
        if destination is None:
            return None
        call, record, _ = self._begin(request, began)
        attempts = BlockingAttempts(self._pools, request, call, self._clock, whole=whole)
        flow = client_flow(call, destination, record, self._rng)
        if destination.mirrored:
            flow = self.mirroring.following(flow, request.body)
        try:
            served = drive(flow, attempts, self._lock, self._sleep, self._clock, attempts.race)
        except BaseException:
            if attempts.last is not None:
                attempts.last.close()
            raise
        if served is None:
            return None
        response = cast("BlockingResponse | None", served.outcome.response)
        if served.lease is not None and response is not None:
            self._hold(served, served.lease, response)
        return Exchange(call, record, response, served, self._clock)

    # --- calls in another protocol than HTTP/1.1, whose tries are made elsewhere

    def prepare(self, request: Request) -> Prepared | None:
        """All that comes before the first try; blocks until the destination is known.  None: the host is outside.

        Raises as `exchange`.
        """
        settled, destination = self._find(request)
        began = None if settled else self.clock()
        if not settled:
            destination = self._resolve(request)
        return self._prepared(request, destination, began)

    async def aprepare(self, request: Request) -> Prepared | None:
        """`prepare` without blocking the event loop."""
        settled, destination = self._find(request)
        began = None if settled else self.clock()
        if not settled:
            destination = await self._aresolve(request)
        return self._prepared(request, destination, began)

    def flow(self, prepared: Prepared) -> ClientFlow:
        """Its steps are to be made under `lock`, with times of `clock`."""
        flow = client_flow(prepared.call, prepared.destination, prepared.record, self._rng)
        return self.mirroring.following(flow, None) if prepared.destination.mirrored else flow

    @property
    def lock(self) -> Lock:
        return self._lock

    @property
    def clock(self) -> Callable[[], float]:
        return self._clock

    def _prepared(self, request: Request, destination: Destination | None, began: float | None) -> Prepared | None:
        if destination is None:
            return None
        call, record, headers = self._begin(request, began)
        return Prepared(call, destination, record, headers)

    def close(self) -> None:
        """Close all idle connections; busy ones end with their request.  Copies of requests are given up."""
        self.mirroring.close()
        self.destinations.close()
        self._pools.drain(self._hosts())

    def close_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called on `loop`: let go of the connections that it keeps."""
        self._pools.close_loop(self._hosts(), loop)

    def _hosts(self) -> list[Host]:
        with self._lock:
            return [host for upstream in self.destinations.upstreams.values() for host in upstream.hosts.values()]

    # --- where to

    def _find(self, request: Request) -> tuple[bool, Destination | None]:
        """(Settled?, destination).  Settled without a destination: the host is outside, and that is allowed."""
        authority = request.authority
        snapshot = self._control.current
        if request.scheme == "http":
            destination = self.destinations.current.get(authority)
            if destination is not None:
                return True, destination
        elif snapshot.allow_any or (snapshot.allow_any is False and authority in snapshot.targets):
            # The caller's own TLS: nothing in the mesh can look into it, so policy decides only whether it may go.
            return True, None
        if authority in snapshot.absent and snapshot.allow_any is not None:
            if snapshot.allow_any:
                return True, None
            raise errors.OutboundBlocked(
                "the host is not part of the mesh, and outboundTrafficPolicy is REGISTRY_ONLY; "
                "add a ServiceEntry for it, or check the name",
                authority=authority,
            )
        if authority in snapshot.broken:
            raise errors.TargetUnknown(
                f"the host's configuration cannot be used: {snapshot.broken[authority]}; see `meshctl status`",
                authority=authority,
            )
        return False, None

    def _resolve(self, request: Request) -> Destination | None:
        """Ask for what is not known yet, and wait for it."""
        self._control.request(request.authority)
        try:
            self._control.wait(self._answered(request), self._patience(request))
        except errors.ControlError as error:
            raise _unknown(request, error) from error
        return self._found(request)

    async def _aresolve(self, request: Request) -> Destination | None:
        self._control.request(request.authority)
        try:
            await self._control.await_(self._answered(request), self._patience(request))
        except errors.ControlError as error:
            raise _unknown(request, error) from error
        return self._found(request)

    def _answered(self, request: Request) -> Callable[[Snapshot], bool]:
        authority, plain = request.authority, request.scheme == "http"

        def answered(snapshot: Snapshot) -> bool:
            # By what was compiled, which is ahead of the snapshot: a host that has just been hidden is in the old one still.
            if authority in snapshot.broken or (plain and authority in self.destinations.current):
                return True
            if snapshot.allow_any is None:
                return False
            return authority in snapshot.absent or (not plain and (snapshot.allow_any or authority in snapshot.targets))

        return answered

    def _found(self, request: Request) -> Destination | None:
        settled, destination = self._find(request)
        if not settled:
            raise errors.TargetUnknown(
                "the control service has not said where this host is; see `meshctl status` for what it knows",
                authority=request.authority,
            )
        return destination

    def _patience(self, request: Request) -> float:
        """Seconds that this caller can wait for a first answer."""
        context = CURRENT.get()
        limits = [RESOLVE_TIMEOUT]
        limit = _limit(request)
        if limit is not None:
            limits.append(limit)
        if context is not None and context.deadline is not None:
            limits.append(max(context.deadline - self._clock(), 0.0))
        return min(limits)

    # --- one call

    def _begin(self, request: Request, began: float | None) -> tuple[Call, CallRecord, list[tuple[bytes, bytes]]]:
        """What the flow needs, and the headers without those that are ours to set.

        `began`: since when the caller has been waiting already, if it had to wait for its destination to be known.
        """
        now = self._clock()
        headers = [pair for pair in request.headers if pair[0].lower() not in _OURS] if request.headers else []
        deadline: float | None = None
        name: TimeoutName = "total"
        attempt = 1
        limit = request.timeouts.total if request.overrides is None else _limit(request)
        if limit is not None and limit != inf:
            deadline = (now if began is None else began) + limit
        context = CURRENT.get()
        if context is not None:
            attempt = context.attempt
            if context.deadline is not None and (deadline is None or context.deadline < deadline):
                deadline, name = context.deadline, "deadline"
            if context.trace is not None or context.forwarded:
                self._propagate(context, headers)
        call = Call(
            request.method,
            request.authority,
            request.target,
            headers,
            started=now,
            replayable=type(request.body) is bytes,
            deadline=deadline,
            deadline_name=name,
            overrides=request.overrides,
            inherited_attempt=attempt,
            serving=context,
            host=request.host_header,
        )
        return call, CallRecord(request.authority, now), headers

    def _propagate(self, context: RequestContext, headers: list[tuple[bytes, bytes]]) -> None:
        """Context headers of the request being served, unless the application has set its own."""
        present = {name.lower() for name, _ in headers}
        if context.trace is not None and TRACEPARENT not in present:
            headers.append((TRACEPARENT, child_traceparent(context.trace, self._rng)))
        headers.extend(pair for pair in context.forwarded if pair[0] not in present)

    def _hold(self, served: Served, lease: Lease, response: AsyncResponse | BlockingResponse) -> None:
        """The endpoint's slot is given back with the last byte of the body."""
        if served.limit is not None:
            response.limit(*served.limit)
        lock = self._lock

        def release() -> None:
            with lock:
                lease.release()

        response.on_close = release


def _limit(request: Request) -> float | None:
    """Seconds that the caller gives the whole call; None: any number."""
    own = request.timeouts.total
    if request.overrides is None or request.overrides.timeout is None:
        return own
    return request.overrides.timeout if own is None else min(own, request.overrides.timeout)


def _unknown(request: Request, error: errors.ControlError) -> errors.TargetUnknown:
    return errors.TargetUnknown(f"nothing is known of this host, and {error}", authority=request.authority)
