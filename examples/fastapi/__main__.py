"""client → orders → stock."""

from examples.launch import Launch

with Launch() as mesh:
    mesh.serve("stock", "examples.fastapi.stock:app")
    mesh.serve("orders", "examples.fastapi.orders:app")
    mesh.call("examples.fastapi.client")
