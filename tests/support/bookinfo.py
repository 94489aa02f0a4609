"""Bookinfo as light servers of this process: each version an instance of its own, registered, with an identity, behind mTLS.

    visitor → productpage → details
                          → reviews (v2, v3) → ratings

As in Istio's own, each hands on the header ``end-user``.  A page says which version each part came from, or how it failed.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import yaml

from meshlib import Mesh, errors
from meshlib.flow.destination import Destination
from meshlib.runtime.surroundings import REAL
from meshlib_control.demo.processes import free_ports
from meshlib_integrations.asgi import MeshMiddleware
from tests.support.control import eventually
from tests.support.zero_trust import SecureMesh

PORT = 9080
"""What Istio's samples call every service by."""

VERSIONS: Mapping[str, tuple[str, ...]] = {
    "details": ("v1", "v2"),
    "ratings": ("v1", "v2", "v2-mysql", "v2-mysql-vm"),
    "reviews": ("v1", "v2", "v3"),
    "productpage": ("v1",),
}
CALLS: Mapping[str, tuple[str, ...]] = {"productpage": ("details", "reviews"), "reviews": ("ratings",)}
DEFAULT = "default"
"""Name of the only route where no VirtualService holds."""
PATIENCE = 1.0
"""Seconds that productpage waits for an answer; Istio's Bookinfo has three, twice."""

Message = MutableMapping[str, Any]
Page = dict[str, str]
"""By part: the version, or the status or error in its place; parts that nobody asked for are not there."""


class SeededMesh(Mesh):
    """Its dice fall the same way in every run."""

    _surroundings = replace(REAL, rng=lambda: random.Random(7))


@dataclass(frozen=True, slots=True)
class Instance:
    """One version of one service: an ASGI application."""

    service: str
    version: str
    mesh: Mesh

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served here")
        user = dict(scope["headers"]).get(b"end-user", b"").decode()
        body = json.dumps({self.service: self.version} | await self._parts(user)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    async def _parts(self, user: str) -> Page:
        called = () if (self.service, self.version) == ("reviews", "v1") else CALLS.get(self.service, ())
        found = await asyncio.gather(*(self._part(service, user) for service in called))
        return {name: value for part in found for name, value in part.items()}

    async def _part(self, service: str, user: str) -> Page:
        headers = {"end-user": user} if user else {}
        try:
            timeout = PATIENCE if self.service == "productpage" else 60.0
            response = await self.mesh.arequest("GET", f"http://{service}:{PORT}/{service}/7", headers=headers, timeout=timeout)
        except errors.CallError as error:
            return {service: type(error).__name__}
        if response.status_code != 200:
            return {service: str(response.status_code)}
        page: Page = response.json()
        return page


class Bookinfo:
    """Use as a context manager, on a mesh that runs."""

    def __init__(self, town: SecureMesh) -> None:
        self.town = town
        self.visitor: Mesh
        self._meshes: list[Mesh] = []
        self._base = 0
        self._exits = ExitStack()
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> Bookinfo:
        try:
            self._begin()
        except BaseException:
            self._exits.close()
            raise
        return self

    def _begin(self) -> None:
        thread = threading.Thread(target=self._loop.run_forever)
        thread.start()
        self._exits.callback(self._loop.close)
        self._exits.callback(thread.join)
        self._exits.callback(self._loop.call_soon_threadsafe, self._loop.stop)
        ports = iter(free_ports(sum(map(len, VERSIONS.values()))))
        for service, versions in VERSIONS.items():
            for version in versions:
                self._start(service, version, next(ports))
        eventually(self._is_registered, what="all instances to be registered")
        self.visitor = self._mesh("visitor")
        eventually(self._is_complete, what="all versions of all services to be in use")
        self._base = int(self._status()["revision"])

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def pages(self, count: int, user: str = "") -> list[Page]:
        """What a visitor sees, `count` times, one after the other."""
        headers = {"end-user": user} if user else {}
        url = f"http://productpage:{PORT}/productpage"
        return [self.visitor.request("GET", url, headers=headers, timeout=60.0).json() for _ in range(count)]

    def apply(self, text: str) -> None:
        """Take configuration, and wait until every caller has the routes that it brings."""
        self._wait(self.town.control.apply(text))
        hosts = {host for each in yaml.safe_load_all(text) if each for host in _routed(each)} & VERSIONS.keys()
        eventually(lambda: all(DEFAULT not in self._routes(host) for host in hosts), what=f"new routes to {hosts}")

    def reset(self) -> None:
        """Back to no configuration at all."""
        self._wait(int(self.town.post("/v1/rollback", {"revision": self._base})["revision"]))
        eventually(lambda: all(self._routes(host) <= {DEFAULT} for host in VERSIONS), what="no routes of anybody's")

    def _start(self, service: str, version: str, port: int) -> None:
        more = {"MESHLIB_LABELS": f"version={version}", "MESHLIB_MESH_PORT": str(port), "MESHLIB_PORT": str(port)}
        mesh = self._mesh(service, MESHLIB_SERVICE_PORT=str(PORT), MESHLIB_DRAIN_SECONDS="0.01", **more)
        middleware = MeshMiddleware(Instance(service, version, mesh), mesh)
        self._do(middleware.begin(middleware, None))
        self._exits.callback(lambda: self._do(middleware.end()))

    def _mesh(self, service: str, **environment: str) -> Mesh:
        mesh = self._exits.enter_context(SeededMesh.from_env(self.town.environment(service) | environment))
        self._exits.callback(lambda: self._do(mesh.aclose_loop()))
        self._meshes.append(mesh)
        return mesh

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def _is_registered(self) -> bool:
        endpoints = self.town.control.get("/v1/endpoints")["endpoints"]
        healthy = [each for each in endpoints if each["health"] == "healthy"]
        return len(healthy) == sum(map(len, VERSIONS.values()))

    def _is_complete(self) -> bool:
        seen = {(service, version) for page in self.pages(20) for service, version in page.items()}
        return seen >= {(service, version) for service, versions in VERSIONS.items() for version in versions}

    def _wait(self, revision: int) -> None:
        eventually(lambda: self._status()["revision"] >= revision, what=f"revision {revision} to be in force")

    def _status(self) -> Any:
        return self.town.control.get("/v1/status")["control"]

    def _routes(self, host: str) -> set[str]:
        """What the first route to a service is called, in all processes that have called it."""
        found = (destinations_of(mesh).get(f"{host}:{PORT}") for mesh in self._meshes)
        return {each.target.virtual_host.routes[0].name for each in found if each is not None}


def destinations_of(mesh: Mesh) -> Mapping[str, Destination]:
    """What the mesh has compiled, by authority."""
    process = mesh._processes.current
    assert process is not None
    return process.client.destinations.current


def _routed(document: Mapping[str, Any]) -> Iterable[str]:
    return document["spec"]["hosts"] if document["kind"] == "VirtualService" else ()
