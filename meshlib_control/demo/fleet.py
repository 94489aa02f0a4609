"""Bookinfo's instances, each a process of its own, and those who call them."""

from __future__ import annotations

import signal
import subprocess
from itertools import count
from pathlib import Path
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
LOAD = "load-1"
CALL = "meshlib_control.demo.call"


class Fleet:
    """The application's processes.  `show` gets each command as it is run, in the form in which people repeat it."""

    def __init__(self, group: ProcessGroup, control: ControlService, *, show: Show) -> None:
        self._group = group
        self._show = show
        self._control = control
        self._instances: dict[str, Running] = {}
        self._callers: dict[str, dict[str, str]] = {}
        self._numbers = count(1)
        self._load: Running | None = None
        self.ports: dict[str, int] = {}

    @property
    def pids(self) -> dict[str, int]:
        return {name: running.pid for name, running in self._instances.items()}

    @property
    def load_log(self) -> str:
        """The last words of the load on its standard error."""
        return self._load.tail() if self._load is not None else ""

    def start(self) -> None:
        """All instances at once; returns when the mesh has them."""
        for number, name in enumerate([*VERSIONS, LOAD]):
            self._control.join_token(service_of(name), self._token_file(name), shown=number == 0)
        self._control.wait_registered(*[self._start(name) for name in VERSIONS])

    def start_instance(self, name: str) -> None:
        """One more; returns when the mesh has it, and it has what it needs of the mesh."""
        self._control.join_token(service_of(name), self._token_file(name))
        port = self._start(name)
        self._show(self._instances[name].command.shown)
        self._control.wait_registered(port)
        self._control.wait_synced(0)

    def _start(self, name: str) -> int:
        """Start an instance; its port."""
        service, version, port = service_of(name), VERSIONS[name], free_ports(1)[0]
        wsgi = service == "ratings"
        settings = {
            "MESHLIB_SERVICE": service,
            "MESHLIB_LABELS": f"app={service},version={version}",
            "MESHLIB_PORT": str(port),
            "MESHLIB_TOKEN_FILE": str(self._token_file(name)),
        }
        if wsgi:  # its workers share the one token
            settings["MESHLIB_IDENTITY_DIR"] = str(self._group.folder / f"{name}.identity")
        application = f"meshlib_control.demo.bookinfo.{service}:app"
        command = server(application, port, wsgi=wsgi, **settings, SERVICE_VERSION=version)
        self._instances[name] = self._group.start(name, command, environment=self._control.workload)
        self.ports[name] = port
        return port

    def start_load(self, rate: float) -> IO[bytes]:
        """The load, at so many requests a second; what it writes."""
        settings = {"MESHLIB_SERVICE": "load", "MESHLIB_TOKEN_FILE": str(self._token_file(LOAD))}
        command = python("meshlib_control.demo.load", "--rate", f"{rate:g}", **settings)
        self._load = self._group.start("load", command, stdout=subprocess.PIPE, environment=self._control.workload)
        assert self._load.process.stdout is not None
        return self._load.process.stdout

    def kill(self, name: str) -> None:
        """End an instance without a warning."""
        running = self._instances.pop(name)
        del self.ports[name]
        self._show(f"kill -9 {running.pid}")
        self._group.stop(running, signal.SIGKILL)

    def enrol(self, service: str) -> None:
        """A program of its own gets the identity of `service`, which it can then call with again and again."""
        name = f"{service}-caller-{next(self._numbers)}"
        settings = {
            "MESHLIB_TOKEN_FILE": str(self._control.join_token(service, self._token_file(name))),
            "MESHLIB_IDENTITY_DIR": str(self._group.folder / f"{name}.identity"),
        }
        self._callers[service] = settings

    def call_as(self, service: str, url: str) -> str:
        """GET `url` as the program that was enrolled; what it was answered, in a line."""
        return self._call(python(CALL, url, **self._callers[service]))

    def call_plain(self, url: str) -> str:
        """GET `url` as anybody does who knows an instance's address and nothing of the mesh."""
        return self._call(python(CALL, "--plain", url))

    def _call(self, command: Command) -> str:
        self._show(command.shown)
        running = self._group.start(f"call-{next(self._numbers)}", command, environment=self._control.workload)
        self._group.ended(running, pause=self._control.pause)
        return running.out.read_text().strip() or running.tail()

    def wait_log(self, name: str, words: str) -> str:
        """The newest line with `words` in the log of an instance."""

        def lines() -> list[str]:
            text = self._instances[name].log.read_text(errors="replace")
            return [line for line in text.splitlines() if words in line]

        self._control.wait(lines, f"{name} to log {words!r}")
        return lines()[-1]

    def _token_file(self, name: str) -> Path:
        return self._group.folder / f"{name}.token"


def service_of(name: str) -> str:
    """``reviews-2`` -> ``reviews``"""
    return name.rpartition("-")[0]


def server(application: str, port: int, *, wsgi: bool, **environment: str) -> Command:
    """Uvicorn for an ASGI application, gunicorn for a WSGI one, on one port of the loopback address."""
    if wsgi:
        options = "-c python:meshlib_integrations.gunicorn -k meshlib_integrations.gunicorn.ThreadMeshWorker"
        options += f" --bind 127.0.0.1:{port} --workers 2 --threads 4 --keep-alive 60 --log-level warning"
        return python("gunicorn", application, *options.split(), **environment)
    options = f"--http meshlib_integrations.uvicorn:MeshProtocol --port {port} --no-access-log --log-level warning"
    return python("uvicorn", application, *options.split(), **environment)
