"""The key sets of token issuers, fetched in the background and kept while their source fails.

The rules are Istio's where it has any (pilot/pkg/model/jwks_resolver.go): refreshed every 20 minutes, tried again after 1 to
60 minutes, the last good document holds for up to 7 days of failures.  A set without usable keys is a failure, too: an issuer
that answers so has a fault, and believing it would lock everybody out.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

from meshlib_control.changes import Changes
from meshlib_control.config.authentication import DISCOVERY
from meshlib_control.config.jwks import VERIFIES_NOTHING, for_data_planes
from meshlib_control.errors import StoreError
from meshlib_control.guarded_fetch import FetchFailed
from meshlib_control.store.model import Store
from meshlib_control.tasks import cancel, spawn

log = logging.getLogger(__name__)

REFRESH: Final = 1200.0
FIRST_RETRY: Final = 60.0
EAGER_RETRY: Final = 5.0
"""Where there is no document yet, tokens fail until one is there: the first attempts come sooner than Istio's."""
LAST_RETRY: Final = 3600.0
MAX_AGE: Final = 7 * 86400.0
JITTER: Final = 0.1
PARALLEL: Final = 8  # fetches at a time

ARCHIVE: Final = "jwks/"
_MAX_SAVED = 400_000  # bytes: what every store takes


class Fetch(Protocol):
    """Gets a document, or raises `FetchFailed`."""

    def __call__(self, address: str, timeout: float = ...) -> Awaitable[bytes]: ...


@dataclass(slots=True)
class _Source:
    """One address.  Times are Unix seconds."""

    timeout: float
    document: str = ""
    fetched: float = 0.0
    failures: int = 0
    problem: str = ""
    tried: bool = False


class JwksFetcher:
    """Keeps `documents` filled with the key sets of the addresses that are `wanted`.  For one event loop.

    `store`: remembers the last good documents over restarts; `clock`: Unix seconds.
    """

    def __init__(
        self,
        fetch: Fetch,
        store: Store | None = None,
        *,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._fetch = fetch
        self._store = store
        self._clock = clock
        self._pause = pause
        self._rng = rng or random.Random()
        self._sources: dict[str, _Source] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._running = False
        self._remembered: dict[str, _Source] = {}
        self._slots = asyncio.Semaphore(PARALLEL)
        self._documents: Mapping[str, str] = MappingProxyType({})
        self.changes = Changes()
        """Told whenever `documents` is another mapping, and when an address was tried for the first time."""

    @property
    def documents(self) -> Mapping[str, str]:
        """Key sets by address; an address without any is not in it.  A new mapping with each change."""
        return self._documents

    @property
    def problems(self) -> Mapping[str, str]:
        """By address: why its newest attempt failed."""
        return {uri: source.problem for uri, source in self._sources.items() if source.problem}

    def wanted(self, uris: Mapping[str, float]) -> None:
        """From now on these addresses, each with the seconds that an attempt may take, and no others."""
        for uri in self._sources.keys() - uris.keys():
            del self._sources[uri]
            if (task := self._tasks.pop(uri, None)) is not None:
                task.cancel()
        for uri, timeout in uris.items():
            if uri in self._sources:
                self._sources[uri].timeout = timeout
            else:
                self._sources[uri] = self._known(uri, timeout)
                self._start(uri)
        self._publish()

    async def run(self) -> None:
        """Fetch until cancelled."""
        await self._recall()
        self._running = True
        try:
            for uri, source in self._sources.items():
                if not source.document:
                    self._sources[uri] = self._known(uri, source.timeout)
                self._start(uri)
            self._publish()
            await asyncio.Event().wait()
        finally:
            self._running = False
            tasks, self._tasks = self._tasks, {}
            await cancel(tasks.values())

    async def tried(self, timeout: float) -> bool:
        """Wait until each address that is wanted was tried once or is remembered; False after `timeout` seconds."""
        deadline = asyncio.get_running_loop().time() + timeout
        while not all(source.tried or source.document for source in self._sources.values()):
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            await self.changes.after(self.changes.count, left)
        return True

    def _known(self, uri: str, timeout: float) -> _Source:
        found = self._remembered.get(uri)
        if found is None or self._clock() - found.fetched > MAX_AGE:
            return _Source(timeout)
        return _Source(timeout, found.document, found.fetched)

    def _start(self, uri: str) -> None:
        if self._running and uri not in self._tasks:
            self._tasks[uri] = spawn(self._keep(uri), f"key set {uri}")

    async def _keep(self, uri: str) -> None:
        while (source := self._sources.get(uri)) is not None:
            async with self._slots:
                await self._attempt(uri, source)
            source.tried = True
            self.changes.notify()
            await self._pause(self._delay(source))

    async def _attempt(self, uri: str, source: _Source) -> None:
        try:
            document = await self._key_set(uri, source.timeout)
        except FetchFailed as error:
            self._failed(uri, source, str(error))
            return
        if source.problem:
            log.info("key set %s: fetched again", uri)
        source.failures, source.problem, source.fetched = 0, "", self._clock()
        if document != source.document:
            source.document = document
            self._publish()
        await self._save(uri, source)

    def _failed(self, uri: str, source: _Source, problem: str) -> None:
        source.failures += 1
        if problem != source.problem:
            kept = "the keys that were fetched before stay in use" if source.document else "its tokens are refused"
            log.warning("key set %s cannot be fetched, %s: %s", uri, kept, problem)
        source.problem = problem
        if source.document and self._clock() - source.fetched > MAX_AGE:
            log.error("key set %s: no success for %d days; its tokens are refused from now on", uri, MAX_AGE // 86400)
            source.document = ""
            self._publish()

    async def _key_set(self, uri: str, timeout: float) -> str:
        """In one form, whatever the order of its members is."""
        address = uri
        if uri.endswith(DISCOVERY):
            address = _jwks_uri(await self._fetch(uri, timeout), uri)
        document = for_data_planes((await self._fetch(address, timeout)).decode("utf-8", "replace"))
        if document == VERIFIES_NOTHING:
            raise FetchFailed(f"{address}: the answer is no JSON Web Key Set with a key that tokens can be verified with")
        return json.dumps(json.loads(document), sort_keys=True, separators=(",", ":"))

    def _delay(self, source: _Source) -> float:
        """Seconds to the next attempt."""
        seconds = REFRESH
        if source.failures:
            first = FIRST_RETRY if source.document else EAGER_RETRY
            seconds = min(first * 2.0 ** min(source.failures - 1, 16), LAST_RETRY)
        return seconds * self._rng.uniform(1 - JITTER, 1 + JITTER)

    def _publish(self) -> None:
        found = {uri: source.document for uri, source in sorted(self._sources.items()) if source.document}
        if found != self._documents:
            self._documents = MappingProxyType(found)
            self.changes.notify()

    async def _recall(self) -> None:
        """What was good before a restart.  It is only a memory: a store that fails is no reason not to fetch."""
        if self._store is None:
            return
        try:
            entries = await self._store.scan(ARCHIVE)
        except StoreError as error:
            log.warning("key sets that were fetched before cannot be read: %s", error)
            return
        for entry in entries:
            found = _read(entry.value)
            if found is not None:
                uri, source = found
                self._remembered[uri] = source

    async def _save(self, uri: str, source: _Source) -> None:
        if self._store is None:
            return
        content = {"uri": uri, "document": source.document, "fetched": source.fetched}
        value = json.dumps(content, sort_keys=True).encode()
        if len(value) > _MAX_SAVED:
            return
        try:
            await self._store.put(_key(uri), value)
        except StoreError as error:
            log.warning("key set %s cannot be remembered: %s", uri, error)


def _key(uri: str) -> str:
    return ARCHIVE + hashlib.sha256(uri.encode()).hexdigest()[:40]


def _read(value: bytes) -> tuple[str, _Source] | None:
    """None for what cannot be read.  What was stored is checked like what was fetched."""
    try:
        content = json.loads(value)
        uri, document, fetched = content["uri"], content["document"], content["fetched"]
    except (KeyError, TypeError, ValueError):
        return None
    if not (isinstance(uri, str) and isinstance(document, str) and isinstance(fetched, int | float)):
        return None
    if for_data_planes(document) == VERIFIES_NOTHING:
        return None
    return uri, _Source(0.0, document, float(fetched))


def _jwks_uri(answer: bytes, uri: str) -> str:
    """Where an issuer says that its keys are (OpenID Connect Discovery 1.0, section 4.3).  Raises `FetchFailed`."""
    try:
        content = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise FetchFailed(f"{uri}: the answer is not JSON") from error
    if not isinstance(content, dict) or not isinstance(content.get("jwks_uri"), str):
        raise FetchFailed(f"{uri}: the answer names no jwks_uri")
    issuer = content.get("issuer")
    if not isinstance(issuer, str) or issuer.removesuffix("/") != uri.removesuffix(DISCOVERY):
        raise FetchFailed(f"{uri}: the answer is about another issuer")
    return str(content["jwks_uri"])
