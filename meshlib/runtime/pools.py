"""Which pool serves an endpoint: one for each event loop, and one for all blocking callers.

A pool hangs on its `Host`, so it lives exactly as long as the endpoint stays in its cluster.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterable
from random import Random
from typing import Any
from weakref import WeakSet

from meshlib.model.cluster import Cluster, UpstreamTls
from meshlib.model.endpoint import Endpoint
from meshlib.policy.balancing import Host
from meshlib.runtime.http.aio import AsyncPool
from meshlib.runtime.http.blocking import BlockingPool
from meshlib.runtime.http.connector import (
    AsyncConnector,
    AsyncTcpConnector,
    AsyncTlsConnector,
    Connector,
    TcpConnector,
    TlsConnector,
)
from meshlib.runtime.http.limits import Limits
from meshlib.runtime.http.settings import PoolSettings
from meshlib.runtime.identity.static import StaticIdentity
from meshlib.runtime.tls.contexts import TlsContexts

_BLOCKING = "blocking"
DRAINED = "drained"
"""Beside the pools of a host that is gone: calls that were balanced before it went may still make one."""


class Shell:
    """A pool (asynchronous or blocking), and the cluster and endpoint as it knows them; what `Host.shells` holds."""

    __slots__ = ("cluster", "endpoint", "pool")

    def __init__(self, cluster: Cluster, endpoint: Endpoint, pool: Any) -> None:
        self.cluster = cluster
        self.endpoint = endpoint
        self.pool = pool


class _LoopPools:
    """The pools of one event loop, which are drained when it ends.

    Nobody tells when a loop ends, but ``asyncio.run`` and its kin close all asynchronous generators as the last thing that
    they do (``loop.shutdown_asyncgens``): one that is open for as long as the loop is hears of it.
    """

    def __init__(self) -> None:
        self._pools: WeakSet[AsyncPool] = WeakSet()
        self._ending = _drained_at_the_end(self._pools)
        try:
            self._ending.__anext__().send(None)  # as far as its yield; from now on the loop knows it
        except StopIteration:
            pass

    def add(self, pool: AsyncPool) -> None:
        self._pools.add(pool)

    def retire(self) -> None:
        """On the loop."""
        for pool in list(self._pools):
            pool.retire()

    def forget(self) -> None:
        """The loop was closed, perhaps without a last word."""
        for pool in list(self._pools):
            pool.forget()


async def _drained_at_the_end(pools: WeakSet[AsyncPool]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        for pool in list(pools):
            pool.drain()
        await asyncio.sleep(0)  # transports close in the loop's next turn


class Pools:
    """Opens pools on first use and closes them when their endpoint is gone.

    An endpoint is connected to over TLS iff its cluster says so: for all endpoints, or with auto mTLS for those that are of
    the mesh.  Never in plaintext instead: without an identity such a call fails.
    """

    def __init__(self, tls: TlsContexts | None = None) -> None:
        """`tls` None: this process has no identity; it can still speak TLS to hosts outside."""
        self._lock = threading.Lock()
        self._tls = tls or TlsContexts(StaticIdentity(absent="this process runs without an identity (insecure_dev)"))
        self._rng = Random()
        self._blocking: WeakSet[BlockingPool] = WeakSet()
        self._stop = self._tls.listen(self.sweep)
        self._limits: dict[str, Limits] = {}
        self._loops: dict[asyncio.AbstractEventLoop, _LoopPools] = {}

    def for_loop(self, host: Host, cluster: Cluster, loop: asyncio.AbstractEventLoop) -> AsyncPool:
        """The pool for callers on `loop`."""
        shell: Shell | None = host.shells.get(loop)
        if shell is None:
            for stale in [key for key in list(host.shells) if isinstance(key, asyncio.AbstractEventLoop) and key.is_closed()]:
                host.shells.pop(stale, None)
            endpoint = host.endpoint
            pool = AsyncPool(endpoint, self._settings(cluster), connector=self._async_connector(cluster, endpoint))
            shell = self._kept(host, loop, Shell(cluster, endpoint, pool))
            self._of_loop(loop).add(shell.pool)
        elif shell.cluster is not cluster or shell.endpoint is not host.endpoint:
            endpoint = host.endpoint
            if tls_of(cluster, endpoint) != tls_of(shell.cluster, shell.endpoint):
                shell.pool.connect_by(self._async_connector(cluster, endpoint))
            shell.pool.settings, shell.cluster, shell.endpoint = self._settings(cluster), cluster, endpoint
        found: AsyncPool = shell.pool
        return found

    def blocking(self, host: Host, cluster: Cluster) -> BlockingPool:
        """The pool for callers that block their thread."""
        shell: Shell | None = host.shells.get(_BLOCKING)
        if shell is None:
            endpoint = host.endpoint
            pool = BlockingPool(endpoint, self._settings(cluster), connector=self._connector(cluster, endpoint))
            shell = self._kept(host, _BLOCKING, Shell(cluster, endpoint, pool))
            with self._lock:
                self._blocking.add(shell.pool)
        elif shell.cluster is not cluster or shell.endpoint is not host.endpoint:
            endpoint = host.endpoint
            if tls_of(cluster, endpoint) != tls_of(shell.cluster, shell.endpoint):
                shell.pool.connect_by(self._connector(cluster, endpoint))
            shell.pool.settings, shell.cluster, shell.endpoint = self._settings(cluster), cluster, endpoint
        found: BlockingPool = shell.pool
        return found

    def connector_for_loop(self, cluster: Cluster, endpoint: Endpoint) -> AsyncConnector:
        """How calls on an event loop connect to `endpoint`; for connections that are not HTTP's."""
        return self._async_connector(cluster, endpoint)

    def drain(self, hosts: Iterable[Host]) -> None:
        """Close what is idle now, and the rest when its request ends.  From any thread."""
        for host in hosts:
            shells, host.shells = host.shells, {DRAINED: None}
            for key, shell in list(shells.items()):
                if shell is None:
                    continue
                drain = shell.pool.drain
                if not isinstance(key, asyncio.AbstractEventLoop):
                    drain()
                    continue
                try:
                    key.call_soon_threadsafe(drain)
                except RuntimeError:
                    pass  # the loop is closed, and its connections with it

    def close_loop(self, hosts: Iterable[Host], loop: asyncio.AbstractEventLoop) -> None:
        """On `loop` itself: let go of the connections that it keeps to these hosts."""
        for host in hosts:
            shell = host.shells.pop(loop, None)
            if shell is not None:
                shell.pool.close()

    def close(self) -> None:
        """Hear no more of changes of identity and trust.  The pools are the owner's to drain."""
        self._stop()

    def sweep(self) -> None:
        """Close idle connections that take no new requests; busy ones close after theirs.  From any thread.

        Loops do it by themselves when a connection has been idle, or has lived, for too long; blocking callers when they come
        by.
        """
        with self._lock:
            loops, blocking = list(self._loops.items()), list(self._blocking)
        for pool in blocking:
            pool.sweep()
        for loop, pools in loops:
            try:
                loop.call_soon_threadsafe(pools.retire)
            except RuntimeError:
                pass  # the loop is closed

    def _async_connector(self, cluster: Cluster, endpoint: Endpoint) -> AsyncConnector:
        tls = tls_of(cluster, endpoint)
        return AsyncTcpConnector() if tls is None else AsyncTlsConnector(self._tls, tls, self._rng)

    def _connector(self, cluster: Cluster, endpoint: Endpoint) -> Connector:
        tls = tls_of(cluster, endpoint)
        return TcpConnector() if tls is None else TlsConnector(self._tls, tls, self._rng)

    def _of_loop(self, loop: asyncio.AbstractEventLoop) -> _LoopPools:
        """On `loop` itself."""
        with self._lock:
            for closed in [known for known in self._loops if known.is_closed()]:
                self._loops.pop(closed).forget()
            pools = self._loops.get(loop)
            if pools is None:
                pools = self._loops[loop] = _LoopPools()
            return pools

    @staticmethod
    def _kept(host: Host, key: object, made: Shell) -> Shell:
        """`made`, or what another thread has put in its place."""
        shell: Shell = host.shells.setdefault(key, made)
        if DRAINED in host.shells:
            shell.pool.drain()
        return shell

    def _settings(self, cluster: Cluster) -> PoolSettings:
        breakers = cluster.circuit_breakers
        with self._lock:
            limits = self._limits.setdefault(cluster.name, Limits())
            limits.max_connections = breakers.max_connections
            limits.max_pending_requests = breakers.max_pending_requests
        return PoolSettings.of(cluster, limits)


def tls_of(cluster: Cluster, endpoint: Endpoint) -> UpstreamTls | None:
    """How `endpoint` is encrypted; None: not at all."""
    return None if cluster.auto_mtls and not endpoint.mtls else cluster.tls
