"""Consul's catalog and health: the names of all services, and the instances of those that somebody asked for.

What Consul said last stays true while it cannot be reached, and through restarts: it is kept in the store.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from meshlib_control.catalog.consul_mapping import hosts_of, offers_of
from meshlib_control.catalog.model import Port, Service
from meshlib_control.catalog.offers import DEFAULT_PORT, ByHost, Offer, grouped
from meshlib_control.catalog.saved import SAVED, read_saved, saved_bytes, saved_key
from meshlib_control.catalog.storage import Storage
from meshlib_control.changes import Changes
from meshlib_control.consul.blocking import Answer, BlockingRules, Query
from meshlib_control.consul.client import ConsulClient
from meshlib_control.consul.watch import watch
from meshlib_control.errors import StoreError
from meshlib_control.tasks import cancel, spawn

log = logging.getLogger(__name__)

RULES = BlockingRules()
Found = tuple[Sequence[Offer], Sequence[str]]


@dataclass(frozen=True, slots=True)
class ConsulView:
    """`known`: services by host, whether looked at or not.  `watched`: hosts whose instances are all in `offers`.

    `misplaced`: hosts that names and tags alone suggested, and that are not those of the instances.
    """

    known: Mapping[str, Service] = field(default_factory=dict)
    watched: frozenset[str] = frozenset()
    offers: ByHost = field(default_factory=dict)
    misplaced: frozenset[str] = frozenset()


class ConsulCatalog:
    """`changes` tells of changes of `view`.  One blocking query for the names, and one for each wanted service.

    Each query holds a connection: a mesh that calls more than about 190 of Consul's services needs an agent whose
    ``limits.http_max_conns_per_client`` is above its default of 200.
    """

    def __init__(
        self,
        client: ConsulClient,
        *,
        storage: Storage | None = None,
        domain: str = "cluster.local",
        rules: BlockingRules = RULES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.changes = Changes()
        self.view = ConsulView()
        self.problems: Mapping[str, Sequence[str]] = {}  # by service: what of it cannot be used, and why
        self._client = client
        self._storage = storage
        self._domain = domain
        self._rules = rules
        self._clock = clock
        self._listed: Mapping[str, tuple[str, ...]] | None = None  # None: Consul has not answered yet
        self._offers: dict[str, tuple[Offer, ...]] = {}  # by Consul's service name
        self._hosts: dict[str, frozenset[tuple[str, str]]] = {}  # (host, namespace), of services that had instances
        self._wanted: frozenset[str] = frozenset()
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._names: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin with what was known before the restart, then ask."""
        await self._restore()
        self._publish()
        self._names = spawn(self._watch_names(), "names of Consul's services")

    async def close(self) -> None:
        tasks = [*self._watches.values(), *([self._names] if self._names else [])]
        self._watches, self._names = {}, None
        await cancel(tasks)

    def want(self, hosts: Iterable[str]) -> None:
        """Watch these services from now on, and no others.  Hosts that are not Consul's to answer for are passed over."""
        suffix = f".svc.{self._domain}"
        wanted = frozenset(host.partition(".")[0].lower() for host in hosts if host.lower().endswith(suffix))
        if wanted != self._wanted:
            self._wanted = wanted
            self._reconcile()

    async def _watch_names(self) -> None:
        changes = watch(self._client.services, self._rules, what="Consul's list of services", clock=self._clock)
        async with aclosing(changes):
            async for listed in changes:
                first, self._listed = self._listed is None, {name: tags for name, tags in listed.items() if name != "consul"}
                if first:
                    await self._forget_unlisted()
                self._hosts = {name: hosts for name, hosts in self._hosts.items() if name in listed or name in self._watches}
                self._reconcile()

    async def _watch_service(self, name: str) -> None:
        async def ask(query: Query) -> Answer[Found]:
            answer = await self._client.health(name, query)
            # Compared as the mesh sees it: the output of a check that keeps its status is no news.
            return replace(answer, content=offers_of(answer.content, self._domain))  # type: ignore[return-value,arg-type]

        changes = watch(ask, self._rules, what=f"Consul's service {name}", clock=self._clock)
        async with aclosing(changes):
            async for offers, problems in changes:
                self._offers[name] = tuple(offers)
                self.problems = {**self.problems, name: problems}
                for problem in problems:
                    log.warning("Consul's service %s: %s", name, problem)
                self._publish()
                await self._save(name)

    def _reconcile(self) -> None:
        """As many watches as wanted services.  One that vanished from the list is still watched: that may be an accident."""
        names = {*(self._listed or ()), *self._offers, *self._watches}
        targets = {name for name in names if name.lower() in self._wanted}
        for name in self._watches.keys() - targets:
            self._watches.pop(name).cancel()
        if self._listed is not None:
            self._offers = {name: offers for name, offers in self._offers.items() if name in targets}
            self.problems = {name: lines for name, lines in self.problems.items() if name in targets}
        for name in sorted(targets - self._watches.keys()):
            self._watches[name] = spawn(self._watch_service(name), f"Consul's service {name}")
        self._publish()

    def _publish(self) -> None:
        offers = grouped(offer for name in sorted(self._offers) for offer in self._offers[name])
        for name, found in self._offers.items():
            if found:
                self._hosts[name] = frozenset((offer.host, offer.namespace) for offer in found)
        known = {
            host: Service(host, namespace, (Port(DEFAULT_PORT),), source="consul")
            for name in self._listed or ()
            if not self._offers.get(name)
            for host, namespace in self._hosts_of(name)
        }
        watched = frozenset(host for name in self._offers for host, _ in self._hosts_of(name))
        guessed = {host for name, found in self._offers.items() if found for host, _ in self._guessed_hosts_of(name)}
        view = ConsulView(known, watched, offers, frozenset(guessed - offers.keys()))
        if view != self.view:
            self.view = view
            self.changes.notify()

    def _hosts_of(self, name: str) -> Iterable[tuple[str, str]]:
        """As its instances said, else as its tags do."""
        return self._hosts.get(name) or self._guessed_hosts_of(name)

    def _guessed_hosts_of(self, name: str) -> Iterable[tuple[str, str]]:
        return hosts_of(name, (self._listed or {}).get(name, ()), self._domain)

    async def _restore(self) -> None:
        if self._storage is None:
            return
        try:
            entries = await self._storage.scan(SAVED)
        except StoreError as error:
            log.warning("Consul's catalog: %s; starting without what was known before", error)
            return
        for entry in entries:
            name, offers = read_saved(entry.value)
            if name:
                self._offers[name] = offers

    async def _save(self, name: str) -> None:
        if self._storage is None:
            return
        try:
            await self._storage.put(saved_key(name), saved_bytes(name, self._offers.get(name, ())))
        except StoreError as error:
            log.debug("Consul's catalog: the last good state of %s was not kept: %s", name, error)

    async def _forget_unlisted(self) -> None:
        """Once after a start: of services that Consul no longer has, nothing is kept for the next one."""
        listed = self._listed or {}
        if self._storage is None or not listed:
            return
        for name in [name for name in self._offers if name not in listed]:
            try:
                await self._storage.delete(saved_key(name))
            except StoreError as error:
                log.debug("Consul's catalog: %s", error)
