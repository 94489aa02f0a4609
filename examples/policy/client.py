"""Reads and writes as whoever it is."""

from meshlib import Mesh

with Mesh.from_env() as mesh:
    for method in ("GET", "DELETE"):
        response = mesh.request(method, "http://stock/tea", timeout=5.0)
        print(method, response.status_code, response.text)
