from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from meshlib import Mesh
from meshlib_integrations.asgi import MeshMiddleware

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["catalog"], SECRET_KEY="only this example's")


async def book(_request: HttpRequest, number: int) -> JsonResponse:
    return JsonResponse({"number": number, "title": "The Comedy of Errors"})


urlpatterns = [path("books/<int:number>", book)]

# uvicorn examples.django.site:app --port 8001 --http meshlib_integrations.uvicorn:MeshProtocol
app = MeshMiddleware(get_asgi_application(), Mesh.from_env())
