"""With everything on: `python -m benchmarks.zero_trust [--json FILE] [--rounds N]`.

Both sides in meshlib, mTLS between them, authorization by 50 policies on the server: against bare plaintext clients, against a
pair of Envoy sidecars with mTLS and RBAC, and the server alone against uvicorn's own TLS without any policy.  Peers are
interleaved in one run.  Added latency counts as in `benchmarks.sidecars`: against the same engine on a plain connection.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import httpx
import uvloop

from benchmarks.authorization import POLICIES, per_service
from benchmarks.harness import Figures, Ratio, free_port, process, report, round_of, table, uvicorn
from benchmarks.sidecars import Engine, envoy_binary, sidecars
from meshlib import Mesh
from meshlib.lowlevel import TrustBundles
from meshlib.model.authorization import Action, Rbac, RbacFilter
from meshlib.model.cluster import Cluster, UpstreamTls
from meshlib.model.endpoint import Endpoint
from meshlib.model.listener import INBOUND_PREFIX, InboundListener, MtlsMode
from meshlib.runtime.http.aio import AsyncPool
from meshlib.runtime.http.connector import AsyncTlsConnector
from meshlib.runtime.http.limits import Limits
from meshlib.runtime.http.settings import PoolSettings
from meshlib.runtime.identity import pem
from meshlib.runtime.identity.material import Material, PrivateKey
from meshlib.runtime.identity.static import StaticIdentity
from meshlib.runtime.tls.contexts import TlsContexts
from meshlib.testing import service, static_mesh
from meshlib.wire.request import encode_head
from meshlib_integrations.httpx import AsyncMeshTransport
from tests.support.certificates import TrustDomain

REQUESTS = {1: 1200, 32: 3200}
FOLDER, PORT = "BENCH_FOLDER", "BENCH_PORT"
NAMESPACE, SERVER, CALLER = "shop", "reviews", f"caller{POLICIES - 1}"  # the caller's policy is the last one
PATH = f"/api/{POLICIES - 1}/x"
TLS = UpstreamTls(identities=frozenset({f"spiffe://cluster.local/ns/{NAMESPACE}/sa/{SERVER}"}), sni=SERVER)


def make_identities(folder: Path) -> None:
    domain = TrustDomain()
    (folder / "root.pem").write_bytes(domain.root.pem)
    for account in (SERVER, CALLER):
        domain.leaf(account, NAMESPACE).write(folder, account)


def identity(folder: Path, account: str) -> StaticIdentity:
    roots = TrustBundles({"cluster.local": pem.certificates((folder / "root.pem").read_bytes())})
    key = PrivateKey.parse((folder / f"{account}.key").read_bytes())
    return StaticIdentity(Material.of(pem.certificates((folder / f"{account}.pem").read_bytes()), key, roots))


def served_mesh() -> Mesh:
    """In the server's process: STRICT, and 50 policies of which one lets the caller in."""
    port = int(os.environ[PORT])
    rules = RbacFilter("allow", Rbac(Action.ALLOW, tuple(per_service(number) for number in range(POLICIES))))
    listener = InboundListener(f"{INBOUND_PREFIX}{port}", port, mtls=MtlsMode.STRICT, filters=(rules,))
    return static_mesh(inbound=[listener], identity=identity(Path(os.environ[FOLDER]), SERVER))


@contextlib.contextmanager
def secured(folder: Path) -> Iterator[tuple[int, int]]:
    """(port, process id) of a uvicorn that speaks the mesh's mTLS and asks its policies."""
    port = free_port()
    os.environ[FOLDER], os.environ[PORT] = str(folder), str(port)
    command = [sys.executable, "-m", "uvicorn", "benchmarks.app:secured", "--port", str(port), "--log-level", "error"]
    command += ["--no-access-log", "--http", "meshlib_integrations.uvicorn:MeshProtocol", "--loop", "uvloop"]
    with process(command, port) as started:
        yield port, started.pid


@contextlib.contextmanager
def own_tls(folder: Path) -> Iterator[tuple[int, int]]:
    """(port, process id) of a uvicorn with the same certificate and TLS of its own, which asks clients for theirs."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks.app:app", "--port", str(port), "--log-level", "error"]
    command += ["--no-access-log", "--http", "httptools", "--loop", "uvloop", "--ssl-cert-reqs", "2"]
    command += ["--ssl-certfile", f"{folder}/{SERVER}.pem", "--ssl-keyfile", f"{folder}/{SERVER}.key"]
    with process([*command, "--ssl-ca-certs", f"{folder}/root.pem"], port) as started:
        yield port, started.pid


class TlsEngine:
    """The bare engine over mTLS: what both servers are called with."""

    def __init__(self, port: int, contexts: TlsContexts) -> None:
        from random import Random

        connector = AsyncTlsConnector(contexts, TLS, Random())
        settings = PoolSettings.of(Cluster("bench"), Limits())
        self._pool = AsyncPool(Endpoint("127.0.0.1", port), settings, connector=connector)

    async def call(self) -> None:
        head = encode_head("GET", PATH, (), authority=SERVER, body_length=0)
        response = await self._pool.send(head, b"", whole=True)
        await response.read()
        if response.status != 200:
            raise RuntimeError(f"the server answered {response.status}")

    def close(self) -> None:
        self._pool.close()


async def measure(
    ports: dict[str, int], pids: dict[str, list[int]], folder: Path, rounds: int
) -> dict[tuple[str, int], Figures]:
    caller = identity(folder, CALLER)
    mesh = static_mesh(service(SERVER, [f"127.0.0.1:{ports['secured']}"], tls=TLS), identity=caller)
    contexts = TlsContexts(caller)
    engines = [Engine(ports["plain"]), Engine(ports["sidecars"])]
    servers = [TlsEngine(ports["own TLS"], contexts), TlsEngine(ports["secured"], contexts)]
    direct, meshed = f"http://127.0.0.1:{ports['plain']}{PATH}", f"http://{SERVER}{PATH}"
    figures: dict[tuple[str, int], Figures] = {}
    async with (
        httpx.AsyncClient() as bare,
        httpx.AsyncClient(transport=AsyncMeshTransport(mesh)) as through,
        aiohttp.ClientSession() as session,
    ):

        async def with_aiohttp() -> None:
            async with session.get(direct) as response:
                await response.read()

        peers = {
            "httpx, plaintext": lambda: bare.get(direct),
            "httpx through meshlib, everything on": lambda: through.get(meshed),
            "aiohttp, plaintext": with_aiohttp,
            "native call, everything on": lambda: mesh.arequest("GET", meshed),
            "engine, direct": engines[0].call,
            "engine, Envoy pair with mTLS and RBAC": engines[1].call,
            "engine, mTLS to uvicorn's own TLS": servers[0].call,
            "engine, mTLS to meshlib's server": servers[1].call,
        }
        answer = await through.get(meshed)
        if answer.status_code != 200:
            raise RuntimeError(f"the server answered {answer.status_code}: {answer.text}")
        for concurrency, requests in REQUESTS.items():
            for peer in peers.values():
                await round_of(peer, 64, concurrency, [], Figures())
            for _ in range(rounds):
                for name, peer in peers.items():
                    count = requests // 4 if name == "httpx, plaintext" else requests
                    await round_of(peer, count, concurrency, pids[name], figures.setdefault((name, concurrency), Figures()))
    for closing in (*[engine.close for engine in engines], *[server.close for server in servers]):
        closing()
    await mesh.aclose_loop()
    mesh.close()
    await asyncio.sleep(0)
    return figures


def ratios_of(figures: dict[tuple[str, int], Figures]) -> list[Ratio]:
    def rate(peer: str, against: str, level: int) -> float:
        return figures[peer, level].median("rate") / figures[against, level].median("rate")

    def added(peer: str) -> float:
        return figures[peer, 1].median("p50") - figures["engine, direct", 1].median("p50")

    def cpu(level: int) -> float:
        mine, theirs = "native call, everything on", "engine, Envoy pair with mTLS and RBAC"
        return figures[mine, level].median("cpu") / figures[theirs, level].median("cpu")

    def server(level: int) -> float:
        return rate("engine, mTLS to meshlib's server", "engine, mTLS to uvicorn's own TLS", level)

    through, native = "httpx through meshlib, everything on", "native call, everything on"
    ours, theirs = added(native), added("engine, Envoy pair with mTLS and RBAC")
    print(f"    added at the median: meshlib {ours * 1e6:.0f} µs, Envoy pair {theirs * 1e6:.0f} µs")
    return [
        Ratio("httpx through meshlib, everything on / bare httpx, 1 in flight", rate(through, "httpx, plaintext", 1), 1.5),
        Ratio("httpx through meshlib, everything on / bare httpx, 32 in flight", rate(through, "httpx, plaintext", 32), 4.0),
        Ratio("native call, everything on / bare aiohttp, 1 in flight", rate(native, "aiohttp, plaintext", 1), 1.0),
        Ratio("native call, everything on / bare aiohttp, 32 in flight", rate(native, "aiohttp, plaintext", 32), 1.0),
        Ratio("added latency / Envoy pair with mTLS and RBAC", ours / theirs, 0.2, at_least=False),
        Ratio("total CPU per request / Envoy pair, 1 in flight", cpu(1), 0.5, at_least=False),
        Ratio("total CPU per request / Envoy pair, 32 in flight", cpu(32), 0.5, at_least=False),
        Ratio("server with mTLS and 50 policies / uvicorn's own TLS, 1 in flight", server(1), 0.8),
        Ratio("server with mTLS and 50 policies / uvicorn's own TLS, 32 in flight", server(32), 0.8),
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()
    if not envoy_binary().exists():
        raise SystemExit("Envoy is neither on PATH nor in .tools; run `make tools`")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_identities(folder)
        with (
            uvicorn() as (plain, plain_pid),
            secured(folder) as (meshed, meshed_pid),
            own_tls(folder) as (tls, tls_pid),
            sidecars(plain) as (proxied, proxies),
        ):
            ports = {"plain": plain, "secured": meshed, "own TLS": tls, "sidecars": proxied}
            pids = {
                "httpx, plaintext": [plain_pid],
                "httpx through meshlib, everything on": [meshed_pid],
                "aiohttp, plaintext": [plain_pid],
                "native call, everything on": [meshed_pid],
                "engine, direct": [plain_pid],
                "engine, Envoy pair with mTLS and RBAC": [plain_pid, *proxies],
                "engine, mTLS to uvicorn's own TLS": [tls_pid],
                "engine, mTLS to meshlib's server": [meshed_pid],
            }
            figures = uvloop.run(measure(ports, pids, folder, options.rounds))
    print("with mTLS and authorization (level: in flight)")
    details = table({f"{name} @{level}": found for (name, level), found in figures.items()})
    report("zero trust", ratios_of(figures), details, options.json)


if __name__ == "__main__":
    main()
