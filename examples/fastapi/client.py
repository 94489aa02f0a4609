from meshlib import Mesh

with Mesh.from_env() as mesh:
    print(mesh.request("GET", "http://orders/orders/tea", timeout=2.0).json())
