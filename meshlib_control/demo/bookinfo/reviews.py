"""reviews: v1 without stars, v2 and v3 with the stars that ratings has, black and red."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from meshlib import Mesh
from meshlib_integrations.asgi import MeshMiddleware
from meshlib_integrations.httpx import AsyncMeshTransport

VERSION = os.environ.get("SERVICE_VERSION", "v1")
COLOURS = {"v2": "black", "v3": "red"}

mesh = Mesh.from_env()


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    mesh.prefetch("ratings")  # so that this process can call them from its first request on, come what may
    async with httpx.AsyncClient(transport=AsyncMeshTransport(mesh), timeout=5.0) as client:
        yield {"client": client}


async def reviews(request: Request) -> JSONResponse:
    answer: dict[str, object] = {
        "version": VERSION,
        "reviews": ["An extremely entertaining play.", "Absolutely fun."],
        "retries": 0,
    }
    if VERSION in COLOURS:
        response = await request.state.client.get(f"http://ratings/ratings/{request.path_params['book']}")
        if response.is_error:
            return JSONResponse({"error": f"{response.url} answered {response.status_code}: {response.text}"}, status_code=502)
        answer |= {"stars": response.json()["ratings"], "colour": COLOURS[VERSION]}
        answer["retries"] = response.extensions["meshlib"].attempts - 1
    return JSONResponse(answer)


async def unreachable(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": f"{type(error).__name__}: {error}"}, status_code=502)


app = MeshMiddleware(
    Starlette(
        routes=[Route("/reviews/{book:int}", reviews)],
        lifespan=lifespan,
        exception_handlers={httpx.TransportError: unreachable},
    ),
    mesh,
)
