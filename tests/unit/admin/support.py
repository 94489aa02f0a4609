"""The admin API over a store in memory and a world of the test's making, asked in process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from meshlib_control.admin import views
from meshlib_control.admin.api import Vitals, build_app
from meshlib_control.admin.editing import Editor, Surroundings
from meshlib_control.admin.metrics import Family, Sample
from meshlib_control.admin.viewing import Scene, Viewer
from meshlib_control.catalog.model import CatalogSnapshot
from meshlib_control.compile import World
from meshlib_control.config import ConfigResource, ConfigSet, load, load_document
from meshlib_control.store.memory import MemoryStore
from meshlib_control.store.model import Store
from meshlib_control.store.revisions import Revisions

NOW = 1_763_856_000.0


def virtual_service(name: str = "reviews", *, host: str = "reviews", weight: int = 100, namespace: str = "") -> str:
    """A route to two subsets of its host."""
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}{f", namespace: {namespace}" if namespace else ""}}}
spec:
  hosts: [{host}]
  http:
  - route:
    - {{destination: {{host: {host}, subset: v1}}, weight: {weight}}}
    - {{destination: {{host: {host}, subset: v2}}, weight: {100 - weight}}}
"""


SUBSETS = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
"""
SERVICE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: reviews}
spec:
  hosts: [reviews.default.svc.cluster.local]
  resolution: STATIC
  location: MESH_INTERNAL
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints:
  - {address: 10.0.0.1, ports: {http: 9080}, labels: {version: v1}}
  - {address: 10.0.0.2, ports: {http: 9080}, labels: {version: v2}}
"""
MESH = f"{SERVICE}---{SUBSETS}---{virtual_service(weight=90)}"


def files(*texts: str, namespace: str = "default", message: str = "") -> views.Files:
    named = [views.File(name=f"{index}.yaml", text=text) for index, text in enumerate(texts)]
    return views.Files(files=named, namespace=namespace, message=message, author="ada")


def from_file(text: str, name: str = "static.yaml") -> tuple[ConfigResource, ...]:
    resources, findings = load([(name, text)])
    assert not findings
    return tuple(resources)


@dataclass
class Desk:
    """An editor over `store`, with what is around it as the test sets it."""

    store: Store = field(default_factory=MemoryStore)
    static: tuple[ConfigResource, ...] = ()
    catalog: CatalogSnapshot = field(default_factory=CatalogSnapshot)
    not_ready: str = ""

    def __post_init__(self) -> None:
        self.revisions = Revisions(self.store)
        self.editor = Editor(self.revisions, lambda: Surroundings(self.static, self.catalog), lambda: NOW)
        self.world = World.of(ConfigSet(), self.catalog)

    async def refresh(self) -> None:
        """Have the world follow the store, as the service does by itself."""
        content = await self.revisions.read()
        config = ConfigSet(load_document(document) for document in content.documents.values())
        self.world = World.of(config, self.catalog)

    @asynccontextmanager
    async def http(self) -> AsyncIterator[httpx.AsyncClient]:
        vitals = Vitals(status=_status, metrics=_metrics, not_ready=lambda: self.not_ready)
        app = build_app(self.editor, Viewer(lambda: Scene(self.world, self.catalog.suspicious)), vitals)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:15014") as client:
            yield client


def _status() -> views.Status:
    control = views.ControlView(
        version="0", started="2026-11-23T12:00:00Z", xds="", admin="", store="memory", revision=0, mesh_domain="cluster.local"
    )
    return views.Status(control=control, clients=[], problems=[])


def _metrics() -> Sequence[Family]:
    return [Family("meshlib_control_config_revision", "gauge", "Revision.", (Sample(7),))]
