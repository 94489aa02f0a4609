from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, Request

from meshlib import Mesh
from meshlib_integrations.asgi import MeshMiddleware
from meshlib_integrations.httpx import AsyncMeshTransport

mesh = Mesh.from_env()


@asynccontextmanager
async def lifespan(_api: FastAPI) -> AsyncIterator[dict[str, object]]:
    async with httpx.AsyncClient(transport=AsyncMeshTransport(mesh), base_url="http://stock") as client:
        yield {"stock": client}


api = FastAPI(lifespan=lifespan)


@api.get("/orders/{article}")
async def order(article: str, request: Request) -> dict[str, object]:
    response = await request.state.stock.get(f"/stock/{article}")
    return {"ordered": article, "stock said": response.json()}


app = MeshMiddleware(api, mesh)
