"""A control service of the demo's own, and what an operator does with it."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable

import httpx
import msgspec

from meshlib_control.admin import views
from meshlib_control.demo.processes import Command, DemoFailed, ProcessGroup, Running, free_ports, installed, program, relative

START_TIMEOUT = 30.0  # seconds for a process to be ready
SYNC_TIMEOUT = 15.0  # seconds for a change to reach every client
LEASE = 5.0  # seconds without a sign of life after which an instance is dropped
Pause = Callable[[float], None]
Show = Callable[[str], None]


class ControlService:
    """`meshctl serve` as a process.

    `show` gets every command as it is run, in the form in which people repeat it; `pause` is how time passes while something
    is awaited.
    """

    def __init__(self, group: ProcessGroup, *, show: Show, pause: Pause = time.sleep) -> None:
        self.xds = ""  # host:port
        self.admin = ""  # URL
        self.consul = ""  # URL of the agent, if there is one
        self._group = group
        self._show = show
        self._pause = pause
        self._store = ["--data", str(group.folder / "control")]
        self._process: Running | None = None
        self._runs = 0
        self._api = httpx.Client(timeout=5.0, trust_env=False)

    def close(self) -> None:
        self._api.close()

    def start_consul(self) -> None:
        """A Consul agent in memory; configuration and catalog will be kept there."""
        binary = program("consul", "consul/usr/bin/consul")
        if binary is None:
            raise DemoFailed("this needs the program `consul` on PATH; in a checkout, `make tools` unpacks one")
        http, serf, server = free_ports(3)
        words = "agent -dev -node demo -bind 127.0.0.1 -client 127.0.0.1 -log-level warn -disable-host-node-id"
        words += f" -http-port {http} -serf-lan-port {serf} -server-port {server} -serf-wan-port -1 -dns-port -1 -grpc-port -1"
        # Its own limit of 200 connections a client is for agents that strangers can reach.
        arguments = [*words.split(), "-hcl", "limits { http_max_conns_per_client = 2000 }"]
        command = Command([str(binary), *arguments], {}, shlex.join(["consul", *arguments]))
        self._show(command.shown)
        self._group.start("consul", command)
        self.consul = f"http://127.0.0.1:{http}"
        self.wait(lambda: self._api.get(f"{self.consul}/v1/catalog/nodes").json(), f"a leader of Consul at {self.consul}")
        self._store = ["--store", f"consul://127.0.0.1:{http}", "--consul-catalog", f"consul://127.0.0.1:{http}"]

    def start(self) -> None:
        """Start it; again on the ports that it had before."""
        listen, admin = self.xds or "127.0.0.1:0", self.admin.removeprefix("http://") or "127.0.0.1:0"
        options = ["--listen", listen, "--admin", admin, "--lease-ttl", f"{LEASE:g}", "--insecure-dev", *self._store]
        self._show(meshctl("serve", *options).shown)
        self._process = self._group.start("control", meshctl("serve", *options, "-o", "json", "--log-level", "warning"))
        addresses = json.loads(self._process.first_line(START_TIMEOUT))
        self.xds, self.admin = addresses["xds"], addresses["admin"]

    def restart(self, *, away: float) -> None:
        """Stop it, leave it away for `away` seconds, start it again; returns when all of its clients are back.

        They come back when their backoff says so, some seconds after it.  Until then they have what they had, and a change made
        meanwhile would not reach them: nobody could say when every client has it.
        """
        assert self._process is not None
        clients = self._clients()
        self._show(f"kill {self._process.pid}")
        self._group.stop(self._process)
        self._pause(away)
        self.start()
        self.wait(lambda: clients <= self._clients(), f"all clients to connect again to {self.xds}", SYNC_TIMEOUT)

    def meshctl(self, *words: str) -> bytes:
        """Run a meshctl command; its answer as JSON."""
        self._show(meshctl(*words).shown)
        command = meshctl(*words, "-o", "json")
        self._runs += 1
        running = self._group.start(f"meshctl-{self._runs}", command, MESHCTL_SERVER=self.admin)
        code = self._group.ended(running, pause=self._pause)
        if code:
            raise DemoFailed(f"{command.shown} exited with {code}:\n{running.tail()}")
        return running.out.read_bytes()

    def change(self, *words: str) -> views.Applied:
        """Run a meshctl command that changes the configuration; returns when every client has confirmed what it did."""
        applied = msgspec.json.decode(self.meshctl(*words), type=views.Applied)
        self.wait_synced(applied.revision)
        return applied

    def _clients(self) -> set[str]:
        """The ids of those who are connected."""
        return {client.id for client in msgspec.json.decode(self._get("/v1/status"), type=views.Status).clients}

    def head(self) -> int:
        """The newest revision of the configuration."""
        return msgspec.json.decode(self._get("/v1/revisions"), type=views.History).head

    def is_configured(self) -> bool:
        return bool(msgspec.json.decode(self._get("/v1/config"), type=views.Listing).items)

    def wait_registered(self, *ports: int) -> None:
        """Until the catalog has a healthy instance on each of these ports."""

        def registered() -> bool:
            endpoints = msgspec.json.decode(self._get("/v1/endpoints"), type=views.Endpoints).endpoints
            return set(ports) <= {endpoint.port for endpoint in endpoints if endpoint.health.upper() == "HEALTHY"}

        self.wait(registered, f"instances on the ports {ports} to register at {self.admin}")

    def wait_synced(self, revision: int) -> None:
        """Until every client has confirmed `revision`."""

        def synced() -> bool:
            status = msgspec.json.decode(self._get("/v1/status"), type=views.Status)
            states = {sync.state for client in status.clients for sync in client.types.values()}
            return status.control.revision >= revision and bool(status.clients) and not states & {"STALE", "NACK"}

        self.wait(synced, f"every client to confirm revision {revision}", SYNC_TIMEOUT)

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
    return Command(
        arguments=[sys.executable, "-m", "meshlib_control", *words],
        environment={},
        shown=shlex.join([installed("meshctl"), *map(relative, words)]),
    )
