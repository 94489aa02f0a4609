"""A server that can do `CAPACITY` requests a second and no more, behind the mesh's middleware, for `benchmarks.faults`."""

from __future__ import annotations

import asyncio
from typing import Any

from meshlib import Mesh
from meshlib_integrations.asgi import MeshMiddleware

WORKERS, WORK = 10, 0.1
CAPACITY = WORKERS / WORK

_workers = asyncio.Semaphore(WORKERS)


async def _application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    async with _workers:
        await asyncio.sleep(WORK)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


app = MeshMiddleware(_application, Mesh.from_env())
