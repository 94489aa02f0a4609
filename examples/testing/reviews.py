"""A service that asks another one, and can do without."""

from __future__ import annotations

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


def make_app(client: httpx.AsyncClient) -> Starlette:
    async def review(request: Request) -> JSONResponse:
        try:
            answer = await client.get("http://ratings/7")
            stars = answer.json()["stars"] if answer.status_code == 200 else None
        except httpx.HTTPError:
            stars = None
        return JSONResponse({"text": "A refreshing drama", "stars": stars})

    return Starlette(routes=[Route("/", review)])
