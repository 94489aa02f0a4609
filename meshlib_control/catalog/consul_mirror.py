"""Shows registered processes to the users of Consul: a service with a TTL check each, renewed as long as the lease holds.

Only the replica that owns a lease shows it.  Nothing is taken away when the control service stops: the checks turn
critical by themselves, and Consul removes what stays critical.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from meshlib_control.catalog.consul_mapping import agent_service
from meshlib_control.catalog.leases import Lease, LeaseTable, Standing
from meshlib_control.catalog.registrations import Registrations
from meshlib_control.consul.agent import AgentService
from meshlib_control.consul.client import ConsulClient
from meshlib_control.consul.errors import ConsulError
from meshlib_control.tasks import cancel, spawn

log = logging.getLogger(__name__)

CONCURRENCY = 16


@dataclass(frozen=True, slots=True)
class Shown:
    """What this agent was told last of an instance.  `reported`: when."""

    service: AgentService
    ready: bool
    reported: float


class ConsulMirror:
    """`ttl` and `deregister_after` as in Consul's check; `interval`: how often checks are renewed.  Seconds."""

    def __init__(
        self,
        client: ConsulClient,
        registrations: Registrations,
        *,
        ttl: float = 30.0,
        deregister_after: float = 60.0,
        interval: float = 8.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._registrations = registrations
        self._ttl = ttl
        self._deregister_after = deregister_after
        self._interval = interval
        self._clock = clock
        self._shown: dict[str, Shown] = {}
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    async def start(self) -> None:
        self._task = spawn(self._run(), "the mirror to Consul")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            await cancel([task])

    async def _run(self) -> None:
        while True:
            seen = self._registrations.changes.count
            failed = await self._reconcile()
            if failed and not self._failing:
                log.warning("showing registered processes in Consul: %s; trying again", failed)
            self._failing = failed is not None
            if self._failing:
                await asyncio.sleep(self._interval / 4)
            await self._registrations.changes.after(seen, self._interval / 4)

    async def _reconcile(self) -> ConsulError | None:
        """Bring the agent to what the lease table says; the first error, if any, after everything was tried."""
        table = self._registrations.table
        slots = asyncio.Semaphore(CONCURRENCY)

        async def one(instance_id: str) -> ConsulError | None:
            async with slots:
                try:
                    await self._bring(instance_id, table)
                except ConsulError as error:
                    return error
            return None

        names = {name for name, lease in table.leases.items() if _is_shown(lease, table)} | self._shown.keys()
        results = await asyncio.gather(*(one(name) for name in sorted(names)))
        return next((error for error in results if error is not None), None)

    async def _bring(self, instance_id: str, table: LeaseTable) -> None:
        lease, shown = table.leases.get(instance_id), self._shown.get(instance_id)
        if lease is None or not _is_shown(lease, table):
            await self._hide(instance_id, lease)
            return
        record = lease.record
        service = agent_service(instance_id, record.registration, ttl=self._ttl, deregister_after=self._deregister_after)
        if shown is None or shown.service != service:
            await self._client.register(service)
            shown = Shown(service, ready=True, reported=self._clock())
        due = self._clock() - shown.reported >= self._interval
        if (due or shown.ready != record.ready) and not await self._report(service, ready=record.ready):
            await self._client.register(service)
            await self._report(service, ready=record.ready)
        reported = self._clock() if due or shown.ready != record.ready else shown.reported
        self._shown[instance_id] = Shown(service, record.ready, reported)

    async def _report(self, service: AgentService, *, ready: bool) -> bool:
        note = "its lease holds" if ready else "it asked for no calls"
        return await self._client.report(service.id, passing=ready, note=note)

    async def _hide(self, instance_id: str, lease: Lease | None) -> None:
        """Unless another replica shows it now, perhaps through this same agent."""
        if lease is None or lease.record.standing is not Standing.UP:
            await self._client.deregister(self._shown[instance_id].service.id)
        del self._shown[instance_id]


def _is_shown(lease: Lease, table: LeaseTable) -> bool:
    return lease.record.owner == table.me and lease.record.standing is Standing.UP
