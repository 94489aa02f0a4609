import httpx

from meshlib import Mesh
from meshlib_integrations.httpx import MeshTransport

with Mesh.from_env() as mesh, httpx.Client(transport=MeshTransport(mesh)) as client:
    print(client.get("http://catalog/books/7").json())
