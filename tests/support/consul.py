"""A real Consul agent on loopback, all of its ports ephemeral, its data in a temporary directory.

    with ConsulAgent(tools.consul(), tmp_path) as agent:
        open_store(agent.url("some-prefix"))

or the fixtures: `consul_agent` (one for the test session; use a prefix or service name of your own) and `own_consul`
(one for this test alone, which may kill, restart or wipe it).
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.support import tools

START_TIMEOUT = 60.0


class ConsulAgent:
    """A development server: memory only, leader of itself.  `restart` comes back on the same ports, and empty."""

    def __init__(self, binary: Path, directory: Path) -> None:
        self._binary = binary
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.http_port = 0
        self._ports: list[int] = []

    def __enter__(self) -> ConsulAgent:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    @property
    def log(self) -> Path:
        return self._directory / "consul.log"

    def url(self, prefix: str = "", **options: str) -> str:
        """As `open_store` takes it."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"consul://127.0.0.1:{self.http_port}/{prefix}" + (f"?{query}" if query else "")

    def start(self) -> None:
        """Start and wait for a leader.  A port that somebody else took in the meantime is replaced by another."""
        for _ in range(5):
            if not self._ports:
                self._ports = _free_ports(3)
            self.http_port = self._ports[0]
            self._spawn()
            if self._led():
                return
            self.kill()
            self._ports = []
        raise RuntimeError(f"Consul does not start; its log ends with:\n{self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()

    def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and decoded body of one call to the HTTP API; `bytes` are sent as they are, anything else as JSON."""
        sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data=sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                content = response.read()
                return response.status, json.loads(content) if content else None
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def register(self, name: str, port: int, **more: Any) -> str:
        """Register a service with the agent; returns its id.  `more`: ID, Address, Tags, Meta, Weights, Check ..."""
        service = {"Name": name, "Port": port, "Address": "127.0.0.1", "ID": f"{name}-{port}", **more}
        status, answer = self.request("PUT", "/v1/agent/service/register", service)
        assert status == 200, answer
        return str(service["ID"])

    def deregister(self, service_id: str) -> None:
        status, answer = self.request("PUT", f"/v1/agent/service/deregister/{service_id}")
        assert status == 200, answer

    def _spawn(self) -> None:
        http, serf, server = self._ports
        arguments = ["agent", "-dev", "-node", "loopback", "-bind", "127.0.0.1", "-client", "127.0.0.1"]
        arguments += ["-http-port", str(http), "-serf-lan-port", str(serf), "-server-port", str(server)]
        arguments += ["-serf-wan-port", "-1", "-dns-port", "-1", "-grpc-port", "-1", "-log-level", "warn"]
        # Its own limit of 200 connections a client is for agents that strangers can reach.
        arguments += ["-hcl", "limits { http_max_conns_per_client = 2000 }", "-disable-host-node-id"]
        self._directory.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, *arguments], cwd=self._directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _led(self) -> bool:
        """True once the agent leads and takes writes; False when it ended instead."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                return False
            try:
                if self.request("PUT", "/v1/kv/started", b"1")[0] == 200 and self.request("GET", "/v1/catalog/nodes")[1]:
                    return True
            except OSError:
                pass
            time.sleep(0.05)
        return False


def _free_ports(count: int) -> list[int]:
    # Held together, so that they differ.
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@pytest.fixture(scope="session")
def consul_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulAgent]:
    with ConsulAgent(tools.consul(), tmp_path_factory.mktemp("consul")) as agent:
        yield agent


@pytest.fixture
def own_consul(tmp_path: Path) -> Iterator[ConsulAgent]:
    with ConsulAgent(tools.consul(), tmp_path / "consul") as agent:
        yield agent
