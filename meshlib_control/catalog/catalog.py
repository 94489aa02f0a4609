"""All sources in one: registrations and Consul, merged, guarded, and published as snapshots."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping

from meshlib_control.catalog import guard
from meshlib_control.catalog.consul import ConsulCatalog, ConsulView
from meshlib_control.catalog.guard import Guarded, GuardRules
from meshlib_control.catalog.model import CatalogSnapshot
from meshlib_control.catalog.offers import Merged, RegistryIndex, Seen, merge, without_reflections
from meshlib_control.catalog.registrations import Registrations
from meshlib_control.changes import Changes
from meshlib_control.tasks import cancel, spawn

RULES = GuardRules()
# After each merge a pause as long as it took, within these limits: at most half of the time goes into it.
PAUSE = 0.01
PAUSE_MAX = 0.25


class Catalog:
    """`snapshot` is always the newest; its revision grows with each real change.

    Owns its sources: `start` starts and `close` closes them.
    """

    def __init__(
        self,
        registrations: Registrations,
        consul: ConsulCatalog | None = None,
        *,
        domain: str = "cluster.local",
        rules: GuardRules = RULES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.snapshot = CatalogSnapshot()
        self._registrations = registrations
        self._consul = consul
        self._rules = rules
        self._clock = clock
        self._inputs, self._published = Changes(), Changes()
        self._index = RegistryIndex(domain)
        self._merged = Merged()
        self._guarded: dict[str, Guarded] = {}
        self._task: asyncio.Task[None] | None = None
        registrations.changes.subscribe(self._inputs.notify)
        if consul is not None:
            consul.changes.subscribe(self._inputs.notify)

    async def start(self) -> None:
        """Returns with a first snapshot of what the store knows."""
        await self._registrations.start()
        if self._consul is not None:
            await self._consul.start()
        self._refresh()
        self._task = spawn(self._run(), "the catalog")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            await cancel([task])
        if self._consul is not None:
            await self._consul.close()
        await self._registrations.close()

    def want(self, hosts: Iterable[str]) -> None:
        """The hosts whose instances somebody needs: those that clients subscribed to, and that configuration names.

        Registered instances are known in any case; Consul is asked only for these.
        """
        if self._consul is not None:
            self._consul.want(hosts)

    async def watch(self) -> AsyncIterator[CatalogSnapshot]:
        """The snapshot now, and after each change; a slow consumer gets the newest, not all."""
        while True:
            seen = self._published.count
            yield self.snapshot
            await self._published.after(seen)

    async def _run(self) -> None:
        while True:
            seen = self._inputs.count
            began = self._clock()
            self._refresh()
            took = self._clock() - began
            await asyncio.sleep(min(PAUSE_MAX, max(PAUSE, took)))
            wait = guard.deadline(self._guarded, self._rules) - self._clock()
            await self._inputs.after(seen, None if wait == math.inf else max(0.0, wait))

    def _refresh(self) -> None:
        self._guarded = guard.update(self._well_placed(), self._seen(), self._clock(), self._rules)
        before = self.snapshot
        after = CatalogSnapshot(
            services={host: guarded.service for host, guarded in self._guarded.items()},
            instances={host: guarded.instances for host, guarded in self._guarded.items() if guarded.watched},
            suspicious={host: why for host, guarded in self._guarded.items() if (why := guard.reason(guarded))},
            revision=before.revision + 1,
        )
        if _content(after) != _content(before):
            self.snapshot = after
            self._published.notify()

    def _well_placed(self) -> Mapping[str, Guarded]:
        """What is guarded, without services that have turned out to be in another namespace than their names suggested."""
        misplaced = self._consul.view.misplaced if self._consul is not None else frozenset()
        if not misplaced & self._guarded.keys():
            return self._guarded
        return {host: guarded for host, guarded in self._guarded.items() if guarded.watched or host not in misplaced}

    def _seen(self) -> Seen:
        table, index = self._registrations.table, self._index
        index.update(table)
        view = self._consul.view if self._consul is not None else ConsulView()
        sources = (index.offers, without_reflections(view.offers, table.leases))
        self._merged = merge(sources, {**view.known, **index.known}, before=self._merged)
        instances = dict(self._merged.instances)
        for host in view.watched | index.known.keys():
            if host in self._merged.services:
                instances.setdefault(host, ())
        return Seen(self._merged.services, instances, index.left)


def _content(snapshot: CatalogSnapshot) -> tuple[object, ...]:
    return snapshot.services, snapshot.instances, snapshot.suspicious
