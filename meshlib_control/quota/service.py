"""RLQS: usage reports in, shares of global limits and grants of quotas out, on the control service's own port.

A workload is answered about buckets of policies that may hold for it by its certificate; what else it reports is passed over.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc
import grpc.aio

from meshlib import SpiffeId
from meshlib.xds.quota import (
    LIMIT_NAME,
    POLICY_NAME,
    SERVICE,
    Abandon,
    Assignment,
    BucketId,
    Malformed,
    Usage,
    decode_reports,
    encode_response,
)
from meshlib_control.compile import World
from meshlib_control.compile.rate_limits import bucket_names
from meshlib_control.config.kinds.rate_limit_policy import RateLimit
from meshlib_control.errors import ControlServiceError
from meshlib_control.quota.groups import Group, QuotaGroup, SharedGroup
from meshlib_control.serve.identity import Callers, NotAllowed
from meshlib_control.store.model import Store
from meshlib_control.tasks import cancel, spawn

log = logging.getLogger(__name__)

ROUND = 1.0
"""Seconds between looks at who has which share; a report that changes something is looked at at once."""

PAUSE = 0.02
"""Seconds between two looks: reports that come together are answered together."""

REST = 4.0
"""How many times as long as a look took the next one waits: many processes, or a slow store, leave time for all else."""

MAX_TEXT = 160
"""Characters of one part of a bucket's name; processes keep theirs shorter."""

_STRANGER = "default"  # whose policies are seen where nobody has an identity, as for configuration


class QuotaView(NamedTuple):
    """One limit, for people.  `streams`: processes that report on it."""

    policy: str
    limit: str
    buckets: int
    streams: int


class _Stream:
    """One workload's stream.  Compared by identity."""

    def __init__(self, context: Any, identity: SpiffeId | None) -> None:
        self.context = context
        self.identity = identity
        self.responses = 0
        self.writing: asyncio.Task[None] | None = None
        self.groups: set[tuple[str, str]] = set()
        self.process: tuple[SpiffeId | None, bytes] | None = None  # what the workload tells its processes apart by

    def send(self, actions: list[Assignment | Abandon]) -> None:
        self.writing = asyncio.create_task(self._write(encode_response(actions)))

    @property
    def busy(self) -> bool:
        """A client that does not read gets nothing more until it does."""
        return self.writing is not None and not self.writing.done()

    async def _write(self, data: bytes) -> None:
        try:
            await self.context.write(data)
        except Exception as error:
            log.debug("cannot write to %s: %s", self.context.peer(), error)

    async def close(self) -> None:
        if self.writing is not None:
            await cancel([self.writing])


class QuotaService:
    """``async with`` starts its task; `handler` is what a gRPC server needs."""

    def __init__(
        self,
        store: Store,
        world: Callable[[], World],
        callers: Callers | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`world`: the newest one, whose policies count; `wall`: Unix seconds, for the calendar."""
        self._store = store
        self._world = world
        self._callers = callers or Callers()
        self._clock = clock
        self._wall = wall
        self._me = uuid.uuid4().hex[:12]
        self._groups: dict[tuple[str, str], Group] = {}
        self._streams: set[_Stream] = set()
        self._dirty = asyncio.Event()
        self._problem = ""
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> QuotaService:
        self._tasks = [spawn(self._run(), "quotas")]
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks, self._tasks = self._tasks, []
        await cancel(tasks)

    @property
    def problems(self) -> list[str]:
        """Why nothing is assigned; empty when it is."""
        return [self._problem] if self._problem else []

    def views(self) -> list[QuotaView]:
        """The limits that somebody reports on."""
        return [
            QuotaView(*key, len(group.ids), sum(key in stream.groups for stream in self._streams))
            for key, group in sorted(self._groups.items())
        ]

    def handler(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            SERVICE, {"StreamRateLimitQuotas": grpc.stream_stream_rpc_method_handler(self._serve)}
        )

    # --- streams

    async def _serve(self, _requests: Any, context: Any) -> None:
        try:
            identity = self._callers.caller(context)
        except NotAllowed as error:
            log.warning("%s: %s", context.peer(), error)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
            raise
        stream = _Stream(context, identity)
        self._streams.add(stream)
        in_order = False
        try:
            in_order = await self._listen(stream)
        finally:
            self._left(stream, in_order=in_order)
            await stream.close()

    def _left(self, stream: _Stream, *, in_order: bool) -> None:
        """Once: a stream that its process has replaced has been left by then."""
        if stream in self._streams:
            self._streams.discard(stream)
            for group in self._groups.values():
                group.left(stream, in_order=in_order, process=stream.process or stream)
            self._dirty.set()

    def _identified(self, stream: _Stream, process: bytes) -> None:
        """The first message of a stream says whose it is; of one that broke it may not be known yet that it did."""
        key = (stream.identity, process)
        for other in [other for other in self._streams if other.process == key]:
            self._left(other, in_order=False)
        stream.process = key
        for group in self._groups.values():
            group.returned(stream, key)

    async def _listen(self, stream: _Stream) -> bool:
        """Until the stream's end; whether its process has said that it uses its shares no more.

        That a stream ends, in whatever way, says nothing: connections are closed for many reasons, and shares are kept then.
        """
        leaving = False
        while True:
            data = await stream.context.read()
            if data is grpc.aio.EOF:
                return leaving
            try:
                usages, applied, leaving, process = decode_reports(data)
            except Malformed as error:
                log.warning("%s sent what is no report of usage: %s", stream.context.peer(), error)
                await stream.context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
                raise
            if process and stream.process is None:
                self._identified(stream, process)
            if stream in self._streams:
                self._heard(stream, usages, applied)
                self._dirty.set()

    def _heard(self, stream: _Stream, usages: list[Usage], applied: int) -> None:
        now = self._clock()
        for key in stream.groups:
            if (known := self._groups.get(key)) is not None:
                known.applied(stream, applied)
        for usage in usages:
            group = self._group(stream, usage.id)
            if group is not None and group.heard(stream, usage, now):
                stream.groups.add(_key(usage.id))

    def _group(self, stream: _Stream, bucket: BucketId) -> Group | None:
        """The limit that a bucket belongs to.  None: no policy that may hold for this caller defines it."""
        limit = self._limit(bucket, stream.identity.namespace if stream.identity is not None else _STRANGER)
        if limit is None:
            return None
        key = _key(bucket)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = self._made(key[0], limit)
        return group

    def _made(self, policy: str, limit: RateLimit) -> Group:
        if limit.quota is not None:
            return QuotaGroup(policy, limit, self._store, self._wall)
        return SharedGroup(policy, limit, self._store, self._me)

    def _limit(self, bucket: BucketId, namespace: str) -> RateLimit | None:
        parts = dict(bucket)
        world = self._world()

        def owner_of(host: str) -> str | None:
            service = world.services.find(host, namespace)
            return service.namespace if service is not None else None

        found = world.rate_limits.find(parts.pop(POLICY_NAME, ""), namespace, owner_of)
        name = parts.pop(LIMIT_NAME, "")
        if found is None or any(len(value) > MAX_TEXT for value in parts.values()):
            return None
        limit = next((limit for limit in found[1].limits if limit.name == name), None)
        if limit is None or (limit.scope != "GLOBAL" and limit.quota is None) or parts.keys() != bucket_names(limit):
            return None
        return limit

    # --- rounds

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(ROUND):
                    await self._dirty.wait()
            except TimeoutError:
                pass
            self._dirty.clear()
            began = self._clock()
            await self._round()
            await asyncio.sleep(min(max(PAUSE, REST * (self._clock() - began)), ROUND))

    async def _round(self) -> None:
        """Settle with the other replicas, then tell each stream what is new for it."""
        self._follow_configuration()
        now = self._clock()
        problem = ""
        for (policy, name), group in list(self._groups.items()):
            try:
                await group.settle(now)
            except ControlServiceError as error:
                problem = f"quotas: {policy}/{name}: {error}; processes keep their shares for as long as the policy says"
            except Exception as error:  # of one limit: the others' shares are not to run out for that
                log.exception("quotas: %s/%s", policy, name)
                problem = f"quotas: {policy}/{name}: a fault in meshlib, {error!r}; the log has the trace, please report it"
            if not group.ids:
                self._groups.pop((policy, name), None)
        if problem and problem != self._problem:
            log.warning("%s", problem)
        self._problem = problem
        self._tell(now)

    def _tell(self, now: float) -> None:
        told: dict[_Stream, list[tuple[Assignment, Callable[[int], None]]]] = {}
        for group in self._groups.values():
            for stream, assignment, confirm in group.assignments(now):
                if stream in self._streams and isinstance(stream, _Stream) and not stream.busy:
                    told.setdefault(stream, []).append((assignment, confirm))
        for stream, actions in told.items():
            stream.responses += 1
            for _, confirm in actions:
                confirm(stream.responses)
            stream.send([assignment for assignment, _ in actions])

    def _follow_configuration(self) -> None:
        """Limits that are others now are begun anew; those that are gone are abandoned."""
        for key, group in list(self._groups.items()):
            current = next(self._defined(key), None)
            if current != group.limit:
                del self._groups[key]
                for stream in self._streams:
                    if key in stream.groups and not stream.busy:
                        stream.groups.discard(key)
                        stream.responses += 1
                        stream.send([Abandon(bucket) for bucket in group.ids])

    def _defined(self, key: tuple[str, str]) -> Iterator[RateLimit]:
        policy = self._world().rate_limits.named(key[0])
        for limit in policy.limits if policy is not None else ():
            if limit.name == key[1]:
                yield limit


def _key(bucket: BucketId) -> tuple[str, str]:
    """Policy and limit."""
    parts = dict(bucket)
    return parts.get(POLICY_NAME, ""), parts.get(LIMIT_NAME, "")
