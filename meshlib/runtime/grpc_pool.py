"""Which channel serves a try: by endpoint, by event loop (or none, for callers that block), by the caller's own options.

Channels hang on their `Host`, beside the HTTP engine's pools, so they live as long as the endpoint stays in its cluster.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine
from math import inf
from random import Random
from time import monotonic
from typing import Any, NamedTuple
from weakref import WeakSet

from meshlib.flow.commands import Attempt
from meshlib.model.cluster import Cluster, UpstreamTls
from meshlib.model.endpoint import Endpoint
from meshlib.policy.balancing import Host
from meshlib.runtime.fork import forget_in_child
from meshlib.runtime.grpc_channels import Channels, Opened, Opening, Options, opening, outside, tls_of
from meshlib.runtime.grpc_proof import Proof, Prover
from meshlib.runtime.pools import DRAINED, Shell
from meshlib.runtime.tls.contexts import TlsContexts
from meshlib.wire.errors import ConnectTimedOut, NoIdentity

REPROVE = 60.0
"""Seconds after which an endpoint's certificate is looked at again before a stream goes there: a call that can be repeated
finds out by itself that it has changed, and a stream cannot be taken back."""


class Wanted(NamedTuple):
    """What a try needs a channel for; `limit`: seconds that opening one may take."""

    authority: str
    options: Options
    limit: float
    stream: bool


class GrpcPool:
    """One per Mesh and process."""

    def __init__(self, contexts: TlsContexts | None) -> None:
        """`contexts` None: this process has no identity."""
        self._contexts = contexts
        self._prover = Prover(contexts, Random()) if contexts is not None else None
        self._lock = threading.Lock()
        self._blocking: WeakSet[Channels] = WeakSet()
        self._loops: dict[asyncio.AbstractEventLoop, LoopChannels] = {}
        self._stop = contexts.listen(self._sweep) if contexts is not None else lambda: None
        forget_in_child(self)

    def take(self, attempt: Attempt, wanted: Wanted) -> tuple[Channels, Opened]:
        """The channel for a try, and where to release it.  Blocks for `wanted.limit` seconds at most; raises WireError."""
        import grpc

        host, cluster = attempt.host, attempt.cluster
        shell = host.shells.get((_BLOCKING, wanted.options)) or self._make(host, cluster, (_BLOCKING, wanted.options))
        channels: BlockingChannels = shell.pool
        tls, since = tls_of(cluster, host.endpoint), _since(wanted)
        opened = channels.take(tls, self._generation, proved_since=since)
        if opened is not None:
            return channels, opened
        until = monotonic() + min(wanted.limit, cluster.connect_timeout)
        if not channels.opening.acquire(timeout=max(until - monotonic(), 0.0)):
            raise ConnectTimedOut(f"no connection to {host.key} was made in time")
        try:
            opened = channels.take(tls, self._generation, proved_since=since)
            if opened is None:
                proof = self._prove(host.endpoint, tls, until)
                opened = self._opened(grpc, channels, attempt, wanted, (tls, proof))
        finally:
            channels.opening.release()
        return channels, opened

    async def atake(self, attempt: Attempt, wanted: Wanted) -> tuple[Channels, Opened]:
        """`take` on the running loop."""
        import grpc.aio

        host, cluster, loop = attempt.host, attempt.cluster, asyncio.get_running_loop()
        key = (LoopKey(loop), wanted.options)
        shell = host.shells.get(key) or self._make(host, cluster, key)
        channels: AsyncChannels = shell.pool
        tls, since = tls_of(cluster, host.endpoint), _since(wanted)
        opened = channels.take(tls, self._generation, proved_since=since)
        if opened is not None:
            return channels, opened
        until = monotonic() + min(wanted.limit, cluster.connect_timeout)
        try:
            async with asyncio.timeout_at(loop.time() + max(until - monotonic(), 0.0)):
                await channels.opening.acquire()
        except TimeoutError:
            raise ConnectTimedOut(f"no connection to {host.key} was made in time") from None
        try:
            opened = channels.take(tls, self._generation, proved_since=since)
            if opened is None:
                proof = await self._aprove(host.endpoint, tls, until)
                opened = self._opened(grpc.aio, channels, attempt, wanted, (tls, proof))
        finally:
            channels.opening.release()
        return channels, opened

    async def take_awaited(self, attempt: Attempt, wanted: Wanted) -> tuple[Channels, Opened]:
        """A channel of gRPC's blocking API, for a loop that does not block: what has to be waited for is awaited.

        For a host of the caller's own: nobody else opens a channel to it meanwhile.
        """
        import grpc

        host, cluster, key = attempt.host, attempt.cluster, (_BLOCKING, wanted.options)
        shell = host.shells.get(key) or self._make(host, cluster, key)
        channels: BlockingChannels = shell.pool
        tls = tls_of(cluster, host.endpoint)
        opened = channels.take(tls, self._generation, proved_since=_since(wanted))
        if opened is None:
            proof = await self._aprove(host.endpoint, tls, monotonic() + min(wanted.limit, cluster.connect_timeout))
            opened = self._opened(grpc, channels, attempt, wanted, (tls, proof))
        return channels, opened

    async def close_loop(self) -> None:
        """Close what the running loop keeps."""
        with self._lock:
            channels = self._loops.pop(asyncio.get_running_loop(), None)
        if channels is not None:
            await channels.close()

    def close(self) -> None:
        """Hear no more of changes.  The channels are drained with their hosts."""
        self._stop()

    def forget(self) -> None:
        """In a forked child."""
        self._lock = threading.Lock()

    @property
    def _generation(self) -> int:
        return self._contexts.generation if self._contexts is not None else 0

    def _sweep(self) -> None:
        generation = self._generation
        with self._lock:
            found = [*self._blocking, *(channels for loop in self._loops.values() for channels in loop.all)]
        for channels in found:
            channels.sweep(generation)

    def _make(self, host: Host, cluster: Cluster, key: tuple[object, Options]) -> Shell:
        """The shell of this key, or what another thread has put in its place."""
        for stale in [each for each in list(host.shells) if isinstance(each, tuple) and _is_stale(each[0])]:
            host.shells.pop(stale, None)
        with self._lock:
            channels = BlockingChannels() if key[0] is _BLOCKING else AsyncChannels(self._of_loop())
            shell: Shell = host.shells.setdefault(key, Shell(cluster, host.endpoint, channels))
            if shell.pool is channels and isinstance(channels, BlockingChannels):
                self._blocking.add(channels)
        if DRAINED in host.shells:
            shell.pool.drain()
        return shell

    def _of_loop(self) -> LoopChannels:
        """Call on the loop, with the lock held."""
        loop = asyncio.get_running_loop()
        for closed in [known for known in self._loops if known.is_closed()]:
            del self._loops[closed]
        found = self._loops.get(loop)
        if found is None:
            found = self._loops[loop] = LoopChannels(loop)
        return found

    # --- opening

    def _prove(self, endpoint: Endpoint, tls: UpstreamTls | None, until: float) -> Proof | None:
        """None: the endpoint is not of the mesh's identities."""
        if tls is None or not tls.mesh:
            return None
        return self._prover_for(endpoint).prove(endpoint, tls, max(until - monotonic(), 0.001))

    async def _aprove(self, endpoint: Endpoint, tls: UpstreamTls | None, until: float) -> Proof | None:
        if tls is None or not tls.mesh:
            return None
        return await self._prover_for(endpoint).aprove(endpoint, tls, max(until - monotonic(), 0.001))

    def _prover_for(self, endpoint: Endpoint) -> Prover:
        if self._prover is None:
            raise NoIdentity(f"{endpoint} is to be called with mTLS, and this process has no identity (insecure_dev)")
        return self._prover

    def _opened(
        self, module: Any, channels: Channels, attempt: Attempt, wanted: Wanted, seen: tuple[UpstreamTls | None, Proof | None]
    ) -> Opened:
        """Another channel, or the one that there is if `seen` is the same as before.  `module`: grpc or grpc.aio."""
        endpoint, (tls, proof) = attempt.host.endpoint, seen
        secured = None
        if tls is not None and proof is not None:
            confirmed = channels.confirm(proof, tls, self._generation)
            if confirmed is not None:
                return confirmed
            material = self._contexts.material if self._contexts is not None else None
            if material is None:
                raise NoIdentity(f"{endpoint} is to be called with mTLS, and this process has no certificate")
            secured = proof.credentials(material), proof.name
        elif tls is not None:
            secured = outside(tls, endpoint)
        how = opening(endpoint, attempt.cluster, wanted.authority, secured)
        return channels.put(Opened(_connect(module, how, wanted.options), tls, proof))


_BLOCKING = "grpc"


class LoopKey:
    """An event loop, as the key of its channels: the loop itself is that of the HTTP engine's pools."""

    __slots__ = ("loop",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LoopKey) and self.loop is other.loop

    def __hash__(self) -> int:
        return id(self.loop)


class BlockingChannels(Channels):
    """For callers that block their thread.  `opening` is held while one is opened."""

    def __init__(self) -> None:
        super().__init__(_close_beside)
        self.opening = threading.Lock()


class AsyncChannels(Channels):
    """For callers on one event loop."""

    def __init__(self, loop: LoopChannels) -> None:
        super().__init__(loop.close_soon)
        self.opening = asyncio.Lock()
        loop.all.add(self)


class LoopChannels:
    """All channels of one event loop.  They are closed with it, see `pools._LoopPools` for how that is known."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.all: WeakSet[AsyncChannels] = WeakSet()
        self._loop = loop
        self._closing: set[asyncio.Task[None]] = set()
        self._ending = self._closed_at_the_end()
        try:
            self._ending.__anext__().send(None)  # as far as its yield; from now on the loop knows it
        except StopIteration:
            pass

    def close_soon(self, channel: Any) -> None:
        """From any thread."""
        try:
            self._loop.call_soon_threadsafe(self._close, channel)
        except RuntimeError:
            pass  # the loop is closed, and the channel ends with its last reference

    async def close(self) -> None:
        """On the loop."""
        for channels in list(self.all):
            channels.drain()
        await asyncio.sleep(0)  # `close_soon` is at work in the loop's next turn
        while self._closing:
            await asyncio.gather(*self._closing, return_exceptions=True)

    def _close(self, channel: Any) -> None:
        closing: Coroutine[Any, Any, None] = channel.close()
        task = self._loop.create_task(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _closed_at_the_end(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self.close()


def _close_beside(channel: Any) -> None:
    """In a thread of its own: this may be the channel's, which would wait for itself."""
    threading.Thread(target=channel.close, name="meshlib-grpc-close", daemon=True).start()


def _connect(module: Any, wanted: Opening, options: Options) -> Any:
    """`module`: grpc or grpc.aio.  The caller's own options win, but not over who is to be at the other end."""
    merged = {**dict(wanted.options), **dict(options), **dict(wanted.binding)}
    if wanted.credentials is None:
        return module.insecure_channel(wanted.target, options=[*merged.items()])
    return module.secure_channel(wanted.target, wanted.credentials, options=[*merged.items()])


def _is_stale(key: object) -> bool:
    return isinstance(key, LoopKey) and key.loop.is_closed()


def _since(wanted: Wanted) -> float:
    return monotonic() - REPROVE if wanted.stream else -inf
