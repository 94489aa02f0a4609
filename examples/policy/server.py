"""Says who has asked: the identity in the certificate of the caller's connection."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from meshlib import Mesh
from meshlib_integrations.asgi import MeshMiddleware


async def stock(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{request.path_params['article']}, for {request.state.meshlib.peer}")


app = MeshMiddleware(Starlette(routes=[Route("/{article}", stock, methods=["GET", "DELETE"])]), Mesh.from_env())
