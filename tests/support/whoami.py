"""An ASGI application in the mesh that says who called it, and writes down each request that reached it.

``REACHED`` is the file; one line for each request: the peer's SPIFFE ID (or "nobody") and the path.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from meshlib import Mesh
from meshlib_integrations.asgi import MeshMiddleware

Message = MutableMapping[str, Any]

logging.basicConfig(level="INFO")  # what is denied is told there
_file = os.open(os.environ["REACHED"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)


async def application(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    if scope["type"] != "http":
        raise RuntimeError(f"{scope['type']} is not served here")
    context = scope["state"]["meshlib"]
    os.write(_file, f"{context.peer or 'nobody'} {scope['path']}\n".encode())
    body = json.dumps({"peer": str(context.peer or ""), "path": context.path, "claims": context.claims}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


app = MeshMiddleware(application, Mesh.from_env())
