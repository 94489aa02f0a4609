"""What runs in the demo: a control service, Bookinfo's instances, a load, and on wish a Consul agent."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec

from meshlib_control.admin import views
from meshlib_control.demo.processes import Command, DemoFailed, ProcessGroup, Running, free_ports, program, python

HERE = Path(__file__).parent
START_TIMEOUT = 30.0  # seconds for a process to be ready
SYNC_TIMEOUT = 15.0  # seconds for a change to reach every client
LEASE = 5.0  # seconds without a sign of life after which an instance is dropped
SERVED = {"details-1": "v1", "ratings-1": "v1", "reviews-1": "v1", "reviews-2": "v2", "reviews-3": "v3", "reviews-4": "v3"}
Pause = Callable[[float], None]


class Fleet:
    """The demo's processes and what an operator does to them.  Each act returns the command with which people repeat it."""

    def __init__(self, group: ProcessGroup, *, rate: float, pause: Pause) -> None:
        self.control: Running | None = None
        self._group = group
        self._pause = pause
        self._rate = rate
        self._instances: dict[str, Running] = {}
        self._store: tuple[str, ...] = ("--data", str(group.folder / "control"))
        self._xds = self._admin = ""
        self._runs = 0
        self._api = httpx.Client(timeout=5.0, trust_env=False)
        self.load: Running | None = None

    @property
    def admin(self) -> str:
        """URL of the control service's admin port."""
        return self._admin

    @property
    def pids(self) -> dict[str, int]:
        return {name: running.pid for name, running in self._instances.items()}

    def close(self) -> None:
        self._api.close()

    # Starting

    def start_consul(self) -> str:
        """A Consul agent in memory; the control service keeps its configuration and catalog there."""
        binary = program("consul", "consul/usr/bin/consul")
        if binary is None:
            raise DemoFailed("--consul needs the program `consul` on PATH; in a checkout, `make tools` unpacks one")
        http, serf, server = free_ports(3)
        words = "agent -dev -node demo -bind 127.0.0.1 -client 127.0.0.1 -log-level warn -disable-host-node-id"
        words += f" -http-port {http} -serf-lan-port {serf} -server-port {server} -serf-wan-port -1 -dns-port -1 -grpc-port -1"
        arguments = [str(binary), *words.split(), "-hcl", "limits { http_max_conns_per_client = 2000 }"]
        self._group.start("consul", Command(arguments, {}, shlex.join(["consul", *arguments[1:]])))
        url = f"http://127.0.0.1:{http}"
        self._wait(lambda: self._api.get(f"{url}/v1/catalog/nodes").json(), f"a leader of Consul at {url}")
        self._store = ("--store", f"consul://127.0.0.1:{http}", "--consul-catalog", f"consul://127.0.0.1:{http}")
        return f"consul {shlex.join(arguments[1:])}"

    def start_control(self) -> str:
        """The control service; again on the ports that it had before."""
        listen, admin = self._xds or "127.0.0.1:0", self._admin.removeprefix("http://") or "127.0.0.1:0"
        options = ["--listen", listen, "--admin", admin, "--lease-ttl", f"{LEASE:g}", *self._store]
        self.control = self._group.start("control", meshctl("serve", *options, "-o", "json", "--log-level", "warning"))
        addresses = json.loads(self.control.first_line(START_TIMEOUT))
        self._xds, self._admin = addresses["xds"], addresses["admin"]
        return meshctl("serve", *options).shown

    def start_application(self) -> None:
        """All instances at once, then the load as soon as the mesh has them."""
        for name in [*SERVED, "productpage-1"]:
            self.start_instance(name)
        self.wait_registered(len(self._instances))
        self.load = self._group.start(
            "load",
            python("meshlib_control.demo.load", "--rate", f"{self._rate:g}", **self._environment("load")),
            stdout=subprocess.PIPE,
        )

    def start_instance(self, name: str) -> str:
        service, version = name.rpartition("-")[0], SERVED.get(name, "v1")
        port = free_ports(1)[0]
        command = _server(
            service,
            port,
            SERVICE_VERSION=version,
            MESHLIB_PORT=str(port),
            MESHLIB_LABELS=f"app={service},version={version}",
            **self._environment(service),
        )
        self._instances[name] = self._group.start(name, command)
        return command.shown

    def _environment(self, service: str) -> dict[str, str]:
        return {"MESHLIB_CONTROL": self._xds, "MESHLIB_SERVICE": service}

    # Waiting

    def wait_registered(self, count: int) -> None:
        """Until the catalog has `count` healthy instances."""

        def registered() -> bool:
            self._group.check()
            found = msgspec.json.decode(self._api.get(f"{self._admin}/v1/endpoints").content, type=views.Endpoints)
            return sum(endpoint.health.upper() == "HEALTHY" for endpoint in found.endpoints) >= count

        self._wait(registered, f"{count} registered instances at {self._admin}")

    def wait_synced(self, revision: int) -> float:
        """Until every client has confirmed `revision`; the seconds that it took."""

        def synced() -> bool:
            status = msgspec.json.decode(self._api.get(f"{self._admin}/v1/status").content, type=views.Status)
            states = {sync.state for client in status.clients for sync in client.types.values()}
            return status.control.revision >= revision and bool(status.clients) and not states & {"STALE", "NACK"}

        started = time.monotonic()
        self._wait(synced, f"every client to confirm revision {revision}", SYNC_TIMEOUT)
        return time.monotonic() - started

    def _wait(self, reached: Callable[[], object], what: str, timeout: float = START_TIMEOUT) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                if reached():
                    return
            except (httpx.HTTPError, ValueError):
                pass
            self._pause(0.05)
        raise DemoFailed(f"waited {timeout:g} s in vain for {what}")

    # What an operator does

    def meshctl(self, *words: str) -> tuple[str, bytes]:
        """Run a meshctl command, traffic going on: how people repeat it, and its answer as JSON."""
        command = meshctl(*words, "-o", "json")
        self._runs += 1
        running = self._group.start(f"meshctl-{self._runs}", command, MESHCTL_SERVER=self._admin)
        self._wait(lambda: running.has_ended, f"{command.shown} to end")
        code = self._group.ended(running)
        if code:
            raise DemoFailed(f"{command.shown} exited with {code}:\n{running.tail()}")
        return meshctl(*words).shown, running.out.read_bytes()

    def change(self, *words: str) -> tuple[str, views.Applied]:
        """Run a meshctl command that changes the configuration."""
        shown, answer = self.meshctl(*words)
        return shown, msgspec.json.decode(answer, type=views.Applied)

    def is_configured(self) -> bool:
        return bool(msgspec.json.decode(self._api.get(f"{self._admin}/v1/config").content, type=views.Listing).items)

    def head(self) -> int:
        """The newest revision of the configuration."""
        return msgspec.json.decode(self._api.get(f"{self._admin}/v1/revisions").content, type=views.History).head

    def kill(self, name: str) -> str:
        """End an instance without a warning."""
        running = self._instances.pop(name)
        self._group.stop(running, signal.SIGKILL)
        return f"kill -9 {running.pid}"

    def restart_control(self, *, away: float) -> str:
        """Stop the control service, leave it away for `away` seconds, start it again."""
        assert self.control is not None
        pid = self.control.pid
        self._group.stop(self.control)
        self._pause(away)
        return f"kill {pid}; sleep {away:.1f}; {self.start_control()}"


def meshctl(*words: str) -> Command:
    """Meshctl by this interpreter, shown as people type it here, with paths below the current folder made relative."""
    beside = Path(sys.executable).with_name("meshctl")
    name = "meshctl" if shutil.which("meshctl") or not beside.exists() else _relative(str(beside))
    return Command(
        arguments=[sys.executable, "-m", "meshlib_control", *words],
        environment={},
        shown=shlex.join([name, *map(_relative, words)]),
    )


def _relative(word: str) -> str:
    path = Path(word)
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else word


def _server(service: str, port: int, **environment: str) -> Command:
    """Uvicorn for the ASGI applications, gunicorn for ratings, which is WSGI."""
    application = f"meshlib_control.demo.bookinfo.{service}:app"
    if service == "ratings":
        options = f"--bind 127.0.0.1:{port} --worker-class gthread --threads 4 --keep-alive 60 --log-level warning"
        options += " -c python:meshlib_integrations.gunicorn"
        return python("gunicorn", application, *options.split(), **environment)
    return python("uvicorn", application, *f"--port {port} --no-access-log --log-level warning".split(), **environment)
