"""Calls through the mesh against the clients that they replace: `python -m benchmarks.calls [--json FILE] [--rounds N]`.

httpx as installed against the same httpx with the mesh's transport; the native call against httpx and aiohttp; one uvicorn,
1 KiB bodies, keep-alive, one client process.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import aiohttp
import httpx
import uvloop

from benchmarks.harness import Figures, Ratio, blocking_round, report, round_of, table, uvicorn
from meshlib import Mesh
from meshlib.testing import service, static_mesh
from meshlib_integrations.httpx import AsyncMeshTransport, MeshTransport

REQUESTS = {1: 1500, 32: 3200}


async def asynchronous(mesh: Mesh, port: int, pids: list[int], rounds: int) -> dict[tuple[str, int], Figures]:
    figures: dict[tuple[str, int], Figures] = {}
    direct, meshed = f"http://127.0.0.1:{port}/x", "http://reviews/x"
    async with (
        httpx.AsyncClient() as bare,
        httpx.AsyncClient(transport=AsyncMeshTransport(mesh)) as through,
        aiohttp.ClientSession() as session,
    ):

        async def with_aiohttp() -> None:
            async with session.get(direct) as response:
                await response.read()

        peers = {
            "httpx": lambda: bare.get(direct),
            "httpx through meshlib": lambda: through.get(meshed),
            "aiohttp": with_aiohttp,
            "native call": lambda: mesh.arequest("GET", meshed),
        }
        for concurrency, requests in REQUESTS.items():
            for peer in peers.values():
                await round_of(peer, 64, concurrency, [], Figures())  # connections, caches
            for _ in range(rounds):
                for name, peer in peers.items():
                    count = requests // 4 if name == "httpx" else requests
                    await round_of(peer, count, concurrency, pids, figures.setdefault((name, concurrency), Figures()))
    await mesh.aclose_loop()
    return figures


def blocking(mesh: Mesh, port: int, pids: list[int], rounds: int) -> dict[tuple[str, int], Figures]:
    figures: dict[tuple[str, int], Figures] = {}
    direct, meshed = f"http://127.0.0.1:{port}/x", "http://reviews/x"
    with httpx.Client() as bare, httpx.Client(transport=MeshTransport(mesh)) as through:
        peers = {
            "blocking httpx": lambda: bare.get(direct),
            "blocking httpx through meshlib": lambda: through.get(meshed),
            "blocking native call": lambda: mesh.request("GET", meshed),
        }
        for threads in (1, 8):
            for peer in peers.values():
                blocking_round(peer, 64, threads, [], Figures())
            for _ in range(rounds):
                for name, peer in peers.items():
                    blocking_round(peer, 800, threads, pids, figures.setdefault((name, threads), Figures()))
    return figures


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("--rounds", type=int, default=7)
    options = arguments.parse_args()
    with uvicorn() as (port, pid):
        mesh = static_mesh(service("reviews", [f"127.0.0.1:{port}"]))
        figures = uvloop.run(asynchronous(mesh, port, [pid], options.rounds))
        figures |= blocking(mesh, port, [pid], options.rounds)
        mesh.close()

    def ratio(peer: str, against: str, level: int) -> float:
        return figures[peer, level].median("rate") / figures[against, level].median("rate")

    print("calls, requests per second (level: in flight, or threads)")
    details = table({f"{name} @{level}": found for (name, level), found in figures.items()})
    ratios = [
        Ratio("httpx through meshlib / bare httpx, 1 in flight", ratio("httpx through meshlib", "httpx", 1), 1.8),
        Ratio("httpx through meshlib / bare httpx, 32 in flight", ratio("httpx through meshlib", "httpx", 32), 4.5),
        Ratio("native call / bare httpx, 1 in flight", ratio("native call", "httpx", 1), 5.0),
        Ratio("native call / bare httpx, 32 in flight", ratio("native call", "httpx", 32), 5.0),
        Ratio("native call / bare aiohttp, 1 in flight", ratio("native call", "aiohttp", 1), 1.3),
        Ratio("native call / bare aiohttp, 32 in flight", ratio("native call", "aiohttp", 32), 1.3),
        Ratio(
            "blocking httpx through meshlib / bare httpx.Client, 1 thread",
            ratio("blocking httpx through meshlib", "blocking httpx", 1),
            1.3,
        ),
        Ratio(
            "blocking httpx through meshlib / bare httpx.Client, 8 threads",
            ratio("blocking httpx through meshlib", "blocking httpx", 8),
            1.3,
        ),
    ]
    report("calls", ratios, details, options.json)


if __name__ == "__main__":
    main()
