"""Two services, one registered by meshlib and one by itself, in one catalog."""

import httpx

from examples.launch import Launch

with Launch(consul=True) as mesh:
    mesh.serve("hello", "examples.hello.server:app")
    agent = mesh.control.consul
    mesh.run("examples.consul.legacy", agent)
    mesh.control.wait(lambda: httpx.get(f"{agent}/v1/catalog/service/legacy").json(), "legacy in Consul's catalog")
    mesh.call("examples.consul.catalog", agent)
    mesh.call("examples.consul.client")
