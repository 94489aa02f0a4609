"""One server, one client."""

from examples.launch import Launch

with Launch() as mesh:
    mesh.serve("hello", "examples.hello.server:app")
    mesh.call("examples.hello.client")
