"""A control service of the demo's own, and what an operator does with it: every act also says how people repeat it."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec

from meshlib_control.admin import views
from meshlib_control.demo.processes import Command, DemoFailed, ProcessGroup, Running, free_ports, program

START_TIMEOUT = 30.0  # seconds for a process to be ready
SYNC_TIMEOUT = 15.0  # seconds for a change to reach every client
LEASE = 5.0  # seconds without a sign of life after which an instance is dropped
Pause = Callable[[float], None]


class ControlService:
    """`meshctl serve` as a process.  `pause` is how time passes while something is awaited."""

    def __init__(self, group: ProcessGroup, *, pause: Pause = time.sleep) -> None:
        self.xds = ""  # host:port
        self.admin = ""  # URL
        self.consul = ""  # URL of the agent, if there is one
        self._group = group
        self._pause = pause
        self._store = ["--data", str(group.folder / "control")]
        self._process: Running | None = None
        self._runs = 0
        self._api = httpx.Client(timeout=5.0, trust_env=False)

    def close(self) -> None:
        self._api.close()

    def start_consul(self) -> str:
        """A Consul agent in memory; configuration and catalog will be kept there."""
        binary = program("consul", "consul/usr/bin/consul")
        if binary is None:
            raise DemoFailed("this needs the program `consul` on PATH; in a checkout, `make tools` unpacks one")
        http, serf, server = free_ports(3)
        words = "agent -dev -node demo -bind 127.0.0.1 -client 127.0.0.1 -log-level warn -disable-host-node-id"
        words += f" -http-port {http} -serf-lan-port {serf} -server-port {server} -serf-wan-port -1 -dns-port -1 -grpc-port -1"
        # Its own limit of 200 connections a client is for agents that strangers can reach.
        arguments = [*words.split(), "-hcl", "limits { http_max_conns_per_client = 2000 }"]
        shown = shlex.join(["consul", *arguments])
        self._group.start("consul", Command([str(binary), *arguments], {}, shown))
        self.consul = f"http://127.0.0.1:{http}"
        self.wait(lambda: self._api.get(f"{self.consul}/v1/catalog/nodes").json(), f"a leader of Consul at {self.consul}")
        self._store = ["--store", f"consul://127.0.0.1:{http}", "--consul-catalog", f"consul://127.0.0.1:{http}"]
        return shown

    def start(self) -> str:
        """Start it; again on the ports that it had before."""
        listen, admin = self.xds or "127.0.0.1:0", self.admin.removeprefix("http://") or "127.0.0.1:0"
        options = ["--listen", listen, "--admin", admin, "--lease-ttl", f"{LEASE:g}", *self._store]
        self._process = self._group.start("control", meshctl("serve", *options, "-o", "json", "--log-level", "warning"))
        addresses = json.loads(self._process.first_line(START_TIMEOUT))
        self.xds, self.admin = addresses["xds"], addresses["admin"]
        return meshctl("serve", *options).shown

    def restart(self, *, away: float) -> str:
        """Stop it, leave it away for `away` seconds, start it again."""
        assert self._process is not None
        pid = self._process.pid
        self._group.stop(self._process)
        self._pause(away)
        return f"kill {pid}; sleep {away:.1f}; {self.start()}"

    def meshctl(self, *words: str) -> tuple[str, bytes]:
        """Run a meshctl command; how people repeat it, and its answer as JSON."""
        command = meshctl(*words, "-o", "json")
        self._runs += 1
        running = self._group.start(f"meshctl-{self._runs}", command, MESHCTL_SERVER=self.admin)
        code = self._group.ended(running, pause=self._pause)
        if code:
            raise DemoFailed(f"{command.shown} exited with {code}:\n{running.tail()}")
        return meshctl(*words).shown, running.out.read_bytes()

    def change(self, *words: str) -> tuple[str, views.Applied]:
        """Run a meshctl command that changes the configuration."""
        shown, answer = self.meshctl(*words)
        return shown, msgspec.json.decode(answer, type=views.Applied)

    def head(self) -> int:
        """The newest revision of the configuration."""
        return msgspec.json.decode(self._get("/v1/revisions"), type=views.History).head

    def is_configured(self) -> bool:
        return bool(msgspec.json.decode(self._get("/v1/config"), type=views.Listing).items)

    def wait_registered(self, count: int) -> None:
        """Until the catalog has `count` healthy instances."""

        def registered() -> bool:
            endpoints = msgspec.json.decode(self._get("/v1/endpoints"), type=views.Endpoints).endpoints
            return sum(endpoint.health.upper() == "HEALTHY" for endpoint in endpoints) >= count

        self.wait(registered, f"{count} registered instances at {self.admin}")

    def wait_synced(self, revision: int) -> float:
        """Until every client has confirmed `revision`; the seconds that it took."""

        def synced() -> bool:
            status = msgspec.json.decode(self._get("/v1/status"), type=views.Status)
            states = {sync.state for client in status.clients for sync in client.types.values()}
            return status.control.revision >= revision and bool(status.clients) and not states & {"STALE", "NACK"}

        started = time.monotonic()
        self.wait(synced, f"every client to confirm revision {revision}", SYNC_TIMEOUT)
        return time.monotonic() - started

    def wait(self, reached: Callable[[], object], what: str, timeout: float = START_TIMEOUT) -> None:
        """Until `reached()` is true; raises `DemoFailed` when a process ends meanwhile, or after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self._group.check()
            try:
                if reached():
                    return
            except (httpx.HTTPError, ValueError):
                pass
            self._pause(0.05)
        raise DemoFailed(f"waited {timeout:g} s in vain for {what}")

    def _get(self, path: str) -> bytes:
        return self._api.get(self.admin + path).raise_for_status().content


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
