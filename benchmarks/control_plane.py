"""One control process, many clients: how fast a change reaches all of them, what it costs, how long a resync takes.

    python -m benchmarks.control_plane                        the figures of the README: 1,000 clients, 1,000 services x 20
    python -m benchmarks.control_plane --clients 100 --services 100 --json figures.json

Clients are raw delta ADS streams, each on a connection of its own, subscribed to all four types of `--subscriptions`
services; they run in a process of their own and ACK like real ones.  Server and clients share the machine, so with two
cores each has about one.  Latency counts from the end of the debounce to the client having read the response.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import grpc
import grpc.aio

import meshlib_control.compile as compiler
from benchmarks.harness import Ratio, report
from meshlib.model.workload import Workload
from meshlib.runtime.channel import OPTIONS
from meshlib.xds.node import node_message
from meshlib.xds.proto.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from meshlib.xds.types import ADS_DELTA, CLUSTER, ENDPOINTS, LISTENER, ROUTE
from meshlib_control.app import collect_rarely
from meshlib_control.catalog.model import CatalogSnapshot, Instance, Port, Service, registered_host
from meshlib_control.compile import World
from meshlib_control.compile.node import Node
from meshlib_control.config.model import ConfigSet
from meshlib_control.serve.ads import DiscoveryService
from meshlib_control.serve.push import Debounce
from meshlib_control.serve.server import GrpcServer

QUIET = 0.1
TYPES = (CLUSTER, ENDPOINTS, LISTENER, ROUTE)
CHANGED = 0  # the service whose endpoint changes


@dataclass(frozen=True)
class Figures:
    """Seconds and megabytes."""

    clients: int
    services: int
    endpoints: int
    subscriptions: int
    first_sync: float  # all clients connected and have everything, from nothing
    change_p50: float
    change_p99: float
    change_max: float
    server_cpu_per_change: float
    server_rss: float
    server_rss_peak: float
    resync: float  # after a restart: from the new process listening to every client having the one resource that changed
    resync_bytes_per_client: float
    restarted_rss: float
    restarted_rss_peak: float


# --- the server's process


def build_world(services: int, endpoints: int, *, moved: int, previous: World | None = None) -> World:
    """`moved` is the port of one endpoint of service `CHANGED`."""
    known, instances = {}, {}
    for number in range(services):
        host = registered_host(f"service-{number}", "default")
        known[host] = Service(host, "default", (Port(80),))
        instances[host] = tuple(
            Instance(f"{number}-{index}", f"10.{number // 250}.{number % 250}.{index + 1}", 8080) for index in range(endpoints)
        )
    host = registered_host(f"service-{CHANGED}", "default")
    instances[host] = (*instances[host][1:], Instance("moved", "10.200.0.1", moved))
    config = previous.routing.config if previous is not None else ConfigSet()
    return World.of(config, CatalogSnapshot(known, instances), previous=previous)


def memory() -> tuple[float, float]:
    """Resident megabytes now and at most."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) / 1024, int(status["VmHWM"].split()[0]) / 1024


async def serve(port: int, services: int, endpoints: int, moved: int) -> None:
    """Commands on stdin, one JSON answer each on stdout."""
    world = build_world(services, endpoints, moved=moved)
    # Settling would hold back what the restarted server does not know; it knows everything.
    service = DiscoveryService(compiler, world, debounce=Debounce(QUIET), settle=0.0)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    async with service:
        server = GrpcServer([service.handler()])
        address = await server.start(f"127.0.0.1:{port}")
        collect_rarely()
        answer({"port": address})
        while command := (await commands.readline()).split():
            if command[0] == b"names":
                scope = compiler.scope_of(world, Node())
                answer({type_url: list(compiler.generate(world, scope, type_url)) for type_url in TYPES})
            elif command[0] == b"change":
                world = build_world(services, endpoints, moved=int(command[1]), previous=world)
                cpu = time.process_time()
                service.publish(world)
                answer({"published": time.monotonic(), "cpu": cpu})
            elif command[0] == b"cpu":
                answer({"cpu": time.process_time()})
            elif command[0] == b"status":
                clients = service.status().clients
                settled = sum(all(kind.state == "SYNCED" for kind in client.types.values()) for client in clients)
                rss, peak = memory()
                answer({"clients": len(clients), "settled": settled, "cpu": time.process_time(), "rss": rss, "peak": peak})


def answer(document: object) -> None:
    print(json.dumps(document), flush=True)


class ServerProcess:
    """One control process."""

    def __init__(self, options: argparse.Namespace, *, port: int = 0, moved: int = 9000) -> None:
        arguments = [str(number) for number in (port, options.services, options.endpoints, moved)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.control_plane", "--serve", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._read()["port"])

    def do(self, command: str) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._read()

    async def ask(self, command: str) -> dict[str, float]:
        return await asyncio.to_thread(self.do, command)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _read(self) -> dict[str, float]:
        assert self._process.stdout is not None
        found: dict[str, float] = json.loads(self._process.stdout.readline())
        return found


# --- the clients


def first_requests(names: dict[str, list[str]], versions: dict[tuple[str, str], str]) -> list[bytes]:
    """One for each type, without the node: what all clients have in common is made once, as they are one process here."""
    return [
        DeltaDiscoveryRequest(
            type_url=type_url,
            resource_names_subscribe=names[type_url],
            initial_resource_versions={
                name: versions[type_url, name] for name in names[type_url] if (type_url, name) in versions
            },
        ).SerializeToString()
        for type_url in TYPES
    ]


class Client:
    """One stream."""

    def __init__(self, number: int, address: str, requests: list[bytes]) -> None:
        # Messages are the sum of their fields: the node can be put before the rest.
        self._node = DeltaDiscoveryRequest(node=node_message(Workload(instance=f"bench-{number}"))).SerializeToString()
        self._address = address
        self.requests = requests
        self.versions: dict[tuple[str, str], str] | None = None  # kept up to date if there
        self._rng = Random(number)
        self._changed_name = ""
        self.received = 0  # resources, on this stream
        self.bytes = 0
        self.changed_at = 0.0
        self.wait_for("", "")

    def wait_for(self, name: str, old_version: str) -> None:
        """Note when assignment `name` comes in another version than `old_version`."""
        self._changed_name, self._old_version = name, old_version
        self.changed = asyncio.Event()

    async def run(self) -> None:
        failures = 0
        while True:
            async with grpc.aio.insecure_channel(self._address, options=OPTIONS) as channel:
                try:
                    await self._converse(channel.stream_stream(ADS_DELTA)())
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError):  # ended while reading, or writing
                    failures = 1 if self.received else failures + 1
            self.received = 0
            await asyncio.sleep(min(1.6 ** (failures - 1), 120) * self._rng.uniform(0.8, 1.2))

    async def _converse(self, call: grpc.aio.StreamStreamCall) -> None:
        for position, request in enumerate(self.requests):
            await call.write(self._node + request if position == 0 else request)
        while (data := await call.read()) is not grpc.aio.EOF:
            now = time.monotonic()
            response = DeltaDiscoveryResponse.FromString(data)
            self.bytes += len(data)
            self.received += len(response.resources)
            for resource in response.resources:
                if (
                    resource.name == self._changed_name
                    and resource.version != self._old_version
                    and response.type_url == ENDPOINTS
                ):
                    self.changed_at = now
                    self.changed.set()
                if self.versions is not None:
                    self.versions[response.type_url, resource.name] = resource.version
            ack = DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
            await call.write(ack.SerializeToString())


async def until_settled(server: ServerProcess, clients: int) -> dict[str, float]:
    while True:
        status = await server.ask("status")
        if status["clients"] == status["settled"] == clients:
            return status
        await asyncio.sleep(0.1)


async def change(
    server: ServerProcess, clients: Sequence[Client], versions: dict[tuple[str, str], str], *, name: str, port: int
) -> tuple[list[float], float]:
    """One endpoint moves to `port`: seconds after the debounce at which each client knows, and the server's CPU."""
    old = versions[ENDPOINTS, name]
    for client in clients:
        client.wait_for(name, old)
    published = await server.ask(f"change {port}")
    await asyncio.gather(*(client.changed.wait() for client in clients))
    await asyncio.sleep(0.5)  # the last ACKs
    used = (await server.ask("cpu"))["cpu"] - published["cpu"]
    return [client.changed_at - published["published"] - QUIET for client in clients], used


async def measure(options: argparse.Namespace) -> Figures:
    server = ServerProcess(options)
    raw: dict[str, list[str]] = json.loads(json.dumps(server.do("names")))
    names = {type_url: raw[type_url][: options.subscriptions] for type_url in TYPES}
    changed_name = names[ENDPOINTS][CHANGED]
    versions: dict[tuple[str, str], str] = {}
    nothing = first_requests(names, {})
    clients = [Client(number, f"127.0.0.1:{server.port}", nothing) for number in range(options.clients)]
    clients[0].versions = versions
    collect_rarely()  # this process stands for a thousand, whose collectors would not run in turn
    begun = time.monotonic()
    tasks = [asyncio.create_task(client.run()) for client in clients]
    status = await until_settled(server, options.clients)
    first_sync = time.monotonic() - begun
    latencies: list[float] = []
    cpu: list[float] = []
    for turn in range(options.changes):
        found, used = await change(server, clients, versions, name=changed_name, port=9001 + turn)
        latencies += found
        cpu.append(used)
    status = await until_settled(server, options.clients)
    port = server.port
    server.kill()
    known = first_requests(names, versions)
    for client in clients:
        client.bytes, client.requests = 0, known
        client.wait_for(changed_name, versions[ENDPOINTS, changed_name])
    server = ServerProcess(options, port=port, moved=9999)
    begun = time.monotonic()
    await asyncio.gather(*(client.changed.wait() for client in clients))
    restarted = await until_settled(server, options.clients)
    resync = max(client.changed_at for client in clients) - begun
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    server.kill()
    ordered = sorted(latencies)
    return Figures(
        options.clients,
        options.services,
        options.endpoints,
        options.subscriptions,
        first_sync,
        statistics.median(ordered),
        ordered[int(len(ordered) * 0.99) - 1],
        ordered[-1],
        statistics.median(cpu),
        status["rss"],
        status["peak"],
        resync,
        statistics.mean(client.bytes for client in clients) / 1e6,
        restarted["rss"],
        restarted["peak"],
    )


def show(figures: Figures, output: Path | None) -> None:
    print(f"{figures.clients} delta clients, {figures.services} services x {figures.endpoints} endpoints,", end=" ")
    print(f"{figures.subscriptions} of them subscribed")
    rows = [
        ("first sync of all clients", f"{figures.first_sync:.2f} s"),
        ("one endpoint changes: p50 after the debounce", f"{figures.change_p50 * 1000:.0f} ms"),
        ("one endpoint changes: last client", f"{figures.change_max * 1000:.0f} ms"),
        ("server CPU per change", f"{figures.server_cpu_per_change * 1000:.0f} ms"),
        ("server memory, now", f"{figures.server_rss:.0f} MB"),
        ("resync: transferred to each client", f"{figures.resync_bytes_per_client * 1000:.1f} KB"),
    ]
    for what, value in rows:
        print(f"    {what:48}{value:>18}")
    goals = [
        Ratio("one endpoint changes: p99 after the debounce", figures.change_p99 * 1000, 300, at_least=False, unit=" ms"),
        Ratio("server memory, peak", figures.server_rss_peak, 300, at_least=False, unit=" MB"),
        Ratio("resync of all after a restart", figures.resync, 10, at_least=False, unit=" s"),
        Ratio("restarted server's memory, peak", figures.restarted_rss_peak, 300, at_least=False, unit=" MB"),
    ]
    report("control plane", goals, asdict(figures), output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--endpoints", type=int, default=20)
    parser.add_argument("--subscriptions", type=int, default=0, help="services that each client calls; 0: all")
    parser.add_argument("--changes", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", nargs=4, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(*options.serve))
        return
    options.subscriptions = options.subscriptions or options.services
    figures = asyncio.run(measure(options))
    show(figures, options.json)


if __name__ == "__main__":
    main()
