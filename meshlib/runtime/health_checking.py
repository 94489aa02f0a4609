"""Active health checks: every endpoint of a cluster that asks for them is probed from here, in one thread with its own loop.

What a result means is decided in `policy.health_checking`, under the lock of the client's policy state; the probes themselves
are `health_probes`.  Nothing is started before some cluster has checks, and no application's loop is touched.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from random import Random

from meshlib.flow.upstream import Upstream
from meshlib.model.cluster import Cluster, HealthCheck
from meshlib.model.endpoint import Endpoint
from meshlib.policy.balancing import Host
from meshlib.policy.health_checking import Failure, begin, end, initial_pause, is_used, settle
from meshlib.runtime.drive import Lock
from meshlib.runtime.fork import forget_in_child, keep_for_ever
from meshlib.runtime.health_probes import Probes, Target
from meshlib.runtime.tls.contexts import TlsContexts
from meshlib.wire.errors import NoIdentity

logger = logging.getLogger("meshlib")

_JOIN = 5.0
"""Seconds that closing waits for the thread."""

_NO_IDENTITY = 1.0
"""Seconds, at most, after which a probe is tried again for which this process had no certificate: no endpoint is to blame."""

_Key = tuple[Upstream, Host]


class HealthChecking:
    """Of one process.  `follow` and `close` may be called from any thread."""

    def __init__(self, lock: Lock, rng: Random, clock: Callable[[], float], tls: TlsContexts | None) -> None:
        """`lock`: of the upstreams; `clock`: that of flows."""
        self._lock = lock
        self._rng = rng
        self._clock = clock
        self._tls = tls
        self._wanted: dict[_Key, HealthCheck] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sessions: _Sessions | None = None
        self._closed = False
        self._starting = threading.Lock()
        forget_in_child(self)

    def follow(self, upstreams: Iterable[Upstream]) -> None:
        """These are all upstreams now; their hosts and checks may be others than before."""
        with self._starting:
            if self._closed:
                return
            wanted = {
                (upstream, host): upstream.cluster.health_checks[0]
                for upstream in upstreams
                if upstream.cluster.health_checks
                for host in upstream.hosts.values()
            }
            before, self._wanted = self._wanted, wanted
            if not wanted and not before:
                return
            self._mark(before, wanted)
            if self._thread is None:
                self._start()
            loop, sessions = self._loop, self._sessions
            assert loop is not None
            assert sessions is not None
            loop.call_soon_threadsafe(sessions.take_over, wanted)

    def close(self) -> None:
        with self._starting:
            self._closed = True
            thread, loop, self._thread = self._thread, self._loop, None
        if thread is None or loop is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(_JOIN)

    def forget(self) -> None:
        """In a forked child: the thread, its loop and its connections are the parent's."""
        self._starting = threading.Lock()
        keep_for_ever((self._loop, self._thread, self._sessions))
        self._thread = self._loop = self._sessions = None
        self._wanted = {}

    def _mark(self, before: dict[_Key, HealthCheck], wanted: dict[_Key, HealthCheck]) -> None:
        """New hosts are checked from now on, others no more."""
        with self._lock:
            changed = {upstream for upstream, host in before.keys() - wanted.keys() if end(host)}
            changed |= {upstream for upstream, host in wanted.keys() - before.keys() if begin(host, upstream.hosts.values())}
            for upstream in changed:
                upstream.health_changed(self._rng, self._clock())

    def _start(self) -> None:
        self._loop = loop = asyncio.new_event_loop()
        self._sessions = _Sessions(loop, Probes(self._tls), self._settle, self._rng)
        self._thread = threading.Thread(target=_run, args=(loop, self._sessions), name="meshlib-health", daemon=True)
        self._thread.start()

    def _settle(self, key: _Key, check: HealthCheck, failure: Failure | None) -> float:
        """Enter a result; the seconds to the next probe."""
        upstream, host = key
        with self._lock:
            if host.checking is None:
                return check.interval  # it is checked no more, and the session about to hear of it
            return settle(upstream, host, check, failure, now=self._clock(), rng=self._rng)


def _run(loop: asyncio.AbstractEventLoop, sessions: _Sessions) -> None:
    try:
        loop.run_forever()
        loop.run_until_complete(sessions.close())
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


class _Sessions:
    """A task for each endpoint that is checked.  On the loop only."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        probes: Probes,
        settle_: Callable[[_Key, HealthCheck, Failure | None], float],
        rng: Random,
    ) -> None:
        self._loop = loop
        self._probes = probes
        self._settle = settle_
        self._rng = rng
        self._tasks: dict[_Key, tuple[HealthCheck, asyncio.Task[None]]] = {}

    def take_over(self, wanted: dict[_Key, HealthCheck]) -> None:
        for key, (check, task) in list(self._tasks.items()):
            if wanted.get(key) != check:
                task.cancel()
                del self._tasks[key]
        for key, check in wanted.items():
            if key not in self._tasks:
                self._tasks[key] = check, self._loop.create_task(self._check(key, check))

    async def close(self) -> None:
        tasks = [task for _, task in self._tasks.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._probes.close()
        await asyncio.sleep(0)  # transports close in the loop's next turn

    async def _check(self, key: _Key, check: HealthCheck) -> None:
        upstream, host = key
        session = _Session(upstream.cluster, host.endpoint, check)
        try:
            await asyncio.sleep(initial_pause(check, self._rng))
            while True:
                if session.is_stale(upstream.cluster, host.endpoint):
                    self._probes.forget(session.target)
                    session = _Session(upstream.cluster, host.endpoint, check)
                await self._rest(upstream, check, await self._look(key, session))
        finally:
            self._probes.forget(session.target)

    async def _rest(self, upstream: Upstream, check: HealthCheck, seconds: float) -> None:
        """Until the next probe; of a cluster that nobody called, at the latest one interval after somebody has.

        Clusters come with their first call here: it must not be as if there was none for all of no_traffic_interval.
        """
        if is_used(upstream.hosts.values()):
            await asyncio.sleep(seconds)
            return
        ends = self._loop.time() + seconds
        while (left := ends - self._loop.time()) > 0:
            await asyncio.sleep(min(left, check.interval))
            if is_used(upstream.hosts.values()):
                return

    async def _look(self, key: _Key, session: _Session) -> float:
        """One probe; the seconds to the next one."""
        target = session.target
        try:
            failure = await self._probes.probe(target)
        except NoIdentity as error:
            if not session.complained:
                session.complained = True
                logger.warning("%s cannot be checked, and is used unchecked: %s", target.host.key, error)
            return min(target.check.interval, _NO_IDENTITY)
        except Exception as error:  # whatever goes wrong, the endpoint goes on being checked
            logger.exception("a health check of %s failed in an unforeseen way", target.host.key)
            failure = Failure(f"{type(error).__name__}: {error}", network=True)
        return self._settle(key, target.check, failure)


class _Session:
    """The target of one endpoint's probes, for as long as its configuration stays the same."""

    __slots__ = ("_cluster", "_endpoint", "complained", "target")

    def __init__(self, cluster: Cluster, endpoint: Endpoint, check: HealthCheck) -> None:
        self.complained = False
        self._cluster = cluster
        self._endpoint = endpoint
        self.target = Target(cluster, endpoint, check)

    def is_stale(self, cluster: Cluster, endpoint: Endpoint) -> bool:
        return cluster != self._cluster or endpoint != self._endpoint
