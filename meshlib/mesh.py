"""`Mesh`: the one object that users build.  It only composes: everything that decides or waits is in the layers below."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from meshlib import errors
from meshlib.flow.inbound import NO_POLICY
from meshlib.model.call import Overrides
from meshlib.model.inbound import ServerRequest
from meshlib.model.request import Body, Request, Timeouts, authority_of
from meshlib.runtime.circuit_breakers import CircuitBreakers
from meshlib.runtime.client import Control
from meshlib.runtime.drain import Drain
from meshlib.runtime.events import Events
from meshlib.runtime.grpc_client import GrpcClient
from meshlib.runtime.grpc_server import GrpcServing
from meshlib.runtime.identity.source import IdentitySource
from meshlib.runtime.listening import Listening
from meshlib.runtime.metrics import common_samples
from meshlib.runtime.native import HeaderInput, Response, build_request
from meshlib.runtime.process import Process, Processes
from meshlib.runtime.response import AsyncExchange, Exchange
from meshlib.runtime.serving import POLICY_UNKNOWN, Inbound, Serving
from meshlib.runtime.settings import DEFAULT_CONTROL, Settings, from_environment
from meshlib.runtime.surroundings import REAL, Surroundings
from meshlib.telemetry.catalogue import METRICS
from meshlib.telemetry.metrics import Sample, exposition


class Mesh:
    """A process's part in the mesh: finds services, calls them, serves one.

    Opens nothing and starts nothing until it is used, or until `start`, ``with`` or ``async with``.  One Mesh may be shared by
    threads, by event loops and, through fork, by processes: each process starts its own background threads.
    """

    _surroundings: Surroundings = REAL  # a simulation's mesh has others

    def __init__(
        self,
        *,
        control: str | Control = DEFAULT_CONTROL,
        service: str = "",
        namespace: str = "",
        service_account: str = "",
        labels: Mapping[str, str] | None = None,
        locality: str = "",
        port: int | None = None,
        address: str = "",
        service_port: int = 0,
        protocol: str = "http",
        instance: str = "",
        weight: int = 1,
        group: str = "",
        drain_seconds: float = 1.0,
        token_file: str = "",
        ca: str = "",
        ca_file: str = "",
        ca_sha256: str = "",
        identity_dir: str = "",
        insecure_dev: bool = False,
        mesh_port: int = 0,
        identity: IdentitySource | None = None,
    ) -> None:
        """Say who this process is.  Raises errors.ConfigError.

        `control` is the control service's ``host:port`` (several: comma-separated), or a source of snapshots of one's own
        (`meshlib.testing`).  `service` and `port` announce what the process serves once it serves it; without them it only
        calls.  `service_port` is the port that callers name (80 unless given), `group` the WorkloadGroup whose template holds
        for this process, `drain_seconds` the time that callers are given
        to learn that this process is about to go.

        `token_file` holds what proves who this process is: a join token, or a JWT of an issuer that the control service trusts.
        It is shown to `ca` (port 15013 of the control service unless given), whose root is known by `ca_file` (PEM) or by
        `ca_sha256`, and answered with a certificate for the key that is made here.  `identity_dir` keeps both for other
        workers and the next start.  `insecure_dev`: no certificates at all, and a control service on this machine.
        `mesh_port`: where the middleware listens for mTLS itself, for servers that cannot.  `identity`: certificates from a
        source of one's own, instead of all that.
        """
        self.settings = Settings(
            control=control if isinstance(control, str) else DEFAULT_CONTROL,
            service=service,
            namespace=namespace,
            service_account=service_account,
            labels=dict(labels or {}),
            locality=locality,
            port=port,
            address=address,
            service_port=service_port,
            protocol=protocol,
            instance=instance,
            weight=weight,
            group=group,
            drain_seconds=drain_seconds,
            token_file=token_file,
            ca=ca,
            ca_file=ca_file,
            ca_sha256=ca_sha256,
            identity_dir=identity_dir,
            insecure_dev=insecure_dev,
            mesh_port=mesh_port,
        )
        # Nothing comes in before it is known what may, unless there will be no identities (insecure_dev, a mesh in a test).
        identified = identity is not None or (isinstance(control, str) and not insecure_dev)
        self._inbound = Inbound(POLICY_UNKNOWN if identified else NO_POLICY, self._surroundings.monotonic)
        self._listening = Listening(self._inbound)
        source = None if isinstance(control, str) else control
        self._processes = Processes(self.settings, source, self._listening, identity, self._surroundings)
        self._drain = Drain(self._inbound, self._processes, drain_seconds)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Mesh:
        """A Mesh from the ``MESHLIB_*`` variables (listed in docs/quickstart.md); `overrides` win over them.

        Raises errors.ConfigError naming the variable.
        """
        return cls(**{**from_environment(os.environ if environ is None else environ), **overrides})

    # --- life

    def start(self) -> None:
        """Start the background threads of this process.  Idempotent; calls do it by themselves."""
        self._running()

    def close(self) -> None:
        """Deregister, stop the background threads, close idle connections.  Idempotent."""
        self._processes.close()

    def __enter__(self) -> Mesh:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Mesh:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose_loop()
        await asyncio.to_thread(self.close)

    def wait_ready(self, timeout: float = 10.0) -> None:
        """Block until the control service has answered.  Raises errors.NotReady after `timeout` seconds, saying why."""
        link = self._running().link
        if not link.wait_ready(timeout):
            raise errors.NotReady(f"nothing from the control service in {timeout} s: {link.state}")

    async def await_ready(self, timeout: float = 10.0) -> None:
        """`wait_ready` for coroutines."""
        link = self._running().link
        if not await link.await_ready(timeout):
            raise errors.NotReady(f"nothing from the control service in {timeout} s: {link.state}")

    def prefetch(self, *hosts: str) -> None:
        """Ask for ``host`` or ``host:port`` before the first call to it.  Returns at once."""
        link = self._running().link
        for host in hosts:
            name, colon, port = host.rpartition(":")
            has_port = colon and port.isdigit()
            link.request(authority_of(name if has_port else host, int(port) if has_port else None, "http"))

    # --- calling

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: HeaderInput | None = None,
        content: Body | str | None = None,
        timeout: float | Timeouts | None = None,
        overrides: Overrides | None = None,
    ) -> Response:
        """The lean native call.  `timeout` in seconds covers everything, retries and body included.

        Raises errors.CallError, errors.RequestError; errors.OutboundBlocked for a host outside of the mesh, which only the
        transports for httpx and requests can hand on.
        """
        request = build_request(method, url, headers, content, timeout, overrides)
        exchange = self._running().client.exchange(request, whole=True)
        if exchange is None:
            raise _outside(request)
        body = exchange.body
        if body is None:
            body = exchange.read()
        return exchange.whole(body)

    async def arequest(
        self,
        method: str,
        url: str,
        *,
        headers: HeaderInput | None = None,
        content: Body | str | None = None,
        timeout: float | Timeouts | None = None,
        overrides: Overrides | None = None,
    ) -> Response:
        """`request` for coroutines."""
        request = build_request(method, url, headers, content, timeout, overrides)
        exchange = await self._running().client.aexchange(request, whole=True)
        if exchange is None:
            raise _outside(request)
        body = exchange.body
        if body is None:
            body = await exchange.read()
        return exchange.whole(body)

    def exchange(self, request: Request) -> Exchange | None:
        """A call with a streamed response, for integrations.

        None: the host is outside of the mesh and may be called: use your own transport.  What a rate limit refuses has a
        response, too (429), though no call was made: users of HTTP clients look for statuses.
        """
        try:
            return self._running().client.exchange(request)
        except errors.RateLimited as error:
            return Exchange.limited(error)

    async def aexchange(self, request: Request) -> AsyncExchange | None:
        """`exchange` for coroutines."""
        try:
            return await self._running().client.aexchange(request)
        except errors.RateLimited as error:
            return AsyncExchange.limited(error)

    async def aclose_loop(self) -> None:
        """Let go of the idle connections that the running event loop keeps.  The mesh itself goes on."""
        process = self._processes.current
        if process is not None:
            process.client.close_loop(asyncio.get_running_loop())
            await process.grpc_client.close_loop()
            await asyncio.sleep(0)  # transports close in the loop's next turn

    @property
    def grpc_client(self) -> GrpcClient:
        """Calls in gRPC, for integrations."""
        return self._running().grpc_client

    @property
    def circuit_breakers(self) -> CircuitBreakers:
        """The circuit breakers of destinations that a ResiliencePolicy gives one, and listeners for what becomes of them."""
        return self._running().circuit_breakers

    # --- seeing

    @property
    def events(self) -> Events:
        """What policies do by themselves: endpoints ejected, breakers opened, limits reached.  Does not start the mesh."""
        return self._processes.events

    def metrics(self) -> tuple[Sample, ...]:
        """What is counted and measured now (docs/observability.md lists it).  Does not start the mesh."""
        process = self._processes.current
        common = common_samples(self.events, self._inbound)
        return (*(process.samples() if process is not None else ()), *common)

    def prometheus(self) -> str:
        """`metrics` as Prometheus reads them (text exposition format 0.0.4)."""
        return exposition(self.metrics(), METRICS)

    # --- serving

    def serve(self, request: ServerRequest) -> Serving:
        """Take a request into the server's flow, for integrations."""
        return self._inbound.serve(request)

    def serve_started(self, port: int | None = None) -> None:
        """The server is about to listen on `port` (default: the Mesh's own): announce it as soon as it accepts connections."""
        self._running().announce(port)

    @property
    def listening(self) -> Listening:
        """Which new connections may come in, and by which way; for integrations of servers."""
        return self._listening

    @property
    def denied(self) -> Mapping[str, int]:
        """How many requests were refused by policy, by reason (there are at most 256); the log ``meshlib.access`` has each."""
        return self._inbound.denied.counts

    @property
    def grpc_serving(self) -> GrpcServing:
        """Certificates and peers of servers that are gRPC's own, for integrations."""
        return self._running().grpc_serving

    @property
    def draining(self) -> bool:
        """True once this process is on its way out; responses say ``connection: close`` from then on."""
        return self._inbound.draining

    def drain(self, timeout: float = 30.0) -> None:
        """Deregister, give callers `drain_seconds` to learn of it, then wait for the requests in flight.  Idempotent."""
        self._drain.drain(timeout)

    async def adrain(self, timeout: float = 30.0) -> None:
        """`drain` without blocking the event loop."""
        await asyncio.to_thread(self._drain.drain, timeout)

    def install_drain_on_sigterm(self) -> bool:
        """On SIGTERM: drain first, then hand the signal to the handler that was there.

        Only the main thread may install handlers; elsewhere nothing happens and False is returned.
        """
        return self._drain.install_on_sigterm()

    def _running(self) -> Process:
        return self._processes.current or self._processes.start()

    def __repr__(self) -> str:
        who = f"{self.settings.service or 'client'}.{self.settings.namespace or 'default'}"
        process = self._processes.current
        return f"<Mesh {who} {process.link.state if process is not None else 'not started'}>"


_default: Mesh | None = None


def default_mesh() -> Mesh:
    """The process-wide Mesh, built from the environment on first use.

    For what cannot be handed an argument (a server's configuration hooks); everything else builds its own and passes it on.
    """
    global _default  # noqa: PLW0603  # the one process-wide object there is
    if _default is None:
        _default = Mesh.from_env()
    return _default


def _outside(request: Request) -> errors.OutboundBlocked:
    return errors.OutboundBlocked(
        "the host is outside of the mesh; native calls go only to the mesh: use httpx or requests with the mesh's transport",
        authority=request.authority,
    )
