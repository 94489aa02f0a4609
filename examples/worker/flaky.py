"""Answers 503 to every other request."""

from itertools import count

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from meshlib import Mesh
from meshlib_integrations.asgi import MeshMiddleware

numbers = count(1)


async def task(_request: Request) -> PlainTextResponse:
    number = next(numbers)
    return PlainTextResponse(f"task {number}", status_code=200 if number % 2 == 0 else 503)


app = MeshMiddleware(Starlette(routes=[Route("/task", task)]), Mesh.from_env())
