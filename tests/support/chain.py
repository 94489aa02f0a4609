"""A chain of four processes behind a real control service: a → b → c → leaf, and the leaf fails every request."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from meshlib import Mesh
from meshlib_control.demo.processes import free_ports
from tests.support.control import Control, eventually
from tests.support.load import Load
from tests.support.servers import ROOT

HOPS = {"a": "b", "b": "c", "c": "leaf", "leaf": ""}
RULE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %(host)s}
spec:
  hosts: [%(host)s]
  http:
  - retries: {attempts: 2, retryOn: 5xx}
    route: [{destination: {host: %(host)s}}]
"""
GRACE = 30.0


@contextmanager
def chain(folder: Path, *, latency: float, rules: str = RULE) -> Iterator[tuple[Control, Mapping[str, int]]]:
    """The control service, and the ports of the four.  `rules` hold for each of them."""
    ports = dict(zip(HOPS, free_ports(len(HOPS)), strict=True))
    processes: list[subprocess.Popen[bytes]] = []
    with Control(folder) as control:
        try:
            for name, port in ports.items():
                control.apply(rules % {"host": name})
                processes.append(_started(control, name, port, latency))
            known = set(ports.values())
            eventually(
                lambda: (
                    {each["port"] for each in control.get("/v1/endpoints")["endpoints"] if each["health"] == "healthy"} == known
                ),
                what="all four are registered",
            )
            yield control, ports
        finally:
            for process in processes:
                process.kill()
                process.wait(GRACE)


def _started(control: Control, name: str, port: int, latency: float) -> subprocess.Popen[bytes]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("MESHLIB_")}
    environ |= {
        "PYTHONPATH": str(ROOT),
        "MESHLIB_CONTROL": control.xds,
        "MESHLIB_INSECURE_DEV": "1",
        "MESHLIB_SERVICE": name,
        "MESHLIB_PORT": str(port),
        "BEHIND": HOPS[name],
        "LATENCY": str(latency),
    }
    command = [sys.executable, "-m", "uvicorn", "tests.support.hop:app", "--port", str(port), "--log-level", "critical"]
    return subprocess.Popen(command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def tally(ports: Mapping[str, int]) -> dict[str, int]:
    """How many requests each has served."""
    return {
        name: int(httpx.get(f"http://127.0.0.1:{port}/tally", trust_env=False, timeout=GRACE).text)
        for name, port in ports.items()
    }


async def storm(control: Control, ports: Mapping[str, int], *, rate: float, calls: int) -> dict[str, float]:
    """Requests that each hop served for each call to the first one; all calls end with 503."""
    before = await asyncio.to_thread(tally, ports)
    async with Mesh(control=control.xds, insecure_dev=True) as mesh:

        async def send(number: int) -> int:
            return (await mesh.arequest("GET", f"http://a/{number}", timeout=GRACE)).status_code

        assert await send(-1) == 503
        async with Load(send, rate) as load:
            await load.more(calls)
        assert {result.answer for result in load.results} == {503}, load.errors
        await mesh.aclose_loop()
    after = await asyncio.to_thread(tally, ports)
    return {name: (after[name] - before[name]) / (load.sent + 1) for name in ports}
