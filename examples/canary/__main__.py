"""Before the canary, and with it."""

from pathlib import Path

from examples.launch import Launch

with Launch() as mesh:
    mesh.serve("shop", "examples.canary.server:app", version="v1")
    mesh.serve("shop", "examples.canary.server:app", version="v2")
    mesh.call("examples.canary.client")
    mesh.apply(Path(__file__).with_name("canary.yaml"))
    mesh.call("examples.canary.client")
