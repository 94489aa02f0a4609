from fastapi import FastAPI, Request
from meshlib_integrations.asgi import MeshMiddleware

from meshlib import Mesh

api = FastAPI()


@api.get("/stock/{article}")
async def stock(article: str, request: Request) -> dict[str, object]:
    return {"article": article, "left": 7, "caller's trace": request.headers["traceparent"]}


app = MeshMiddleware(api, Mesh.from_env())
