"""`MeshLab`: what a test talks to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import replace
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from meshlib.errors import MeshError
from meshlib.lowlevel import CallRecord, Request
from meshlib.testing import (
    Arrived,
    Attempted,
    Called,
    Caller,
    CompiledControl,
    Event,
    FakeClock,
    Fault,
    Injected,
    Instance,
    MemoryNetwork,
    SimulatedMesh,
    VirtualTime,
    noted,
)
from meshlib_control.catalog.model import Instance as Registered
from meshlib_control.catalog.model import Port
from meshlib_control.compile import Node, World, generate, scope_of
from meshlib_control.compile.trust import Trust
from meshlib_control.config import Finding, Key
from meshlib_control.lab.applications import Application, asgi
from meshlib_control.lab.configuration import Configuration, Source
from meshlib_control.lab.services import HEALTH, Catalog, DeclaredService, Running, Workload
from meshlib_integrations.asgi import MeshMiddleware

if TYPE_CHECKING:
    import httpx
    import requests

T = TypeVar("T")


class MeshLab:
    """A mesh in this process.  Use it in a ``with``, or through the fixture ``mesh_lab``.

    Services are named as their callers name them ("ratings"), with `namespace` where it is not the lab's own.  Two labs, or two
    runs, with the same `seed` make the same choices.
    """

    def __init__(
        self, *, seed: int = 0, namespace: str = "default", domain: str = "cluster.local", trust_domain: str = "cluster.local"
    ) -> None:
        self.namespace = namespace
        self.calls: list[Called] = []
        """Every call that was made, in the order in which they ended or began to be answered."""
        self.events: list[Event] = []
        """What policies did by themselves, of callers and of servers: hosts ejected, breakers opened, limits reached."""
        self._seed = seed
        self._domain = domain
        self._trust_domain = trust_domain
        self._time = VirtualTime()
        self._network = MemoryNetwork(self._time)
        self._catalog = Catalog(domain)
        self._configuration = Configuration()
        self._outside: dict[str, Instance] = {}
        self._world: World | None = None
        self._callers: dict[tuple[str, str], SimulatedMesh] = {}
        self._meshes: list[SimulatedMesh] = []
        self._closing: list[Callable[[], None]] = []

    # --- what there is

    def service(
        self,
        name: str,
        app: Application | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        instances: int = 1,
        namespace: str = "",
        port: int = 80,
        protocol: str = "http",
        locality: str = "",
        service_account: str = "",
        weight: int = 1,
        mtls: bool = True,
    ) -> DeclaredService:
        """Declare instances of a service; more with every call, of another version or elsewhere.

        `app`: ASGI, WSGI, or a function of a `Received` that returns a status, a body, both, or a response; without one it says
        who it is.  Callers name `port`, on which it listens.  Its identity is that of `service_account` (default: its name);
        `mtls` False: it takes plaintext only, as a process outside of the mesh does.
        """
        namespace = namespace or self.namespace
        workload = Workload(name, namespace, service_account or name, {"app": name, **(labels or {})}, locality)
        declared = self._catalog.declare(name, namespace, Port(port, protocol, target=port))
        for _ in range(instances):
            declared.members.append(self._start(declared, workload, app, weight=weight, mtls=mtls))
        self._changed()
        return declared

    def outside(self, host: str, app: Application | None = None, *, port: int = 80) -> None:
        """Something outside of the mesh, at a host name or an IP address: what a ServiceEntry, or its endpoints, lead to.

        It has no identity, no policies, and no place in the catalog; certificates of the web's kind are taken as good.
        """
        instance = Instance(host, f"{host}:{port}", noted(asgi(app, self._time, host, {"host": host})))
        self._network.instances[instance.key] = self._outside[host] = instance

    def apply(self, *sources: Source, namespace: str = "") -> None:
        """Add or replace configuration: YAML as text, a `Path` of a file or folder, or a mapping; all of it or nothing.

        Raises InvalidConfiguration with everything that is wrong.  `findings` says what else is worth knowing.
        """
        self._configuration.apply(sources, namespace=namespace or self.namespace)
        self._changed()

    def delete(self, kind: str, name: str, *, namespace: str = "") -> None:
        """Take a resource away again.  Raises KeyError naming those that there are."""
        self._configuration.delete(Key(kind, namespace or self.namespace, name))
        self._changed()

    @property
    def findings(self) -> list[Finding]:
        """What ``meshctl analyze`` would say about the configuration together with the services that are declared."""
        return self._configuration.findings(self._catalog.snapshot(), self._domain)

    # --- calling

    def mesh(self, caller: str = "client", *, namespace: str = "", instance: int | str = 0) -> SimulatedMesh:
        """The `Mesh` of a process: that of a declared service's instance, or of one that only calls.

        It goes where yours goes: into `AsyncMeshTransport`, `MeshAdapter`; or is called itself.
        """
        namespace = namespace or self.namespace
        declared = self._catalog.find(caller, namespace)
        if declared is not None and declared.members:
            return declared.chosen(instance)[0].mesh
        known = self._callers.get((caller, namespace))
        if known is None:
            workload = Workload(caller, namespace, caller, {"app": caller})
            known = self._callers[caller, namespace] = self._process(workload, caller, self._catalog.next_address())
        return known

    def client(self, caller: str = "client", *, namespace: str = "", **options: Any) -> httpx.Client:
        """An ``httpx.Client`` of this caller; `options` are its own.  The lab closes it."""
        import httpx

        from meshlib_control.lab.outside import NoOutside
        from meshlib_integrations.httpx import MeshTransport

        transport = MeshTransport(self.mesh(caller, namespace=namespace), outside=NoOutside())
        client = httpx.Client(transport=transport, **options)
        self._closing.append(client.close)
        return client

    def async_client(self, caller: str = "client", *, namespace: str = "", **options: Any) -> httpx.AsyncClient:
        """The same for coroutines: of a test on an event loop of its own, of `run`, or of an application of the lab."""
        import httpx

        from meshlib_control.lab.outside import NoOutside
        from meshlib_integrations.httpx import AsyncMeshTransport

        transport = AsyncMeshTransport(self.mesh(caller, namespace=namespace), outside=NoOutside())
        return httpx.AsyncClient(transport=transport, **options)

    def session(self, caller: str = "client", *, namespace: str = "") -> requests.Session:
        """A ``requests.Session`` of this caller.  The lab closes it."""
        import requests

        from meshlib_integrations.requests import MeshAdapter

        session = requests.Session()
        session.mount("http://", MeshAdapter(self.mesh(caller, namespace=namespace)))
        self._closing.append(session.close)
        return session

    # --- what goes wrong

    def inject(
        self, service: str, fault: Fault, *, instance: int | str | None = None, times: int | None = None, namespace: str = ""
    ) -> Injected:
        """Make a fault happen at one instance or all, `times` times in all or until it is removed (a ``with`` does)."""
        injected = Injected(fault, times)
        for each in self._instances(service, instance, namespace):
            each.inject(injected)
        return injected

    def down(self, service: str, instance: int | str | None = None, *, namespace: str = "") -> None:
        """The process is gone, and nobody knows yet: connections are refused."""
        self._set_up(service, instance, namespace, up=False)

    def up(self, service: str, instance: int | str | None = None, *, namespace: str = "") -> None:
        """It is back."""
        self._set_up(service, instance, namespace, up=True)

    def set_health(self, service: str, health: str, instance: int | str | None = None, *, namespace: str = "") -> None:
        """What the catalog says of an instance: "healthy", "unhealthy" or "draining"; every caller knows at once."""
        if health not in HEALTH:
            raise ValueError(f"health {health!r}: expected one of {', '.join(HEALTH)}")
        for member in self._declared(service, namespace).chosen(instance):
            member.registered = replace(member.registered, health=HEALTH[health])
        self._changed()

    # --- time

    @property
    def clock(self) -> FakeClock:
        """Seconds of the lab; read ``clock.now``.  They pass when everybody waits, or by `sleep`."""
        return self._time.clock

    def sleep(self, seconds: float) -> None:
        """Let time pass, and everything happen that is due meanwhile.  Blocking applications sleep by this, too."""
        self._time.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        """`sleep` for coroutines on an event loop of their own; those of the lab may use ``asyncio.sleep``."""
        await self._time.asleep(seconds)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the lab's own event loop, where all of asyncio's time is the lab's."""
        return self._time.run(work)

    # --- what happened

    @property
    def attempted(self) -> list[Attempted]:
        """Every try of every call that was given to the network, in order; those of mirrors' copies, too."""
        self._time.settle()
        return self._network.attempted

    def attempts(self, service: str, *, namespace: str = "") -> int:
        """How many tries went to a service, those that reached nobody included."""
        host = service if service in self._outside else self._declared(service, namespace).host
        return sum(1 for attempted in self.attempted if attempted.service == host)

    def requests(self, service: str, instance: int | str | None = None, *, namespace: str = "") -> list[Arrived]:
        """What a service's applications got, in order."""
        return [arrived for arrived in self._arrived(service, instance, namespace) if arrived.served]

    def refused(self, service: str, instance: int | str | None = None, *, namespace: str = "") -> list[Arrived]:
        """What came to a service and not to its applications: its policies have refused it, or answered it themselves."""
        return [arrived for arrived in self._arrived(service, instance, namespace) if not arrived.served]

    def failures(self, service: str, *, namespace: str = "") -> list[BaseException]:
        """What a service's applications have raised; their callers got 500."""
        return [error for each in self._instances(service, None, namespace) for error in each.failures]

    def ejected(self, service: str, *, caller: str | None = None, namespace: str = "") -> set[str]:
        """The instances that outlier detection keeps `caller` (None: anybody) away from."""
        host = self._declared(service, namespace).host
        meshes = self._meshes if caller is None else [self.mesh(caller)]
        return {
            self._network.instances[endpoint.key].name
            for mesh in meshes
            for upstream in mesh.upstreams.values()
            if upstream.cluster.host == host
            for endpoint in upstream.hosts.values()
            if endpoint.ejected and endpoint.key in self._network.instances
        }

    # --- life

    def close(self) -> None:
        """End applications, their tasks and threads.  Idempotent."""
        closing, self._closing = self._closing, []
        for close in closing:
            close()
        if not self._time.loop.is_closed():
            for instance in self._network.instances.values():
                self._time.run(instance.stop())
            for mesh in self._meshes:
                mesh.close()
            self._time.close()

    def __enter__(self) -> MeshLab:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # --- parts

    def _start(
        self, declared: DeclaredService, workload: Workload, app: Application | None, *, weight: int, mtls: bool
    ) -> Running:
        name = f"{declared.name}-{len(declared.members)}"
        address = self._catalog.next_address()
        port = declared.port.target
        mesh = self._process(workload, name, address, port=port)
        about = {"service": workload.service, "instance": name, "labels": dict(workload.labels)}
        inner = noted(asgi(app, self._time, name, about))
        peer = workload.peer(self._trust_domain) if mtls else None
        instance = Instance(name, f"{address}:{port}", MeshMiddleware(inner, mesh), inner=inner, peer=peer)
        self._network.instances[instance.key] = instance
        account = workload.service_account if mtls else ""
        registered = Registered(
            name, address, port, workload.labels, workload.locality, weight, service_account=account, mtls=mtls
        )
        return Running(workload, registered, instance, mesh)

    def _process(self, workload: Workload, name: str, address: str, *, port: int | None = None) -> SimulatedMesh:
        node = Node(
            "meshlib",
            name,
            workload.service,
            workload.namespace,
            workload.service_account,
            workload.labels,
            workload.locality,
        )

        def resources(type_url: str, names: Collection[str]) -> dict[str, bytes]:
            world = self._compiled()
            found = generate(world, scope_of(world, node), type_url, names)
            return {name: message.SerializeToString(deterministic=True) for name, message in found.items()}

        def record(request: Request, outcome: CallRecord | MeshError) -> None:
            of = Called.failed if isinstance(outcome, MeshError) else Called.of
            self.calls.append(of(name, request, outcome))  # type: ignore[arg-type]  # each of them takes what it is chosen for

        mesh = SimulatedMesh(
            self._network,
            Caller(name, address, workload.peer(self._trust_domain)),
            CompiledControl(resources),
            rng=Random(f"{self._seed} {workload.namespace} {name}"),
            record=record,
            emit=self.events.append,
            service=workload.service,
            namespace=workload.namespace,
            service_account=workload.service_account,
            labels=workload.labels,
            locality=workload.locality,
            port=port,
            drain_seconds=0.0,
        )
        self._meshes.append(mesh)
        return mesh

    def _compiled(self) -> World:
        if self._world is None:
            self._world = World.of(
                self._configuration.as_set(), self._catalog.snapshot(), domain=self._domain, trust=Trust(self._trust_domain)
            )
        return self._world

    def _changed(self) -> None:
        """Everybody is told at once, as by a control service that is never late."""
        self._world = None
        for mesh in self._meshes:
            mesh.control.refresh()

    def _declared(self, service: str, namespace: str) -> DeclaredService:
        found = self._catalog.find(service, namespace or self.namespace)
        if found is None:
            known = ", ".join(f"{each.name}.{each.namespace}" for each in self._catalog.services.values())
            raise LookupError(f"{service}.{namespace or self.namespace} was not declared; there are {known or 'none'}")
        return found

    def _set_up(self, service: str, instance: int | str | None, namespace: str, *, up: bool) -> None:
        for each in self._instances(service, instance, namespace):
            each.up = up

    def _arrived(self, service: str, instance: int | str | None, namespace: str) -> list[Arrived]:
        self._time.settle()
        found = (arrived for each in self._instances(service, instance, namespace) for arrived in each.arrived)
        return sorted(found, key=lambda arrived: arrived.at)

    def _instances(self, service: str, instance: int | str | None, namespace: str) -> list[Instance]:
        if service in self._outside:
            return [self._outside[service]]
        return [member.instance for member in self._declared(service, namespace).chosen(instance)]
