"""productpage: what a visitor asks for; calls details and reviews at the same time."""

import asyncio
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

mesh = Mesh.from_env()


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    mesh.prefetch("details", "reviews")  # so that this process can call them from its first request on, come what may
    async with httpx.AsyncClient(transport=AsyncMeshTransport(mesh), timeout=5.0) as client:
        yield {"client": client}


async def productpage(request: Request) -> JSONResponse:
    """The whole page or an error: a page that leaves out what failed would hide it from the demo's count."""
    book, client = request.path_params["book"], request.state.client
    details, reviews = await asyncio.gather(
        client.get(f"http://details/details/{book}"), client.get(f"http://reviews/reviews/{book}")
    )
    for response in (details, reviews):
        if response.is_error:
            return JSONResponse({"error": f"{response.url} answered {response.status_code}: {response.text}"}, status_code=502)
    page = {"details": details.json(), "reviews": reviews.json()}
    page["retries"] = page["reviews"]["retries"] + sum(r.extensions["meshlib"].attempts - 1 for r in (details, reviews))
    return JSONResponse(page)


async def unreachable(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": f"{type(error).__name__}: {error}"}, status_code=502)


app = MeshMiddleware(
    Starlette(
        routes=[Route("/productpage/{book:int}", productpage)],
        lifespan=lifespan,
        exception_handlers={httpx.TransportError: unreachable},
    ),
    mesh,
)
