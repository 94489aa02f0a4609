import time

from fastapi import FastAPI

from meshlib import Mesh, current_request
from meshlib_integrations.asgi import MeshMiddleware

api = FastAPI()


@api.get("/stock/{article}")
async def stock(article: str) -> dict[str, object]:
    context = current_request()
    left = context.deadline - time.monotonic() if context and context.deadline else None
    return {"article": article, "in stock": 7, "seconds left for the answer": left}


app = MeshMiddleware(api, Mesh.from_env())
