"""Stored configuration, files and catalog, joined into worlds as they change.

The rule of this file: whatever a source cannot give at the moment stays as it was, and `problems` says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Protocol, TypeVar, cast

from meshlib_control.catalog.model import CatalogSnapshot
from meshlib_control.compile.trust import Trust
from meshlib_control.compile.world import World
from meshlib_control.config import ConfigResource, ConfigSet
from meshlib_control.errors import ControlServiceError
from meshlib_control.loading import DocumentLoader
from meshlib_control.static import StaticConfig
from meshlib_control.store.revisions import RevisionContent, Revisions

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY = 1.0  # seconds before a source that failed is asked again
PACE = 0.05  # seconds between worlds: a thousand registrations in a moment make a few worlds, not a thousand
PROBE = 5.0  # seconds between checks that the store still answers


class CatalogSource(Protocol):
    """The catalog as seen from here."""

    def watch(self) -> AsyncIterator[CatalogSnapshot]: ...


class LiveWorld:
    """`world` is always the newest one; `publish` is called with each."""

    def __init__(
        self,
        revisions: Revisions,
        catalog: CatalogSource,
        files: StaticConfig,
        *,
        domain: str,
        trust: Trust = Trust(secure=False),  # noqa: B008  # frozen
    ) -> None:
        self._revisions = revisions
        self._catalog = catalog
        self._files = files
        self._domain = domain
        self._trust = trust
        self._jwks: Mapping[str, str] = {}
        self._content = RevisionContent()
        self._config = ConfigSet()
        self._loader = DocumentLoader()
        self._changed = asyncio.Event()
        self._problems: dict[str, str] = {}
        self._publish: Callable[[World], None] = lambda world: None
        self.published = 0  # worlds so far
        self.snapshot = CatalogSnapshot()
        self.world = World.of(self._config, self.snapshot, domain=domain, trust=trust)

    @property
    def revision(self) -> int:
        """Of the configuration that is in use."""
        return self._content.revision

    @property
    def problems(self) -> list[str]:
        """What keeps a source from being up to date, in words; empty when nothing does."""
        found = list(self._problems.values())
        if self._revisions.suspicious:
            found.append(f"configuration: {self._revisions.suspicious}")
        if self._files.problem:
            found.append(f"files: {self._files.problem}; those read before stay in use")
        said, actual = self.world.settings.trust_domain, self._trust.domain
        if self._trust.secure and said and said != actual:
            found.append(f"MeshConfig says trustDomain {said}, but certificates are issued for {actual}: make it an alias")
        return found

    @property
    def file_resources(self) -> tuple[ConfigResource, ...]:
        """What comes from files, and cannot be changed through the API."""
        return self._files.resources

    async def load(self, snapshot: CatalogSnapshot) -> None:
        """The first world.  Raises `StoreError` when the store cannot be read."""
        self.snapshot = snapshot
        self._take_content(await self._revisions.read())
        self._rebuild()

    def take_trust(self, trust: Trust) -> None:
        """The certificate authority trusts other roots from now on."""
        if trust != self._trust:
            self._trust = trust
            self._changed.set()

    def take_jwks(self, documents: Mapping[str, str]) -> None:
        """Key sets of token issuers, by the URI that they were fetched from."""
        if documents != self._jwks:
            self._jwks = dict(documents)
            self._changed.set()

    async def run(self, publish: Callable[[World], None]) -> None:
        """Follow all sources, until cancelled."""
        self._publish = publish
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow("configuration", self._revisions.watch, self._take_content))
            tasks.create_task(self._follow("catalog", self._catalog.watch, self._take_snapshot))
            tasks.create_task(self._follow("files", self._files.watch, self._take_files))
            tasks.create_task(self._probe())
            tasks.create_task(self._rebuild_when_changed())

    async def _follow(self, name: str, source: Callable[[], AsyncIterator[T]], take: Callable[[T], None]) -> None:
        while True:
            try:
                async with aclosing(cast("AsyncGenerator[T, None]", source())) as items:
                    async for item in items:
                        self._problems.pop(name, None)
                        take(item)
                return
            except ControlServiceError as error:
                self._note(name, f"{name}: {error}; what was read before stays in use")
            except Exception as error:
                log.exception("following the %s failed", name)
                self._note(name, f"{name}: a defect, see the log ({type(error).__name__}); what was read before stays in use")
            await asyncio.sleep(RETRY)

    async def _probe(self) -> None:
        """A watch waits outages out in silence, so the store is asked by itself."""
        while True:
            await asyncio.sleep(PROBE)
            try:
                async with asyncio.timeout(PROBE):
                    await self._revisions.head()
            except (ControlServiceError, TimeoutError) as error:
                self._note("store", f"store: {error or 'no answer'}; what was read before stays in use")
            else:
                self._problems.pop("store", None)

    async def _rebuild_when_changed(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                self._rebuild()
                self._publish(self.world)
            except Exception as error:
                log.exception("the newest configuration and catalog cannot be put together")
                self._note("world", f"a defect, see the log ({type(error).__name__}); clients keep what they have")
            else:
                self.published += 1
                self._problems.pop("world", None)
            await asyncio.sleep(PACE)

    def _rebuild(self) -> None:
        self.world = World.of(
            self._config, self.snapshot, domain=self._domain, trust=self._trust, jwks=self._jwks, previous=self.world
        )

    def _take_content(self, content: RevisionContent) -> None:
        self._content = content
        self._configure()

    def _take_files(self, _resources: Iterable[ConfigResource]) -> None:
        self._configure()

    def _take_snapshot(self, snapshot: CatalogSnapshot) -> None:
        self.snapshot = snapshot
        self._changed.set()

    def _configure(self) -> None:
        """A new set only when something changed: worlds that share a set share most of their work."""
        stored = self._stored()
        stored.update((str(resource.key), resource) for resource in self._files.resources)
        self._config = ConfigSet(stored.values(), self._content.revision)
        self._changed.set()

    def _stored(self) -> dict[str, ConfigResource]:
        """The stored resources.  One that this version cannot read stays as it was read last."""
        resources, errors = self._loader.load(self._content.documents, self._content.created)
        self._problems.pop("documents", None)
        if errors:
            unreadable = "; ".join(f"{key}: {error}" for key, error in errors.items())
            self._note("documents", f"stored resources that this version cannot read: {unreadable}")
        return resources

    def _note(self, name: str, problem: str) -> None:
        if self._problems.get(name) != problem:
            log.warning("%s", problem)
        self._problems[name] = problem
