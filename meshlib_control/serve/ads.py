"""The ADS service: gRPC streams around `serve.session`, bytes in and bytes out on both methods."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from meshlib import SpiffeId
from meshlib.xds.proto import core_pb2
from meshlib.xds.types import ADS_SERVICE
from meshlib_control.compile.node import Node
from meshlib_control.serve.cache import Compiler, ResourceCache, ScopeResources
from meshlib_control.serve.dialects import DELTA, STATE_OF_THE_WORLD, BadRequest, Dialect
from meshlib_control.serve.identity import Callers, NotAllowed
from meshlib_control.serve.nodes import node_of
from meshlib_control.serve.push import Debounce, PushLoop
from meshlib_control.serve.session import Session
from meshlib_control.serve.settling import DEFAULT_PERIOD, Settling
from meshlib_control.serve.status import ClientStatus, ServerStatus, client_status

logger = logging.getLogger("meshlib_control")

W = TypeVar("W")

GREETING = (("meshlib-control", "1"),)
"""Sent at once, so that a client knows that it is connected before there is anything to say."""


class _Client:
    """One stream."""

    def __init__(self, session: Session, context: Any, since: float, identity: SpiffeId | None) -> None:
        self.session = session
        self.identity = identity
        self.context = context
        self._since = since
        self._writing: asyncio.Task[None] | None = None
        self.expelled = False
        serving = asyncio.current_task()
        assert serving is not None
        self._serving = serving

    def flush(self) -> None:
        """Begin to write what there is to say, unless that is being done already."""
        if self._writing is None and (response := self.session.next_response()) is not None:
            self._writing = asyncio.create_task(self._write(response))

    def expel(self) -> None:
        """End the stream from this side."""
        self.expelled = True
        self._serving.cancel()

    async def close(self) -> None:
        self.session.close()
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)

    def status(self) -> ClientStatus:
        return client_status(self.session, address=self.context.peer(), connected_since=self._since)

    async def _write(self, response: bytes | None) -> None:
        """`write` returns when the client's window takes it: until then, changes only grow the session's dirty set."""
        try:
            while response is not None:
                await self.context.write(response)
                response = self.session.next_response()
        except Exception as error:
            # The stream is gone; its reader sees the same and cleans up.
            logger.debug("cannot write to %s: %s", self.context.peer(), error)
        finally:
            self._writing = None


class DiscoveryService(Generic[W]):
    """Serves one world at a time to any number of clients.

    ``async with`` starts its tasks; `handler` is what a gRPC server needs; `publish` takes a new world.
    """

    def __init__(
        self,
        compiler: Compiler[W],
        world: W,
        *,
        label: str = "",
        debounce: Debounce | None = None,
        settle: float = DEFAULT_PERIOD,
        empty: bool = False,
        callers: Callers | None = None,
    ) -> None:
        """`label`: of `world`, as for `publish`; `settle`: seconds in which nothing is taken from clients that come back;
        `empty`: `world` has no services; `callers`: who may ask (None: anybody, for anything).
        """
        self._clock: Callable[[], float] = time.monotonic
        self.cache = ResourceCache(compiler, world, label)
        self._settling = Settling(self._clock(), period=settle, empty=empty)
        self._push = PushLoop(self.cache, self, debounce or Debounce(), clock=self._clock)
        self._callers = callers or Callers()
        self._clients: set[_Client] = set()
        self._observed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> DiscoveryService[W]:
        self._tasks = [asyncio.create_task(self._push.run()), asyncio.create_task(self._settle())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def publish(self, world: W, *, label: str = "", empty: bool = False) -> None:
        """Serve `world` from now on, after the debounce.

        `label`: what the versions of responses begin with, for people: the revision of the configuration.
        """
        self._settling.observe(self._clock(), empty=empty)
        self._observed.set()
        self._push.publish(world, label)

    def status(self) -> ServerStatus:
        """Everybody who is connected."""
        clients = sorted((client.status() for client in self._clients), key=lambda client: (client.id, client.address))
        held_back = sum(kind.held_back for client in clients for kind in client.types.values())
        suspicious = self._settling.suspicious_empty and held_back > 0
        problems = list(self._push.failures)
        if suspicious:
            problems.append(
                f"nothing to serve since the start, but clients had {held_back} resources before: was the store lost?"
                " They keep what they have until services are registered again"
            )
        return ServerStatus(tuple(clients), suspicious, tuple(problems), self._push.pushed)

    def subscribed(self, type_url: str, flavour: str) -> Counter[frozenset[str]]:
        """How many clients of a kind subscribe to which names of a type.  Those that subscribe to the same share the set."""
        return Counter(
            subscription.names
            for client in self._clients
            if client.session.node is not None and client.session.node.flavour == flavour
            if (subscription := client.session.subscriptions.get(type_url)) is not None
        )

    def handler(self) -> grpc.GenericRpcHandler:
        """Both methods of ``AggregatedDiscoveryService``."""
        return grpc.method_handlers_generic_handler(
            ADS_SERVICE,
            {
                "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(self._method(DELTA)),
                "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(self._method(STATE_OF_THE_WORLD)),
            },
        )

    def rebind(self) -> None:
        for client in self._clients:
            if client.session.node is not None:
                client.session.move(self.cache.resources_for(client.session.node))

    def mark(self, resources: ScopeResources, type_url: str, names: frozenset[str], /) -> None:
        if names:
            for client in self._clients:
                if client.session.resources is resources:
                    client.session.changed(type_url, names)

    def flush(self) -> None:
        for client in self._clients:
            client.flush()

    async def _settle(self) -> None:
        """Sends what was held back once the settle period is over."""
        while self._settling.active:
            self._observed.clear()
            ends_at = self._settling.ends_at
            if ends_at is None:
                await self._observed.wait()
            else:
                await asyncio.sleep(max(ends_at - self._clock(), 0.0))
            if self._settling.tick(self._clock()):
                for client in self._clients:
                    client.session.release()
                self.flush()

    def admit_again(self) -> None:
        """End the streams of those who would not be let in any more: banned, or certified under a root that was revoked."""
        for client in tuple(self._clients):
            try:
                self._callers.caller(client.context)
            except NotAllowed as error:
                logger.warning("ending the stream of %s: %s", client.identity, error)
                client.expel()

    def _method(self, dialect: Dialect) -> Callable[[Any, Any], Awaitable[None]]:
        async def serve_stream(_requests: Any, context: Any) -> None:
            try:
                identity = self._callers.caller(context)
            except NotAllowed as error:
                logger.warning("%s: %s", context.peer(), error)
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))

            def bind(message: core_pb2.Node) -> tuple[Node, ScopeResources]:
                node = node_of(message, identity)
                return node, self.cache.resources_for(node)

            session = Session(dialect, bind, self._settling, label=lambda: self.cache.label)
            client = _Client(session, context, time.time(), identity)
            self._clients.add(client)
            try:
                await self._converse(client, context)
            except asyncio.CancelledError:
                if not client.expelled:
                    raise
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"{client.identity} is not allowed here any more")
            finally:
                self._clients.discard(client)
                await client.close()

        return serve_stream

    async def _converse(self, client: _Client, context: Any) -> None:
        await context.send_initial_metadata(GREETING)
        while True:
            data = await context.read()
            if data is grpc.aio.EOF:
                return
            try:
                client.session.receive(data)
            except NotAllowed as error:
                logger.warning("%s: %s", context.peer(), error)
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
            except BadRequest as error:
                logger.warning("%s sent what no xDS client may send: %s", context.peer(), error)
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except Exception:
                logger.exception("a request of %s cannot be answered", context.peer())
                await context.abort(grpc.StatusCode.INTERNAL, "the control service failed on this request; see its log")
            client.flush()
