"""Real Envoy as a process of a test: started with a bootstrap, watched through its admin port, stopped."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import httpx

from tests.support import tools

T = TypeVar("T")

DEADLINE = 30.0
"""Seconds to wait for anything: generous, since the machine may be busy."""


@dataclass(frozen=True)
class Envoy:
    """A running Envoy.  `admin`: ``http://127.0.0.1:PORT``; `log`: what it wrote to stderr."""

    admin: str
    process: subprocess.Popen[bytes]
    log: Path

    def get(self, path: str) -> httpx.Response:
        with httpx.Client(trust_env=False, timeout=10.0) as client:
            return client.get(self.admin + path)

    def listener_port(self, name: str) -> int:
        """The port that a listener is bound to, once it is there (it may have asked for port 0)."""

        def port() -> int:
            statuses = self.get("/listeners?format=json").json().get("listener_statuses", [])
            for status in statuses:
                if status["name"] == name:
                    return int(status["local_address"]["socket_address"]["port_value"])
            return 0

        return self.until(port, f"a listener named {name}")

    def until(self, check: Callable[[], T], what: str) -> T:
        """The first truthy result of `check()`; fails with Envoy's log after `DEADLINE`."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"Envoy ended with {self.process.returncode}:\n{self.tail()}")
            if result := check():
                return result
            time.sleep(0.05)
        raise AssertionError(f"no {what} within {DEADLINE:g} s; Envoy says:\n{self.tail()}")

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def stat(self, name: str) -> int:
        """One counter or gauge; 0 when it does not exist (yet)."""
        for line in self.get(f"/stats?filter=^{name}$").text.splitlines():
            key, _, value = line.partition(": ")
            if key == name:
                return int(value)
        return 0


@contextmanager
def running(bootstrap: Mapping[str, Any], folder: Path) -> Iterator[Envoy]:
    """Envoy with this bootstrap (without `admin`, which is added with a free port) until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    config, address, log = folder / "envoy.json", folder / "admin-address", folder / "envoy.log"
    config.write_text(json.dumps({**bootstrap, "admin": {"address": _socket_address("127.0.0.1", 0)}}))
    command = [str(tools.envoy()), "-c", str(config), "--disable-hot-restart", "--concurrency", "1"]
    command += ["--admin-address-path", str(address), "--log-level", "warning"]
    with log.open("wb") as stderr, _started(command, stderr) as process:
        envoy = Envoy("", process, log)
        where = envoy.until(lambda: address.exists() and address.read_text().strip(), "admin address")
        yield Envoy(f"http://{where}", process, log)


@contextmanager
def _started(command: list[str], stderr: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def ads_bootstrap(ads_port: int, *, node_id: str = "envoy-1", delta: bool = False) -> dict[str, Any]:
    """Everything dynamic, over one ADS stream to a server without TLS on this machine."""
    source = {"ads": {}, "resource_api_version": "V3"}
    http2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "node": {"id": node_id, "cluster": "test"},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC" if delta else "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
            "cds_config": source,
            "lds_config": source,
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "xds",
                    "type": "STATIC",
                    "connect_timeout": "5s",
                    "typed_extension_protocol_options": {
                        http2: {
                            "@type": f"type.googleapis.com/{http2}",
                            "explicit_http_config": {"http2_protocol_options": {}},
                        }
                    },
                    "load_assignment": {
                        "cluster_name": "xds",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _socket_address("127.0.0.1", ads_port)}}]}],
                    },
                }
            ]
        },
    }


def _socket_address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
