"""Two services, one registered by meshlib and one by itself, in one catalog."""

from examples.launch import Launch

with Launch(consul=True) as mesh:
    mesh.serve("hello", "examples.hello.server:app")
    mesh.run("examples.consul.legacy", mesh.control.consul)
    mesh.call("examples.consul.catalog", mesh.control.consul)
    mesh.call("examples.consul.client")
