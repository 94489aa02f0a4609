"""Which endpoint is chosen: by a real Envoy, and by meshlib's flow from the very same documents.

Endpoints are addresses of 127.0.0.0/8 on a few ports; who listens on a port answers with its letter, so thousands of choices
take a second.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from meshlib.flow.client import client_flow
from meshlib.flow.commands import Attempt, Sleep
from meshlib.flow.destination import Destination
from meshlib.flow.record import CallRecord
from meshlib.flow.served import Served
from meshlib.flow.upstream import Upstream
from meshlib.model.call import Call
from meshlib.model.cluster import Cluster
from meshlib.model.outcome import Outcome
from meshlib.model.route import RouteConfig
from meshlib.model.snapshot import ClusterConfig, Target
from meshlib.policy.balancing import UNPLACED, Place
from meshlib.xds.decode import decode
from meshlib.xds.json import from_json
from meshlib.xds.types import CLUSTER, ENVOY_NAMES, PREFIX, ROUTE
from tests.support import envoy

Document = dict[str, Any]
Request = tuple[str, Sequence[tuple[str, str]]]
"""Target and headers."""

CONNECTIONS = 4
LISTENER = "choosing"


class _Named(asyncio.Protocol):
    """Answers each request, as fast as can be, with one letter; those of small letters fail."""

    def __init__(self, letter: str) -> None:
        self._answer = f"HTTP/1.1 {status_of(letter)} x\r\ncontent-length: 1\r\n\r\n{letter}".encode()
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *heads, self._rest = (self._rest + data).split(b"\r\n\r\n")
        self._transport.write(self._answer * len(heads))


def status_of(letter: str) -> int:
    return 503 if letter.islower() else 200


@contextmanager
def servers(letters: str) -> Iterator[dict[str, int]]:
    """A port of all loopback addresses for each letter."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def listen() -> list[asyncio.Server]:
        return [await loop.create_server(lambda letter=letter: _Named(letter), "0.0.0.0", 0) for letter in letters]  # type: ignore[misc]

    async def stop(running: list[asyncio.Server]) -> None:
        for server in running:
            server.close()
        await asyncio.sleep(0)

    running = asyncio.run_coroutine_threadsafe(listen(), loop).result(10)
    try:
        yield {letter: server.sockets[0].getsockname()[1] for letter, server in zip(letters, running, strict=True)}
    finally:
        asyncio.run_coroutine_threadsafe(stop(running), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def endpoint(port: int, address: str = "127.0.0.1", *, hash_key: str = "", **fields: Any) -> Document:
    if hash_key:
        fields["metadata"] = {"filter_metadata": {"envoy.lb": {"hash_key": hash_key}}}
    return {"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}, **fields}


def cluster(name: str, *groups: Document, **fields: Any) -> Document:
    """`groups`: LocalityLbEndpoints; other fields are the cluster's."""
    policy = fields.pop("policy", None)
    assignment: Document = {"cluster_name": name, "endpoints": list(groups)}
    if policy is not None:
        assignment["policy"] = policy
    return {"name": name, "type": "STATIC", "connect_timeout": "5s", "load_assignment": assignment, **fields}


def group(*endpoints: Document, **fields: Any) -> Document:
    return {"lb_endpoints": list(endpoints), **fields}


def routes(by_path: Mapping[str, Document]) -> Document:
    """By the first segment of the path: an action, or the name of the cluster that it goes to."""
    items = [{"match": {"path_separated_prefix": f"/{name}"}, **action} for name, action in by_path.items()]
    return {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": items}]}


@contextmanager
def running(clusters: Sequence[Document], config: Document, folder: Path, **more: Any) -> Iterator[int]:
    """Envoy with these; the port to ask.  `more`: of the bootstrap."""
    http = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{http}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "s",
        "route_config": config,
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{http}.http.router.v3.Router"}}],
    }
    listener = {
        "name": LISTENER,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
    }
    bootstrap = {"static_resources": {"listeners": [listener], "clusters": list(clusters)}, **more}
    with envoy.running(bootstrap, folder) as process:
        yield process.listener_port(LISTENER)


def through_envoy(port: int, requests: Sequence[Request]) -> list[str]:
    """The body of each answer: the letter of the endpoint, or what Envoy says when there is none."""
    return [body for _, body in answers(port, requests)]


def answers(port: int, requests: Sequence[Request]) -> list[tuple[bytes, str]]:
    """Heads and bodies; requests are sent without waiting for answers, over a few connections."""
    return asyncio.run(_answers(port, requests))


async def _answers(port: int, requests: Sequence[Request]) -> list[tuple[bytes, str]]:
    parts = [requests[start::CONNECTIONS] for start in range(CONNECTIONS)]
    async with asyncio.timeout(90):
        found = await asyncio.gather(*(_converse(port, part) for part in parts if part))
    merged: list[tuple[bytes, str]] = [(b"", "")] * len(requests)
    for start, part in enumerate(found):
        merged[start::CONNECTIONS] = part
    return merged


async def _converse(port: int, requests: Sequence[Request]) -> list[tuple[bytes, str]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send() -> None:
        for start in range(0, len(requests), 200):
            writer.write(b"".join(_encoded(request) for request in requests[start : start + 200]))
            await writer.drain()

    sending = asyncio.create_task(send())
    found = []
    for _ in requests:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        found.append((head, (await reader.readexactly(length)).decode()))
    await sending
    writer.close()
    await writer.wait_closed()
    return found


def _encoded(request: Request) -> bytes:
    target, headers = request
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"GET {target} HTTP/1.1\r\nhost: reviews\r\n{lines}\r\n".encode()


class Chooser:
    """meshlib's side, from the same documents."""

    def __init__(
        self, clusters: Sequence[Document], config: Document, ports: Mapping[str, int], *, place: Place = UNPLACED
    ) -> None:
        self.rng = random.Random(1)
        self._letters = {port: letter for letter, port in ports.items()}
        configs = {}
        for document in clusters:
            name, found = decode(CLUSTER, _bytes("Cluster", document))
            assert isinstance(found, Cluster)
            configs[name] = ClusterConfig(name, found, found.endpoints, overprovisioning_factor=found.overprovisioning_factor)
        _, routing = decode(ROUTE, _bytes("RouteConfiguration", config))
        assert isinstance(routing, RouteConfig)
        self.upstreams = {name: Upstream(name, place) for name in configs}
        for name, each in configs.items():
            self.upstreams[name].update(each, self.rng)
        target = Target("reviews:80", routing.virtual_hosts[0], configs, routing)
        self._destination = Destination(target, self.upstreams, address="127.0.0.1")

    def choose(self, request: Request) -> str:
        """The letter of the endpoint, the last one if there are several tries."""
        return self._call(request)[0]

    def cookies(self, request: Request) -> list[str]:
        """What the response sets."""
        headers = self._call(request)[1].headers or ()
        return [value.decode() for name, value in headers if name == b"set-cookie"]

    def _call(self, request: Request) -> tuple[str, Served]:
        target, headers = request
        call = Call("GET", "reviews:80", target, [(name.encode(), value.encode()) for name, value in headers], host="reviews")
        flow = client_flow(call, self._destination, CallRecord("reviews:80", 0.0), self.rng)
        letter = ""
        command = next(flow)
        try:
            while True:
                if isinstance(command, Sleep):
                    command = flow.send(0.0)
                    continue
                assert isinstance(command, Attempt)
                letter = self._letters[command.host.endpoint.port]
                command = flow.send(Outcome(0.0, status=status_of(letter), complete=True))
        except StopIteration as stop:
            served: Served = stop.value
            return letter, served


def _bytes(kind: str, document: Document) -> bytes:
    return from_json({"@type": PREFIX + ENVOY_NAMES[kind], **document}).SerializeToString()
