"""A service whose endpoints fail in known ways, called through a real control service: origins, configuration, a mesh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any

from meshlib import Mesh
from meshlib.flow.upstream import Upstream
from tests.support.checked import upstream_of
from tests.support.control import Control
from tests.support.control import eventually as until
from tests.support.origins import RESPONSE, Origin
from tests.support.polling import eventually

UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"

SERVICE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %(host)s}
spec:
  hosts: [%(host)s.default.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [%(endpoints)s]
"""
RETRIES = """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %(host)s}
spec:
  hosts: [%(host)s]
  http:
  - retries: {attempts: 1, retryOn: "5xx,connect-failure"}
    route: [{destination: {host: %(host)s}}]
"""
NO_RETRIES = RETRIES.replace('{attempts: 1, retryOn: "5xx,connect-failure"}', "{attempts: 0}")
EJECTION = """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: %(host)s}
spec:
  host: %(host)s
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 5, interval: 1s, baseEjectionTime: 300s, maxEjectionPercent: 20}
"""
"""One of five may be left out; with Istio's default of 10 % it would be none."""


class Failing(Origin):
    """Answers a share of its requests with 503, all of them after a while; can be taken down, and up again on its port."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        self.failing = 0.0
        self.latency = 0.0
        self._rng = Random(seed)
        self._down_from = 0

    async def respond(self, method: str, target: str) -> bytes:
        if self.latency:
            await asyncio.sleep(self.latency)
        return UNAVAILABLE if self._rng.random() < self.failing else RESPONSE

    @property
    def attempts(self) -> int:
        return sum(self.seen.values())

    async def down(self) -> None:
        """As a process that was killed: what is in flight is lost, and connections are refused."""
        self._down_from = self.port
        await self.__aexit__()

    async def up(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._down_from)


@asynccontextmanager
async def failing(count: int = 5) -> AsyncIterator[list[Failing]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Failing(seed)) for seed in range(count)]


@asynccontextmanager
async def calling(
    control: Control, host: str, servers: Sequence[str], rules: str = "", *, localities: Sequence[str] = (), **settings: Any
) -> AsyncIterator[Mesh]:
    """A mesh that knows the endpoints of `host`; `servers`: ``address:port`` each, in these localities if any."""
    endpoints = []
    for number, server in enumerate(servers):
        address, _, port = server.rpartition(":")
        locality = f", locality: {localities[number]}" if localities else ""
        endpoints.append(f"{{address: {address}, ports: {{http: {port}}}{locality}}}")
    text = (SERVICE + rules) % {"host": host, "endpoints": ", ".join(endpoints)}
    revision = await asyncio.to_thread(control.apply, text)
    await asyncio.to_thread(until, lambda: control.get("/v1/status")["control"]["revision"] >= revision, what="it is in force")
    async with Mesh(control=control.xds, insecure_dev=True, **settings) as mesh:
        mesh.prefetch(host)
        await eventually(lambda: upstream_of(mesh) is not None and len(upstream(mesh).hosts) == len(servers))
        yield mesh
        await mesh.aclose_loop()


def upstream(mesh: Mesh) -> Upstream:
    """Of the only cluster that is called."""
    found = upstream_of(mesh)
    assert found is not None
    return found
