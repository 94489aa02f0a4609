"""Bookinfo's instances, each a process of its own, and the load that calls them."""

from __future__ import annotations

import signal
import subprocess
from typing import IO

from meshlib_control.demo.control import ControlService, Show
from meshlib_control.demo.processes import Command, ProcessGroup, Running, free_ports, python

VERSIONS = {
    "details-1": "v1",
    "ratings-1": "v1",
    "reviews-1": "v1",
    "reviews-2": "v2",
    "reviews-3": "v3",
    "reviews-4": "v3",
    "productpage-1": "v1",
}


class Fleet:
    """The application's processes.  `show` gets each command as it is run, in the form in which people repeat it."""

    def __init__(self, group: ProcessGroup, control: ControlService, *, show: Show) -> None:
        self._group = group
        self._show = show
        self._control = control
        self._instances: dict[str, Running] = {}
        self._load: Running | None = None

    @property
    def pids(self) -> dict[str, int]:
        return {name: running.pid for name, running in self._instances.items()}

    @property
    def load_log(self) -> str:
        """The last words of the load on its standard error."""
        return self._load.tail() if self._load is not None else ""

    def start(self) -> None:
        """All instances at once; returns when the mesh has them."""
        self._control.wait_registered(*[self._start(name) for name in VERSIONS])

    def start_instance(self, name: str) -> None:
        """One more; returns when the mesh has it, and it has what it needs of the mesh."""
        port = self._start(name)
        self._show(self._instances[name].command.shown)
        self._control.wait_registered(port)
        self._control.wait_synced(0)

    def _start(self, name: str) -> int:
        """Start an instance; its port."""
        service, version = name.rpartition("-")[0], VERSIONS[name]
        port = free_ports(1)[0]
        command = server(
            f"meshlib_control.demo.bookinfo.{service}:app",
            port,
            wsgi=service == "ratings",
            **self._environment(service),
            MESHLIB_LABELS=f"app={service},version={version}",
            MESHLIB_PORT=str(port),
            SERVICE_VERSION=version,
        )
        self._instances[name] = self._group.start(name, command)
        return port

    def start_load(self, rate: float) -> IO[bytes]:
        """The load, at so many requests a second; what it writes."""
        command = python("meshlib_control.demo.load", "--rate", f"{rate:g}", **self._environment("load"))
        self._load = self._group.start("load", command, stdout=subprocess.PIPE)
        assert self._load.process.stdout is not None
        return self._load.process.stdout

    def kill(self, name: str) -> None:
        """End an instance without a warning."""
        running = self._instances.pop(name)
        self._show(f"kill -9 {running.pid}")
        self._group.stop(running, signal.SIGKILL)

    def _environment(self, service: str) -> dict[str, str]:
        return {"MESHLIB_CONTROL": self._control.xds, "MESHLIB_INSECURE_DEV": "1", "MESHLIB_SERVICE": service}


def server(application: str, port: int, *, wsgi: bool, **environment: str) -> Command:
    """Uvicorn for an ASGI application, gunicorn for a WSGI one, on one port of the loopback address."""
    if wsgi:
        options = f"-c python:meshlib_integrations.gunicorn --bind 127.0.0.1:{port} --threads 4 --keep-alive 60"
        return python("gunicorn", application, *options.split(), "--log-level", "warning", **environment)
    return python("uvicorn", application, *f"--port {port} --no-access-log --log-level warning".split(), **environment)
