"""What is called in the benchmarks: 1 KiB, nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

BODY = b"x" * 1024
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"1024")],
}
END = {"type": "http.response.body", "body": BODY}


Message = MutableMapping[str, Any]


async def app(scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]) -> None:
    if scope["type"] == "http":
        await send(START)
        await send(END)


def __getattr__(name: str) -> object:
    """`meshed`: the same application behind the mesh's middleware; `secured`: with mTLS and policies.  Made when asked for."""
    if name == "secured":
        from benchmarks.zero_trust import served_mesh
        from meshlib_integrations.asgi import MeshMiddleware

        return MeshMiddleware(app, served_mesh())
    if name == "meshed":
        from meshlib.testing import static_mesh
        from meshlib_integrations.asgi import MeshMiddleware

        return MeshMiddleware(app, static_mesh())
    raise AttributeError(name)
