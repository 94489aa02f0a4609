"""Many configurations in one Envoy: a listener for each, with the routes, clusters and endpoints of the envoy flavour."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from google.protobuf.message import Message

from meshlib.xds.proto import core_pb2, listener_pb2, route_pb2
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE, pack
from meshlib_control.compile import Node, World, generate, scope_of
from meshlib_control.compile.listeners import PROXY_LISTENER
from meshlib_control.compile.names import BLOCK_ALL, HTTP_PROXY, PASSTHROUGH
from tests.support import ads, envoy
from tests.support.routing.cases import Case
from tests.support.routing.decisions import BLOCKED, OUTSIDE, REFUSED, Decision, answered, forwarded
from tests.support.routing.sites import NUMBER, Sites

_CHOSEN = (
    ("x-chosen-route", "%ROUTE_NAME%"),
    ("x-chosen-cluster", "%UPSTREAM_CLUSTER%"),
    ("x-chosen-flags", "%RESPONSE_FLAGS%"),
)
"""By these headers Envoy says what it has decided; nothing else of what was compiled is changed."""

AT_ONCE = 8


class Envoys:
    """Resources of many configurations as one set.  Hosts of different ones differ, so that their clusters do."""

    def __init__(self, cases: Mapping[int, Case]) -> None:
        self._resources: dict[str, dict[str, Message]] = {LISTENER: {}, ROUTE: {}, CLUSTER: {}, ENDPOINTS: {}}
        for index, case in cases.items():
            self._add(str(index), case.world, case.node("envoy"))

    def _add(self, index: str, world: World, node: Node) -> None:
        scope = scope_of(world, node)
        (listener,) = generate(world, scope, LISTENER).values()
        assert isinstance(listener, listener_pb2.Listener)
        listener.name = f"{PROXY_LISTENER}/{index}"
        listener.address.socket_address.port_value = 0
        config = listener.filter_chains[0].filters[0].typed_config
        manager = listener_pb2.HttpConnectionManager.FromString(config.value)
        manager.rds.route_config_name = f"{HTTP_PROXY}/{index}"
        manager.MergeFromString(_local_reply_config())
        config.CopyFrom(pack(manager))
        self._resources[LISTENER][listener.name] = listener
        (routes,) = generate(world, scope, ROUTE).values()
        assert isinstance(routes, route_pb2.RouteConfiguration)
        routes.name = f"{HTTP_PROXY}/{index}"
        for host in routes.virtual_hosts:
            for name, value in _CHOSEN:
                host.response_headers_to_add.add(header=core_pb2.HeaderValue(key=name, value=value))
        self._resources[ROUTE][routes.name] = routes
        for kind in (CLUSTER, ENDPOINTS):
            self._resources[kind] |= generate(world, scope, kind)

    def __call__(self, type_url: str, names: Collection[str] | None) -> dict[str, Message]:
        found = self._resources.get(type_url, {})
        return found if names is None else {name: found[name] for name in names if name in found}


@contextmanager
def running(cases: Mapping[int, Case], folder: Path) -> Iterator[dict[int, int]]:
    """The port of each configuration, by its index."""
    with ads.serving(Envoys(cases)) as control, envoy.running(envoy.ads_bootstrap(control.port), folder) as process:
        process.until(lambda: control.nacks or control.acked >= {LISTENER, ROUTE, CLUSTER, ENDPOINTS}, "answers")
        assert control.nacks == []
        yield process.until(lambda: _ports(process, cases.keys()), "listeners")


def _ports(process: envoy.Envoy, wanted: Collection[int]) -> dict[int, int]:
    statuses = process.get("/listeners?format=json").json().get("listener_statuses", [])
    found = {
        int(status["name"].rpartition("/")[2]): int(status["local_address"]["socket_address"]["port_value"])
        for status in statuses
        if status["name"].startswith(PROXY_LISTENER)
    }
    return found if found.keys() >= set(wanted) else {}


async def decisions(ports: Mapping[int, int], cases: Mapping[int, Case], sites: Sites) -> dict[int, list[Decision]]:
    """Each configuration's requests one after the other, some configurations at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(index: int) -> list[Decision]:
        async with gate:
            case, connection = cases[index], _Connection(ports[index])
            try:
                return [
                    _decision(case, await connection.ask(case, n), case.number("e", n), sites)
                    for n in range(len(case.requests))
                ]
            finally:
                connection.close()

    async with asyncio.timeout(600):
        found = await asyncio.gather(*(one(index) for index in cases))
    return dict(zip(cases, found, strict=True))


_Response = tuple[int, list[tuple[str, str]], bytes]


def _decision(case: Case, response: _Response, number: str, sites: Sites) -> Decision:
    status, headers, body = response
    chosen = {name: value for name, value in reversed(headers) if name.startswith("x-chosen-")}
    kept = [pair for pair in headers if not pair[0].startswith("x-chosen-")]
    route, cluster, flags = (chosen.get(name, "") for name, _ in _CHOSEN)
    arrived = sites.request(number)
    if arrived is not None:
        place = case.configuration.place(arrived.address, cluster)
        return forwarded(arrived, route, cluster, place=place, status=status, headers=kept)
    if cluster == PASSTHROUGH or cluster in case.anywhere:
        return Decision(OUTSIDE)
    if route == BLOCK_ALL:
        return Decision(BLOCKED)
    for flag in ("NR", "NC", "UH"):
        if flag in flags.split(","):
            return Decision(flag, route)
    if not route:
        return Decision(REFUSED)
    return answered(route, status=status, headers=kept, body=body)


class _Connection:
    """To one listener; opened again when Envoy has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, case: Case, place: int) -> _Response:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        request = case.requests[place]
        lines = [
            f"{request.method} {request.target} HTTP/1.1",
            f"host: {request.authority}",
            f"{NUMBER}: {case.number('e', place)}",
        ]
        lines += [f"{name}: {value}" for name, value in request.headers]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in rest)]
        known = dict(headers)
        status = int(first.split(" ")[1])
        length = int(known.get("content-length", 0)) if request.method != "HEAD" and status not in (204, 304) else 0
        body = await reader.readexactly(length)
        if known.get("connection") == "close":
            self.close()
        return status, headers, body

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _local_reply_config() -> bytes:
    """HttpConnectionManager.local_reply_config, which our listeners do not have: the same headers where Envoy answers."""
    options = b"".join(_field(5, _field(1, _field(1, name.encode()) + _field(2, value.encode()))) for name, value in _CHOSEN)
    mappers = _field(1, _field(1, _field(3, b"")) + options)  # ResponseMapper: filter (not_health_check_filter), headers_to_add
    return _field(38, mappers)


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field on the wire."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes((*found, value))
