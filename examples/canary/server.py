"""Says which version it is: the one in its own labels."""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from meshlib import Mesh
from meshlib_integrations.asgi import MeshMiddleware


async def version(_request: Request) -> PlainTextResponse:
    return PlainTextResponse(os.environ["MESHLIB_LABELS"].removeprefix("version="))


app = MeshMiddleware(Starlette(routes=[Route("/", version)]), Mesh.from_env())
