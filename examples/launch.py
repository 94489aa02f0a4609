"""Starts what an example needs, on 127.0.0.1, and ends it: a control service, servers, programs that call them.

Each process gets a join token, which it trades for a certificate: what the examples' programs say to each other is encrypted,
and each knows whom it talks to.
"""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path

from meshlib_control.demo.control import ControlService
from meshlib_control.demo.fleet import server
from meshlib_control.demo.processes import DemoFailed, ProcessGroup, free_ports, python


class Launch:
    """``with Launch() as mesh: ...``: everything that was started ends with the block."""

    def __init__(self, *, consul: bool = False) -> None:
        self._stack = ExitStack()
        self._group = self._stack.enter_context(ProcessGroup())
        self.control = ControlService(self._group, show=show)
        self._stack.callback(self.control.close)
        self._started = 0
        if consul:
            self.control.start_consul()
        self.control.start()
        self.control.save_bundle()
        for variables in (self.control.operator, self.control.workload):
            show("export " + " ".join(f"{name}={value}" for name, value in variables.items()))

    def __enter__(self) -> Launch:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def serve(self, service: str, application: str, *, version: str = "v1", wsgi: bool = False) -> int:
        """Start an instance of `service`: ``module:app`` under uvicorn, or with `wsgi` under gunicorn; its port."""
        port = free_ports(1)[0]
        settings = {**self._identity(service), "MESHLIB_LABELS": f"version={version}", "MESHLIB_PORT": str(port)}
        if wsgi:  # its workers share the one token
            settings["MESHLIB_IDENTITY_DIR"] = settings["MESHLIB_TOKEN_FILE"].replace(".token", ".identity")
        command = server(application, port, wsgi=wsgi, **settings)
        self._group.start(f"{service}-{self._started}", command, environment=self._environment)
        show(command.shown)
        self.control.wait_registered(port)
        return port

    def apply(self, file: Path) -> None:
        """``meshctl apply -f FILE``; returns when every client has it."""
        self.control.change("apply", "-f", str(file))

    def run(self, module: str, *arguments: str) -> None:
        """Start a program that knows nothing of the mesh and runs until the end."""
        command = python(module, *arguments)
        show(command.shown)
        self._group.start(module, command, environment=self._environment)

    def call(self, module: str, *arguments: str, service: str = "client") -> None:
        """Run a program to its end, with the identity of `service`; what it prints is shown."""
        command = python(module, *arguments, **self._identity(service))
        show(command.shown)
        process = self._group.start(module, command, stdout=subprocess.PIPE, environment=self._environment)
        assert process.process.stdout is not None
        for line in process.process.stdout:
            print(line.decode(), end="", flush=True)
        code = self._group.ended(process)
        if code:
            raise DemoFailed(f"{module} exited with {code}:\n{process.tail()}")

    def _identity(self, service: str) -> dict[str, str]:
        """What makes one more process `service`."""
        self._started += 1
        token = self.control.join_token(service, self._group.folder / f"{service}-{self._started}.token")
        return {"MESHLIB_SERVICE": service, "MESHLIB_TOKEN_FILE": str(token)}

    @property
    def _environment(self) -> dict[str, str]:
        return {**self.control.workload, "PYTHONPATH": str(Path.cwd())}


def show(command: str) -> None:
    print("$", command, flush=True)
