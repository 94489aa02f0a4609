"""A worker and its flaky queue."""

from pathlib import Path

from examples.launch import Launch

with Launch() as mesh:
    mesh.serve("queue", "examples.worker.flaky:app")
    mesh.apply(Path(__file__).with_name("retries.yaml"))
    mesh.call("examples.worker.worker")
