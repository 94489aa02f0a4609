"""An ASGI application in the mesh that writes down what it executes, for tests that must know how often that was.

``EXECUTED_FOLDER`` gets a file for each process, with a line ``METHOD /target`` for each request, written before the answer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from meshlib import Mesh
from meshlib_integrations.asgi import MeshMiddleware

Message = MutableMapping[str, Any]
WORK = 0.02  # seconds for each request, so that some are in flight when a process ends

_file = os.open(f"{os.environ['EXECUTED_FOLDER']}/{os.getpid()}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)


async def application(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    if scope["type"] != "http":
        raise RuntimeError(f"{scope['type']} is not served here")
    while (await receive()).get("more_body"):
        pass
    os.write(_file, f"{scope['method']} {scope['path']}\n".encode())
    await asyncio.sleep(WORK)
    body = str(os.getpid()).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


app = MeshMiddleware(application, Mesh.from_env())
