"""Takes three tasks, and then asks for what is not there."""

from meshlib import Mesh, errors

with Mesh.from_env() as mesh:
    mesh.wait_ready()
    for _ in range(3):
        response = mesh.request("GET", "http://queue/task", timeout=5.0)
        print(response.status_code, response.text, "after", response.info.attempts, "attempts")
    try:
        mesh.request("GET", "http://nobody/task")
    except errors.CallError as error:
        print(f"{type(error).__name__}: {error}")
