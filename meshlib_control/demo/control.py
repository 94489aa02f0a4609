"""A control service of the demo's own, and what an operator does with it."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx
import msgspec

from meshlib_control.admin import views
from meshlib_control.admin.authority_views import BundleView, TokenCreated, TokenRequest
from meshlib_control.demo.processes import Command, DemoFailed, ProcessGroup, Running, free_ports, installed, program, relative

START_TIMEOUT = 60.0  # seconds for a process to be ready
SYNC_TIMEOUT = 40.0  # seconds for a change to reach every client
Pause = Callable[[float], None]
Show = Callable[[str], None]
T = TypeVar("T")


class ControlService:
    """`meshctl serve` as a process, with a certificate authority.

    `show` gets every command as it is run, in the form in which people repeat it; `pause` is how time passes while something
    is awaited.
    """

    def __init__(self, group: ProcessGroup, *, show: Show, pause: Pause = time.sleep) -> None:
        self.xds = ""  # host:port
        self.ca = ""  # host:port
        self.admin = ""  # URL
        self.consul = ""  # URL of the agent, if there is one
        self.pause = pause
        self._group = group
        self._show = show
        self._data = group.folder / "control"
        self._bundle = group.folder / "ca.pem"
        self._store = ["--data", str(self._data)]
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
        key = private_file(self._group.folder / "ca.key", base64.b64encode(secrets.token_bytes(32)).decode())
        self._store += ["--store", f"consul://127.0.0.1:{http}", "--ca-key", f"file:{key}"]

    def start(self) -> None:
        """Start it; again on the ports that it had before."""
        places = (("--listen", self.xds), ("--ca-listen", self.ca), ("--admin", self.admin.removeprefix("http://")))
        ports = [word for option, place in places for word in (option, place or "127.0.0.1:0")]
        options = [*ports, *self._store]
        self._show(meshctl("serve", *options).shown)
        self._process = self._group.start("control", meshctl("serve", *options, "-o", "json", "--log-level", "warning"))
        addresses = json.loads(self._process.first_line(START_TIMEOUT))
        self.xds, self.ca, self.admin = addresses["xds"], addresses["ca"], addresses["admin"]
        self._api.headers["authorization"] = f"Bearer {self._token_file.read_text().strip()}"

    @property
    def _token_file(self) -> Path:
        """What its REST API asks for."""
        return self._data / "admin-token"

    @property
    def operator(self) -> dict[str, str]:
        """The environment of `meshctl`."""
        return {"MESHCTL_SERVER": self.admin, "MESHCTL_TOKEN_FILE": str(self._token_file)}

    @property
    def workload(self) -> dict[str, str]:
        """The environment that all of the mesh's processes have in common."""
        return {"MESHLIB_CONTROL": self.xds, "MESHLIB_CA": self.ca, "MESHLIB_CA_FILE": str(self._bundle)}

    @property
    def bundle(self) -> str:
        """The root certificates (PEM) that there are now."""
        return self.get("/v1/ca/bundle", BundleView).pem

    # What follows meshctl does by the same API.  As processes of their own, that many commands would slow the start down.

    def save_bundle(self) -> None:
        """By its root certificate new processes know the authority: this file has to reach their machines unharmed."""
        self._show(f"{meshctl('ca', 'bundle').shown} > {shlex.quote(str(self._bundle))}")
        self._bundle.write_text(self.bundle)

    def join_token(self, service: str, file: Path, *, shown: bool = True) -> Path:
        """`file`, with a token by which one process becomes `service`."""
        if shown:
            self._show(f"{meshctl('token', 'create', '--service', service).shown} > {shlex.quote(str(file))}")
        return private_file(file, self._post("/v1/tokens", TokenRequest(service), TokenCreated).token)

    def restart(self, *, away: float) -> None:
        """Stop it, leave it away for `away` seconds, start it again; returns when all of its clients are back.

        They come back when their backoff says so, some seconds after it.  Until then they have what they had, and a change made
        meanwhile would not reach them: nobody could say when every client has it.
        """
        assert self._process is not None
        clients = self._clients()
        self._show(f"kill {self._process.pid}")
        self._group.stop(self._process)
        self.pause(away)
        self.start()
        self.wait(lambda: clients <= self._clients(), f"all clients to connect again to {self.xds}", SYNC_TIMEOUT)

    def meshctl(self, *words: str, form: str = "json", codes: tuple[int, ...] = (0,)) -> str:
        """Run a meshctl command; its answer.  Raises `DemoFailed` if it exits with another code than these."""
        self._show(meshctl(*words).shown)
        command = meshctl(*words, "-o", form)
        self._runs += 1
        environment = {"COLUMNS": "200", "NO_COLOR": "1", **self.operator}
        running = self._group.start(f"meshctl-{self._runs}", command, environment=environment)
        code = self._group.ended(running, pause=self.pause)
        if code not in codes:
            raise DemoFailed(f"{command.shown} exited with {code}:\n{running.tail()}")
        return running.out.read_text()

    def change(self, *words: str) -> views.Applied:
        """Run a meshctl command that changes the configuration; returns when every client has confirmed what it did."""
        applied = msgspec.json.decode(self.meshctl(*words), type=views.Applied)
        self.wait_synced(applied.revision)
        return applied

    def status(self) -> views.Status:
        """Who is connected, and what they have."""
        return self.get("/v1/status", views.Status)

    def _clients(self) -> set[str]:
        """The ids of those who are connected."""
        return {client.id for client in self.status().clients}

    def head(self) -> int:
        """The newest revision of the configuration."""
        return self.get("/v1/revisions", views.History).head

    def configured(self) -> set[str]:
        """The names of all resources, as in ``VirtualService/default/reviews``."""
        return {item.resource for item in self.get("/v1/config", views.Listing).items}

    def wait_registered(self, *ports: int) -> None:
        """Until the catalog has a healthy instance on each of these ports."""

        def registered() -> bool:
            endpoints = self.get("/v1/endpoints", views.Endpoints).endpoints
            return set(ports) <= {endpoint.port for endpoint in endpoints if endpoint.health.upper() == "HEALTHY"}

        self.wait(registered, f"instances on the ports {ports} to register at {self.admin}")

    def wait_synced(self, revision: int) -> None:
        """Until every client, if there is any yet, has confirmed `revision`."""

        def synced() -> bool:
            status = self.status()
            states = {sync.state for client in status.clients for sync in client.types.values()}
            return status.control.revision >= revision and not states & {"STALE", "NACK"}

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
            self.pause(0.05)
        raise DemoFailed(f"waited {timeout:g} s in vain for {what}")

    def get(self, path: str, answer: type[T]) -> T:
        """Ask the REST API, as meshctl does."""
        return self._answered(self._api.get(self.admin + path), answer)

    def _post(self, path: str, body: object, answer: type[T]) -> T:
        content = msgspec.json.encode(body)
        return self._answered(
            self._api.post(self.admin + path, content=content, headers={"content-type": "application/json"}), answer
        )

    def _answered(self, response: httpx.Response, answer: type[T]) -> T:
        return msgspec.json.decode(response.raise_for_status().content, type=answer)


def private_file(path: Path, text: str) -> Path:
    """Written, for this user alone."""
    with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    return path


def meshctl(*words: str) -> Command:
    """Meshctl by this interpreter, shown as people type it here, with paths below the current folder made relative."""
    return Command(
        arguments=[sys.executable, "-m", "meshlib_control", *words],
        environment={},
        shown=shlex.join([installed("meshctl"), *map(relative, words)]),
    )
