"""What faults cost callers: `python -m benchmarks.faults [--json FILE]`.

Endpoints that fail, are gone or get too much, through a real control service, with real servers and open-loop load.  The tests
in tests/faults assert the counts; here are the times, on a machine that should have nothing else to do.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import Ratio, free_port, process, report
from benchmarks.overloaded import CAPACITY, WORK
from meshlib import Mesh, errors
from meshlib.flow.upstream import Upstream
from tests.support.chain import chain, storm
from tests.support.control import Control, eventually
from tests.support.failing import EJECTION, NO_RETRIES, RETRIES, Failing, calling, failing, upstream
from tests.support.load import Load, Result

RATE = 200.0
PATIENCE = 1.0  # seconds until a caller of the overloaded server gives up
TIMEOUT = """
---
apiVersion: meshlib.io/v1
kind: ResiliencePolicy
metadata: {name: %(host)s}
spec: {host: %(host)s, timeout: 300ms}
"""
LIMIT = """
apiVersion: meshlib.io/v1
kind: ResiliencePolicy
metadata: {name: overloaded}
spec: {selector: {matchLabels: {app: overloaded}}, adaptiveConcurrency: {}}
"""

Send = Callable[[int], Awaitable[int]]


def sending(mesh: Mesh, host: str) -> Send:
    async def send(number: int) -> int:
        return (await mesh.arequest("GET", f"http://{host}/{number}", timeout=30.0)).status_code

    return send


async def during(send: Send, rate: float, seconds: float) -> list[Result]:
    """What became of each call, in the order in which they were due."""
    async with Load(send, rate) as load:
        await asyncio.sleep(seconds)
    return sorted(load.results, key=lambda result: result.number)


def is_good(result: Result) -> bool:
    return result.error is None and result.answer == 200


def percent_failed(results: Sequence[Result]) -> float:
    return 100.0 * sum(not is_good(result) for result in results) / len(results)


@asynccontextmanager
async def shop(control: Control, host: str, rules: str) -> AsyncIterator[tuple[Mesh, list[Failing]]]:
    async with failing() as servers, calling(control, host, [server.address for server in servers], rules) as mesh:
        yield mesh, servers


async def half_fails(control: Control) -> list[Ratio]:
    """F18."""
    async with shop(control, "half", RETRIES + EJECTION) as (mesh, servers):
        for server in servers:
            server.failing, server.latency = 0.5, 0.2
        results = await during(sending(mesh, "half"), RATE, 6.0)
        attempts = sum(server.attempts for server in servers) / len(results)
    return [
        Ratio("F18 half of all answers are 503: attempts for each call", attempts, 1.2, at_least=False),
        Ratio("F18 half of all answers are 503: failed calls, honestly", percent_failed(results), 38.0, unit="%"),
    ]


async def one_fails(control: Control) -> list[Ratio]:
    """F19."""
    async with shop(control, "one", RETRIES + EJECTION) as (mesh, (bad, *others)):
        bad.failing = 1.0
        results = await during(sending(mesh, "one"), RATE, 10.0)
        share = 100.0 * bad.attempts / (bad.attempts + sum(server.attempts for server in others))
    later = percent_failed(results[int(RATE) :])
    async with shop(control, "one-once", NO_RETRIES + EJECTION) as (mesh, (bad, *_)):
        bad.failing = 1.0
        unretried = sum(not is_good(result) for result in await during(sending(mesh, "one-once"), RATE, 5.0))
    return [
        Ratio("F19 one of five always 503, one retry: failed after the first second", later, 0.1, at_least=False, unit="%"),
        Ratio("F19 one of five always 503: its share of the traffic", share, 1.0, at_least=False, unit="%"),
        Ratio("F19 one of five always 503, no retries: errors of a client", unretried, 5.0, at_least=False, unit=""),
    ]


async def all_down(control: Control) -> list[Ratio]:
    """F20."""
    async with shop(control, "down", RETRIES) as (mesh, servers):
        send = sending(mesh, "down")
        await during(send, RATE, 1.0)
        for server in servers:
            await server.down()
        results = await during(send, RATE, 5.0)
        milliseconds = sorted(1000.0 * result.seconds for result in results)
        assert not any(map(is_good, results))
        waiting = _at_work(upstream(mesh))
        for server in servers:
            await server.up()
        recovered = time_to_recover(await during(send, RATE, 4.0), RATE, window=0.5)
    return [
        Ratio("F20 all endpoints down: error after, median", statistics.median(milliseconds), 10.0, at_least=False, unit="ms"),
        Ratio("F20 all endpoints down: error after, p99", _p99(milliseconds), 50.0, at_least=False, unit="ms"),
        Ratio("F20 all endpoints down: calls left waiting", waiting, 0.0, at_least=False, unit=""),
        Ratio("F20 they are back: all calls succeed again after", recovered, 2.0, at_least=False, unit="s"),
    ]


def _at_work(cluster: Upstream) -> int:
    return cluster.active + cluster.active_retries


async def too_slow(control: Control) -> list[Ratio]:
    """F16, and how exactly a timeout is kept: by how much a call outlasts it."""
    async with shop(control, "slow", NO_RETRIES + TIMEOUT) as (mesh, servers):
        for server in servers:
            server.latency = 5.0
        results = await during(sending(mesh, "slow"), 50.0, 3.0)
    assert {type(result.error) for result in results} == {errors.TimeoutExceeded}
    late = sorted(1000.0 * (result.seconds - 0.3) for result in results)
    return [Ratio("F16 slow endpoints: a call outlasts its timeout by, p99", _p99(late), 50.0, at_least=False, unit="ms")]


def time_to_recover(results: Sequence[Result], rate: float, *, window: float) -> float:
    """Seconds until the first window without a failure; all of the time if there is none."""
    size = int(rate * window)
    for start in range(len(results) - size):
        if all(map(is_good, results[start : start + size])):
            return start / rate
    return len(results) / rate


@contextmanager
def overloaded_server(control: Control) -> Iterator[int]:
    """A process that serves `benchmarks.overloaded`."""
    port = free_port()
    settings = {
        "MESHLIB_CONTROL": control.xds,
        "MESHLIB_INSECURE_DEV": "1",
        "MESHLIB_SERVICE": "overloaded",
        "MESHLIB_PORT": str(port),
    }
    command = ["env", *(f"{name}={value}" for name, value in settings.items())]
    command += [sys.executable, "-m", "uvicorn", "benchmarks.overloaded:app", "--port", str(port), "--log-level", "error"]
    with process([*command, "--no-access-log", "--http", "httptools", "--loop", "uvloop"], port) as started:
        eventually(
            lambda: port in {each["port"] for each in control.get("/v1/endpoints")["endpoints"]}, what="it is registered"
        )
        yield port
        started.kill()  # it would work through what nobody waits for any more


async def overload(control: Control) -> tuple[float, float, float]:
    """Goodput as a share of the capacity, p99 as a multiple of the work, and seconds to recover."""
    async with Mesh(control=control.xds, insecure_dev=True) as mesh:

        async def send(number: int) -> int:
            return (await mesh.arequest("GET", f"http://overloaded/{number}", timeout=PATIENCE)).status_code

        await during(send, 0.5 * CAPACITY, 4.0)
        results = await during(send, 3.0 * CAPACITY, 12.0)
        good = [result.seconds for result in results[len(results) // 2 :] if is_good(result)]
        after = await during(send, 0.5 * CAPACITY, 8.0)
        await mesh.aclose_loop()
    p99 = _p99(sorted(good)) if good else PATIENCE
    return len(good) / 6.0 / CAPACITY, p99 / WORK, time_to_recover(after, 0.5 * CAPACITY, window=1.0)


def _p99(ordered: Sequence[float]) -> float:
    return ordered[int(len(ordered) * 0.99)]


async def too_much(control: Control) -> list[Ratio]:
    """F21, without the limit first."""
    with overloaded_server(control):
        bare = await overload(control)
    control.apply(LIMIT)
    with overloaded_server(control):
        goodput, p99, recovered = await overload(control)
    return [
        Ratio("F21 3x overload, adaptive concurrency: goodput / capacity", goodput, 0.8),
        Ratio("F21 3x overload: p99 of the accepted / time without load", p99, 2.0, at_least=False),
        Ratio("F21 after it: all calls succeed again after", recovered, 5.0, at_least=False, unit="s"),
        Ratio("F21 the control, without a policy: goodput / capacity", bare[0], 0.5, at_least=False),
    ]


async def storms(folder: Path) -> list[Ratio]:
    """F22."""
    found = []
    for name, latency in (("quick", 0.005), ("slow", 0.2)):
        (folder / name).mkdir()
        with chain(folder / name, latency=latency) as (control, ports):
            served = await storm(control, ports, rate=100.0, calls=1000)
        text = f"F22 chain of 3 hops, 2 retries each, {name} leaf fails always: attempts at the leaf"
        found.append(Ratio(text, served["leaf"], 1.2, at_least=False))
    return found


async def measure(folder: Path) -> list[Ratio]:
    measured: list[Ratio] = []
    parts: Sequence[Callable[[Control], Awaitable[list[Ratio]]]] = (too_slow, half_fails, one_fails, all_down, too_much)
    with Control(folder) as control:
        for part in parts:
            began = time.perf_counter()
            measured += await part(control)
            print(f"    {part.__name__}: {time.perf_counter() - began:.0f} s", flush=True)
    return measured + await storms(folder)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--json", type=Path)
    options = arguments.parse_args()
    details: dict[str, Any] = {"rate": RATE, "endpoints": 5, "capacity": CAPACITY}
    with tempfile.TemporaryDirectory() as folder:
        ratios = asyncio.run(measure(Path(folder)))
    report("faults", ratios, details, options.json)


if __name__ == "__main__":
    main()
