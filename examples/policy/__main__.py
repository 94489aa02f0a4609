"""Two callers, of which one is allowed in."""

from pathlib import Path

from examples.launch import Launch

with Launch() as mesh:
    mesh.serve("stock", "examples.policy.server:app")
    mesh.apply(Path(__file__).with_name("policy.yaml"))
    mesh.call("examples.policy.client", service="shop")
    mesh.call("examples.policy.client", service="visitor")
