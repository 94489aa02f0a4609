"""The control service: its parts put together, started in order and stopped in the opposite one."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from importlib.metadata import version

import uvicorn

from meshlib import SpiffeId
from meshlib.xds.types import CLUSTER
from meshlib_control.admin import views
from meshlib_control.admin.api import Vitals, build_app
from meshlib_control.admin.editing import Editor, Surroundings, rfc3339
from meshlib_control.admin.reported import callers_of_hosts
from meshlib_control.admin.tokens import TokenGuard, read_or_make_token
from meshlib_control.admin.viewing import Scene, Viewer
from meshlib_control.admin.views import ControlView
from meshlib_control.catalog.catalog import Catalog
from meshlib_control.catalog.consul import ConsulCatalog
from meshlib_control.catalog.consul_mirror import ConsulMirror
from meshlib_control.catalog.leases import Terms
from meshlib_control.catalog.registrations import TICK, Registrations
from meshlib_control.compile import World
from meshlib_control.compile.trust import Trust
from meshlib_control.compile.workload_groups import Template
from meshlib_control.consul.address import parse_consul_url
from meshlib_control.consul.client import ConsulClient
from meshlib_control.demand import DemandingCompiler
from meshlib_control.errors import StoreError
from meshlib_control.guarded_fetch import AllowedTargets, GuardedFetch
from meshlib_control.health import Health
from meshlib_control.identities import Identities
from meshlib_control.jwks import JwksFetcher
from meshlib_control.live import LiveWorld
from meshlib_control.quota.service import QuotaService
from meshlib_control.reports import Reports
from meshlib_control.serve.ads import DiscoveryService
from meshlib_control.serve.push import Debounce
from meshlib_control.serve.registry import RegistryService
from meshlib_control.serve.server import GrpcServer
from meshlib_control.settings import Address, Settings, admin_token_file, without_secrets
from meshlib_control.static import StaticConfig
from meshlib_control.store.model import Store
from meshlib_control.store.open import open_store
from meshlib_control.store.revisions import Revisions

log = logging.getLogger(__name__)

PRUNE_INTERVAL = 3600.0  # seconds
RENEWALS = 3  # in the life of a lease
JWKS_PATIENCE = 5.0  # seconds at the start for key sets that are not remembered: until they are there, tokens fail
REGISTRY_GRACE = 0.5  # seconds for calls to the registry; streams of configuration never end by themselves


class ControlService:
    """One replica.  `run` is `start`, until a signal, and `stop`; a test calls the two itself."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.xds_address = ""  # as clients connect to it; empty before the start
        self.ca_address = ""  # empty in a service without identities too
        self.admin_address = ""
        self._identities: Identities | None = None
        self._reports = Reports()
        self._discovery: DiscoveryService[World] | None = None
        self._exits = AsyncExitStack()

    async def run(self, ready: Callable[[ControlService], None] = lambda service: None) -> None:
        """Serve until SIGTERM or SIGINT.  `ready` is called once everything listens."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        try:
            await self.start()
            collect_rarely()
            ready(self)
            await stopping.wait()
            log.info("stopping")
        finally:
            await self.stop()

    async def start(self) -> None:
        """Open the store, read everything, then listen.  Raises `ControlServiceError` and `OSError`, with nothing left open."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close what was opened.  Streams end, clients keep what they have."""
        exits, self._exits = self._exits, AsyncExitStack()
        await exits.aclose()

    async def _start(self) -> None:
        settings = self.settings
        store = open_store(settings.store)
        self._exits.push_async_callback(store.close)
        files = StaticConfig(settings.config, interval=settings.poll_interval)
        files.read()
        terms = Terms(ttl=settings.lease_ttl, renew_interval=settings.lease_ttl / RENEWALS)
        # Leases look at the clock well within a renewal: a longer gap counts as this process having stood still.
        registrations = Registrations(store, terms=terms, tick=min(TICK, terms.renew_interval / 3))
        consul = await self._consul()
        found = ConsulCatalog(consul, storage=store, domain=settings.mesh_domain) if consul else None
        catalog = Catalog(registrations, found, domain=settings.mesh_domain)
        revisions = Revisions(store)
        await catalog.start()
        self._exits.push_async_callback(catalog.close)
        if consul is not None:
            mirror = ConsulMirror(consul, registrations)
            await mirror.start()
            self._exits.push_async_callback(mirror.close)
        fetch = GuardedFetch(AllowedTargets(settings.fetch_allow))
        identities = await self._open_identities(store, fetch)
        trust = identities.trust if identities else Trust(secure=False)
        live = LiveWorld(revisions, catalog, files, domain=settings.mesh_domain, trust=trust)
        await live.load(catalog.snapshot)
        admin = _listening(settings.admin)
        self._exits.callback(admin.close)
        self.admin_address = str(Address(settings.admin.host, admin.getsockname()[1]))
        jwks = await self._jwks(store, fetch, live)
        health = await self._serve(store, live, catalog, registrations, jwks)
        self._exits.push_async_callback(_cancelled, asyncio.create_task(_pruned(revisions), name="pruning"))
        await self._serve_admin(admin, revisions, live, health)

    async def _jwks(self, store: Store, fetch: GuardedFetch, live: LiveWorld) -> JwksFetcher:
        """Key sets of token issuers, as the configuration names them.  Waits a little for those that are wanted at once."""
        fetcher = JwksFetcher(fetch, store)
        fetcher.wanted(live.world.routing.request_authentications.key_uris)
        fetcher.changes.subscribe(lambda: live.take_jwks(fetcher.documents))
        self._exits.push_async_callback(_cancelled, asyncio.create_task(fetcher.run(), name="key sets"))
        await fetcher.tried(JWKS_PATIENCE)
        return fetcher

    async def _open_identities(self, store: Store, fetch: GuardedFetch) -> Identities | None:
        security = self.settings.security
        if security is None:
            return None
        self._identities = identities = Identities(store, security, self.settings.listen, fetch=fetch)
        self._exits.push_async_callback(identities.close)
        await identities.start()
        self.ca_address = identities.ca_address
        return identities

    async def _consul(self) -> ConsulClient | None:
        url = self.settings.catalog_url
        if not url:
            return None
        client = ConsulClient(parse_consul_url(url))
        self._exits.push_async_callback(client.close)
        return client

    async def _serve(
        self, store: Store, live: LiveWorld, catalog: Catalog, registrations: Registrations, jwks: JwksFetcher
    ) -> Health:
        """The discovery service, fed by `live`, and the registry, on one port."""
        settings = self.settings
        compiler = DemandingCompiler(catalog.want)
        compiler.configured(live.world)
        empty = not live.world.services.hosts
        debounce = Debounce(settings.debounce_quiet, settings.debounce_max)
        identities = self._identities
        callers = identities.callers if identities else None
        discovery = DiscoveryService(
            compiler, live.world, label=str(live.revision), debounce=debounce, empty=empty, callers=callers
        )
        await self._exits.enter_async_context(discovery)

        def publish(world: World) -> None:
            compiler.configured(world)
            jwks.wanted(world.routing.request_authentications.key_uris)
            discovery.publish(world, label=str(live.revision), empty=not world.services.hosts)

        following = asyncio.create_task(live.run(publish), name="live world")
        self._exits.push_async_callback(_cancelled, following)

        def may_serve(identity: SpiffeId, service: str) -> bool:
            return live.world.settings.may_register(identity.namespace, identity.service_account, service)

        def group(namespace: str, name: str) -> Template | None:
            return live.world.workload_groups.find(namespace, name)

        quotas = await self._exits.enter_async_context(QuotaService(store, lambda: live.world, callers))
        registry = RegistryService(registrations, callers, may_serve, group, reports=self._reports)
        self._discovery = discovery
        handlers = [discovery.handler(), registry.handler(), quotas.handler()]
        credentials = None
        if identities is not None:
            handlers.append(identities.service().handler())
            credentials = identities.credentials(client_certificates=True)

            def authority_changed() -> None:
                live.take_trust(identities.trust)
                discovery.admit_again()

            identities.authority.changes.subscribe(authority_changed)
        server = GrpcServer(handlers, credentials)
        port = await server.start(str(settings.listen))
        self._exits.push_async_callback(server.stop, REGISTRY_GRACE)
        self.xds_address = str(Address(settings.listen.host, port))
        return Health(
            self._described(),
            discovery.status,
            live,
            following,
            lambda: [*self._problems(jwks), *quotas.problems],
            lambda: [views.SharedLimitView(*limit) for limit in quotas.views()],
        )

    def _problems(self, jwks: JwksFetcher) -> list[str]:
        keys = [f"keys of token issuers: {uri}: {problem}" for uri, problem in jwks.problems.items()]
        return [*(self._identities.problems if self._identities else ()), *keys]

    def _described(self) -> ControlView:
        return ControlView(
            version=version("meshlib-proxyless"),
            started=rfc3339(time.time()),
            xds=self.xds_address,
            admin=self.admin_address,
            store=without_secrets(self.settings.store),
            revision=0,
            mesh_domain=self.settings.mesh_domain,
            insecure_dev=self.settings.security is None,
            ca=self.ca_address,
            trust_domain=self.settings.security.trust_domain if self.settings.security else "",
        )

    def _scene(self, live: LiveWorld) -> Scene:
        """What the API shows."""
        subscribed = self._discovery.subscribed(CLUSTER, "meshlib") if self._discovery is not None else {}
        return Scene(
            live.world,
            live.snapshot.suspicious,
            self._reports.current,
            callers_of_hosts(subscribed),
            is_replica=self.settings.store.startswith("consul:"),
        )

    async def _serve_admin(self, listener: socket.socket, revisions: Revisions, live: LiveWorld, health: Health) -> None:
        def surroundings() -> Surroundings:
            return Surroundings(live.file_resources, live.snapshot, self.settings.mesh_domain)

        editor = Editor(revisions, surroundings, time.time)
        viewer = Viewer(lambda: self._scene(live))
        vitals = Vitals(status=health.status, metrics=health.metrics, not_ready=health.not_ready)
        app = build_app(editor, viewer, vitals, more=self._identities.routes() if self._identities else ())
        if self.settings.security is not None:
            file = admin_token_file(self.settings.security.data)
            app = TokenGuard(app, read_or_make_token(file), file=str(file))
        server = _AdminServer(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                ws="none",
                timeout_graceful_shutdown=max(1, round(self.settings.grace)),
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="admin API")
        self._exits.push_async_callback(server.finish, serving)
        await server.listening.wait()


def collect_rarely() -> None:
    """Settings of the garbage collector for this process, once everything is read.

    Nearly all that lives here lives long, and a full collection walks all of it in the middle of a push: with 1,000 clients,
    collecting as rarely as this takes a third off the first sync and a fifth off a change.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


class _AdminServer(uvicorn.Server):
    """uvicorn without its signal handlers: the service as a whole is what signals end."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def finish(self, serving: asyncio.Task[None]) -> None:
        self.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)


def _listening(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=128)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {address} (--admin): {error.strerror}") from error


async def _pruned(revisions: Revisions) -> None:
    """Delete, now and then, what no kept revision needs."""
    while True:
        # Replicas that were started together do not have to do it together.
        await asyncio.sleep(PRUNE_INTERVAL * (0.5 + random.random()))
        try:
            await revisions.prune()
        except StoreError as error:
            log.warning("pruning: %s; trying again later", error)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
