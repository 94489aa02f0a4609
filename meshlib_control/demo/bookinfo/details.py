"""details: facts about a book.  Calls nobody."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from meshlib import Mesh
from meshlib_integrations.asgi import MeshMiddleware


async def details(request: Request) -> JSONResponse:
    return JSONResponse({"id": request.path_params["book"], "author": "William Shakespeare", "year": 1595, "pages": 200})


app = MeshMiddleware(Starlette(routes=[Route("/details/{book:int}", details)]), Mesh.from_env())
