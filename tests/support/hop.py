"""One hop of a chain, for uvicorn: behind the mesh's middleware, it answers what the next hop answers; the last one fails.

`BEHIND` names the service that is called; without it this is the leaf: 503 after `LATENCY` seconds.  ``/tally`` says how many
other requests have come, whichever way.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from meshlib import Mesh, errors
from meshlib_integrations.asgi import MeshMiddleware

BEHIND = os.environ.get("BEHIND", "")
LATENCY = float(os.environ.get("LATENCY", "0"))

mesh = Mesh.from_env()


class Hop:
    """The application."""

    def __init__(self) -> None:
        self.served = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        if scope["path"] == "/tally":
            await _answer(send, 200, b"%d" % self.served)
            return
        self.served += 1
        await _answer(send, await _status(), b"")


async def _status() -> int:
    if not BEHIND:
        await asyncio.sleep(LATENCY)
        return 503
    try:
        return (await mesh.arequest("GET", f"http://{BEHIND}/")).status_code
    except errors.CallError:
        return 502


async def _answer(send: Any, status: int, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


app = MeshMiddleware(Hop(), mesh)
