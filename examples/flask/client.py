import requests

from meshlib import Mesh
from meshlib_integrations.requests import MeshAdapter

with Mesh.from_env() as mesh, requests.Session() as session:
    session.mount("http://", MeshAdapter(mesh))
    print(session.get("http://numbers/square/12", timeout=2).json())
