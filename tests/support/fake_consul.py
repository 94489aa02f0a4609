"""A Consul made for misbehaving: HTTP with blocking queries, whose index, leader and contents a test forces.

async with FakeConsul() as consul:
    consul.serve("reviews", [consul.instance("reviews", 9080)])
    client = ConsulClient(parse_consul_url(consul.url))
    consul.forced_index = 1          # backwards
    consul.instant = True            # answers at once, whatever index it is asked with
    consul.leader = False            # 500 "No cluster leader", but for stale reads
    consul.wipe()                    # empty lists, index 1
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass(frozen=True)
class Request:
    """What arrived; `at` on the loop's clock."""

    at: float
    method: str
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


class FakeConsul:
    """Runs on the test's own loop.  Every attribute may be set at any time; call `wake` to release waiting queries."""

    def __init__(self) -> None:
        self.index = 10
        self.forced_index: int | None = None
        self.instant = False
        self.stuck = False  # contents change, the index does not, and nobody is woken
        self.hold = 0.0  # seconds on top of what a query asks for
        self.leader = True
        self.stale_reads = True  # whether stale reads are answered without a leader
        self.last_contact = 0  # milliseconds, of stale reads
        self.status: int | None = None  # answer everything with this status
        self.raw: bytes | None = None  # answer everything with this body
        self.services: dict[str, list[str]] = {"consul": []}
        self.health: dict[str, list[dict[str, Any]]] = {}
        self.pairs: dict[str, tuple[bytes, int]] = {}
        self.requests: list[Request] = []
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> FakeConsul:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse and cut all connections; `start(port)` brings it back."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"consul://127.0.0.1:{self.port}"

    @staticmethod
    def instance(name: str, port: int, **service: Any) -> dict[str, Any]:
        """One entry of /v1/health/service, passing; `service` overrides fields of its Service."""
        return {
            "Node": {"Node": "n1", "Address": "127.0.0.1", "Datacenter": "dc1", "Meta": {}},
            "Service": {
                "ID": f"{name}-{port}",
                "Service": name,
                "Address": "127.0.0.1",
                "Port": port,
                "Tags": [],
                "Meta": {},
                "Weights": {"Passing": 1, "Warning": 1},
                **service,
            },
            "Checks": [{"CheckID": "serfHealth", "Status": "passing"}],
        }

    def serve(self, name: str, entries: list[dict[str, Any]]) -> None:
        self.services[name] = sorted({tag for entry in entries for tag in entry["Service"]["Tags"]})
        self.health[name] = entries
        self._bump()

    def store(self, key: str, value: bytes) -> None:
        self.index += 1
        self.pairs[key] = (value, self.index)
        self._bump()

    def wipe(self) -> None:
        """All is gone, and the index begins anew."""
        self.services, self.health, self.pairs, self.index = {"consul": []}, {}, {}, 0
        self._bump()

    def wake(self) -> None:
        woken, self._changed = self._changed, asyncio.Event()
        woken.set()

    def asked(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path.startswith(path)]

    def _bump(self) -> None:
        if not self.stuck:
            self.index += 1
            self.wake()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while True:
                request = await _read(reader)
                self.requests.append(request)
                status, headers, body = await self._answer(request)
                writer.write(_response(status, headers, body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        await self._block(request)
        await asyncio.sleep(self.hold)
        if self.status is not None:
            return self.status, {}, b"forced"
        if self.raw is not None:
            return 200, self._headers(), self.raw
        stale = "stale" in request.params
        if not self.leader and not (stale and self.stale_reads):
            return 500, {}, b"No cluster leader"
        status, content = self._content(request)
        return status, self._headers(stale=stale), json.dumps(content).encode() if status == 200 else b""

    async def _block(self, request: Request) -> None:
        asked = int(request.params.get("index", "0"))
        seconds = float(request.params.get("wait", "300s").removesuffix("s"))
        if asked and not self.instant and asked >= self.index:
            changed = self._changed
            try:
                await asyncio.wait_for(changed.wait(), seconds)
            except TimeoutError:
                pass

    def _headers(self, *, stale: bool = False) -> dict[str, str]:
        index = self.index if self.forced_index is None else self.forced_index
        contact = self.last_contact if stale else 0
        leader = "true" if self.leader else "false"
        return {"X-Consul-Index": str(index), "X-Consul-LastContact": str(contact), "X-Consul-KnownLeader": leader}

    def _content(self, request: Request) -> tuple[int, object]:
        path = request.path
        if path == "/v1/catalog/services":
            return 200, self.services
        if path.startswith("/v1/health/service/"):
            return 200, self.health.get(path.rpartition("/")[2], [])
        if path.startswith("/v1/kv/"):
            prefix = path.removeprefix("/v1/kv/")
            found = [_pair(key, *pair) for key, pair in sorted(self.pairs.items()) if key.startswith(prefix)]
            return (200, found) if found else (404, None)
        return 404, None


def _pair(key: str, value: bytes, index: int) -> dict[str, object]:
    return {"Key": key, "Value": base64.b64encode(value).decode(), "ModifyIndex": index, "CreateIndex": index}


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    line, *fields = head.strip().split("\r\n")
    headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    method, target, _ = line.split(" ")
    parts = urlsplit(target)
    params = dict(parse_qsl(parts.query, keep_blank_values=True))
    return Request(asyncio.get_running_loop().time(), method, unquote(parts.path), params, headers, body)


def _response(status: int, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [f"HTTP/1.1 {status} Forced", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body
