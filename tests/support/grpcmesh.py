"""Meshes without a control service for tests of gRPC: identities of a trust domain, services by their endpoints, policies."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent import futures
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio

from meshlib import Mesh
from meshlib.model.cluster import UpstreamTls
from meshlib.model.identity import TrustBundles
from meshlib.model.listener import HttpFilter, InboundListener, MtlsMode
from meshlib.model.snapshot import Target
from meshlib.runtime.identity.static import StaticIdentity
from meshlib.testing import StaticControl, service, snapshot
from meshlib_integrations import grpc_aio
from meshlib_integrations.grpc import server_credentials, server_interceptors
from tests.support.certificates import Minted, TrustDomain
from tests.support.tls import material

DOMAIN = TrustDomain("td1")
FEDERATED = TrustDomain("td2")

PORT = 9080
"""What servers in tests believe to listen on; the real one is whatever was free."""

HOST = "greeter:9080"
UNARY, SERVER_STREAM, CLIENT_STREAM, BOTH = (f"/test.Greeter/{name}" for name in ("Unary", "Down", "Up", "Both"))


class Member:
    """A process of the mesh, in this one: `mesh`, and what a control service would tell it."""

    def __init__(
        self,
        account: str,
        *targets: Target,
        trust: TrustBundles | None = None,
        leaf: Minted | None = None,
        domain: TrustDomain = DOMAIN,
        filters: Iterable[HttpFilter] = (),
        mode: MtlsMode = MtlsMode.STRICT,
        **settings: Any,
    ) -> None:
        self.trust = trust or domain.bundle
        self.identity = StaticIdentity(material(leaf or domain.leaf(account), self.trust))
        self.control = StaticControl(replace(snapshot(*targets), trust=self.trust, inbound=_inbound(mode, filters)))
        self.mesh = Mesh(control=self.control, identity=self.identity, **settings)

    def renew(self, minted: Minted) -> None:
        """Another certificate."""
        self.identity.set(material(minted, self.trust))

    def believe(self, trust: TrustBundles) -> None:
        """Other roots."""
        self.trust = trust
        self.control.publish(replace(self.control.current, trust=trust))

    def allow(self, mode: MtlsMode, *filters: HttpFilter) -> None:
        """Other policies from now on."""
        self.control.publish(replace(self.control.current, inbound=_inbound(mode, filters)))

    def call(self, *targets: Target) -> None:
        """Other services from now on."""
        self.control.publish(replace(self.control.current, targets={target.authority: target for target in targets}))

    def __enter__(self) -> Member:
        self.mesh.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.mesh.close()


def _inbound(mode: MtlsMode, filters: Iterable[HttpFilter]) -> Mapping[int, InboundListener]:
    return {PORT: InboundListener(f"inbound/{PORT}", PORT, mtls=mode, filters=tuple(filters))}


def secured(target: Target, *identities: str) -> Target:
    """The same service over mTLS, by any of these identities."""
    tls = UpstreamTls(identities=frozenset(identities))
    clusters = {}
    for name, config in target.clusters.items():
        assert config.cluster is not None
        endpoints = tuple(replace(endpoint, mtls=True) for endpoint in config.endpoints)
        clusters[name] = replace(config, cluster=replace(config.cluster, tls=tls, auto_mtls=True), endpoints=endpoints)
    return replace(target, clusters=clusters)


def greeter(*ports: int, identities: Iterable[str] = (DOMAIN.id("greeter"),), **more: Any) -> Target:
    """The service `HOST` on these ports of this machine, over mTLS."""
    return secured(service(HOST, [f"127.0.0.1:{port}" for port in ports], **more), *identities)


def handlers(**behaviours: Callable[..., Any]) -> grpc.GenericRpcHandler:
    """A service ``test.Greeter`` of raw bytes: `Unary`, `Down`, `Up`, `Both` are of the four kinds."""
    make = {
        "Unary": grpc.unary_unary_rpc_method_handler,
        "Down": grpc.unary_stream_rpc_method_handler,
        "Up": grpc.stream_unary_rpc_method_handler,
        "Both": grpc.stream_stream_rpc_method_handler,
    }
    return grpc.method_handlers_generic_handler(
        "test.Greeter", {name: make[name](behaviour) for name, behaviour in behaviours.items()}
    )


@contextmanager
def serving(mesh: Mesh, handler: grpc.GenericRpcHandler, *, plain: bool = False, port: int = 0) -> Iterator[int]:
    """A server of the mesh with threads; its port."""
    server = grpc.server(futures.ThreadPoolExecutor(8), interceptors=server_interceptors(mesh, PORT))
    server.add_generic_rpc_handlers((handler,))
    address = f"127.0.0.1:{port}"
    bound: int = server.add_insecure_port(address) if plain else server.add_secure_port(address, server_credentials(mesh))
    server.start()
    try:
        yield bound
    finally:
        server.stop(0).wait(10)


@contextmanager
def odd_serving(
    minted: Minted, handler: grpc.GenericRpcHandler, roots: bytes = DOMAIN.root.pem, port: int = 0
) -> Iterator[int]:
    """A server with any certificate, that looks at nothing else."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handler,))
    credentials = grpc.ssl_server_credentials([(minted.key_pem, minted.chain_pem or minted.pem)], roots, True)
    bound: int = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    server.start()
    try:
        yield bound
    finally:
        server.stop(0).wait(10)


@contextmanager
def odd_channel(port: int, minted: Minted | None, name: str = "greeter.default.td1") -> Iterator[grpc.Channel]:
    """A client of gRPC's own with any certificate."""
    identity = (minted.key_pem, minted.chain_pem or minted.pem) if minted is not None else (None, None)
    credentials = grpc.ssl_channel_credentials(DOMAIN.root.pem, *identity)
    options = [("grpc.ssl_target_name_override", name), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        yield channel


@asynccontextmanager
async def aserving(mesh: Mesh, handler: grpc.GenericRpcHandler, *, plain: bool = False) -> AsyncIterator[int]:
    """A server of the mesh for asyncio; its port."""
    server = grpc.aio.server(interceptors=grpc_aio.server_interceptors(mesh, PORT))
    server.add_generic_rpc_handlers((handler,))
    address = "127.0.0.1:0"
    port: int = server.add_insecure_port(address) if plain else server.add_secure_port(address, server_credentials(mesh))
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


@contextmanager
def threaded_aserving(mesh: Mesh, handler: grpc.GenericRpcHandler, *, plain: bool = False) -> Iterator[int]:
    """`aserving` for tests that block: in a thread with a loop of its own."""
    ready: Future[int] = Future()
    stopping: list[Callable[[], object]] = []

    async def run() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        async with aserving(mesh, handler, plain=plain) as port:
            stopping.append(lambda: loop.call_soon_threadsafe(stop.set))
            ready.set_result(port)
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        yield ready.result(60)
    finally:
        stopping[0]()
        thread.join()
