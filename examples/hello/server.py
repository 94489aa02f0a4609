from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from meshlib import Mesh
from meshlib_integrations.asgi import MeshMiddleware


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"hello, {request.path_params['name']}")


# uvicorn examples.hello.server:app --port 8001 --http meshlib_integrations.uvicorn:MeshProtocol
app = MeshMiddleware(Starlette(routes=[Route("/{name}", hello)]), Mesh.from_env())
