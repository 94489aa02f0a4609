"""How everything here is measured: peers in the same run, interleaved, ratios of medians.

Single figures on a shared machine vary by a third from run to run; ratios within one run hold.  CPU is read from the kernel for
every process that takes part, the client included.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TICK = os.sysconf("SC_CLK_TCK")
BODY = b"x" * 1024


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(command: Sequence[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process, from when `port` accepts connections until the block ends."""
    started = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if started.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"did not start: {' '.join(command)}") from None
                time.sleep(0.05)
        yield started
    finally:
        started.terminate()
        started.wait(10)


@contextlib.contextmanager
def uvicorn(app: str = "benchmarks.app:app") -> Iterator[tuple[int, int]]:
    """(port, process id) of a uvicorn with its fastest parts."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--log-level", "error", "--no-access-log"]
    with process([*command, "--http", "httptools", "--loop", "uvloop"], port) as started:
        yield port, started.pid


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of these processes so far."""
    total = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / TICK
    return total


@dataclass
class Figures:
    """One peer in one setting: a value per round."""

    rate: list[float] = field(default_factory=list)  # requests per second
    p50: list[float] = field(default_factory=list)  # seconds
    cpu: list[float] = field(default_factory=list)  # seconds per request, all processes

    def median(self, name: str) -> float:
        values: list[float] = getattr(self, name)
        return statistics.median(values)


AsyncCall = Callable[[], Awaitable[object]]


async def round_of(call: AsyncCall, requests: int, concurrency: int, pids: Sequence[int], figures: Figures) -> None:
    """One round: `requests` calls with `concurrency` of them in flight."""
    import asyncio

    latencies: list[float] = []
    clock = time.perf_counter

    async def worker(count: int) -> None:
        for _ in range(count):
            begun = clock()
            await call()
            latencies.append(clock() - begun)

    before, own = cpu_seconds(pids), time.process_time()
    begun = clock()
    await asyncio.gather(*[worker(requests // concurrency) for _ in range(concurrency)])
    elapsed = clock() - begun
    _note(figures, latencies, elapsed, cpu_seconds(pids) - before + time.process_time() - own)


def blocking_round(call: Callable[[], object], requests: int, threads: int, pids: Sequence[int], figures: Figures) -> None:
    """The same for blocking calls, on `threads` threads."""
    import threading

    latencies: list[float] = []
    clock = time.perf_counter

    def worker(count: int) -> None:
        for _ in range(count):
            begun = clock()
            call()
            latencies.append(clock() - begun)

    before, own = cpu_seconds(pids), time.process_time()
    begun = clock()
    workers = [threading.Thread(target=worker, args=(requests // threads,)) for _ in range(threads)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    elapsed = clock() - begun
    _note(figures, latencies, elapsed, cpu_seconds(pids) - before + time.process_time() - own)


def _note(figures: Figures, latencies: list[float], elapsed: float, cpu: float) -> None:
    figures.rate.append(len(latencies) / elapsed)
    figures.p50.append(statistics.median(latencies))
    figures.cpu.append(cpu / len(latencies))


@dataclass
class Ratio:
    """A figure to reach: `value` against `target`."""

    name: str
    value: float
    target: float
    at_least: bool = True
    unit: str = "x"

    @property
    def reached(self) -> bool:
        return self.value >= self.target if self.at_least else self.value <= self.target

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        verdict = "ok  " if self.reached else "MISS"
        return f"{verdict}  {self.name:<66} {self.value:9.2f}{self.unit}  (goal {sign} {self.target:.3g}{self.unit})"


def report(title: str, ratios: Sequence[Ratio], details: Mapping[str, object], output: Path | None) -> None:
    """A table for people on stdout; JSON into `output`."""
    print(f"\n{title}")
    for ratio in ratios:
        print(f"  {ratio}")
    if output is not None:
        known = json.loads(output.read_text()) if output.exists() else {}
        known[title] = {
            "ratios": [
                {
                    "name": r.name,
                    "value": r.value,
                    "goal": r.target,
                    "at_least": r.at_least,
                    "unit": r.unit,
                    "reached": r.reached,
                }
                for r in ratios
            ],
            "details": details,
        }
        output.write_text(json.dumps(known, indent=2) + "\n")


def table(rows: Mapping[str, Figures]) -> dict[str, object]:
    """Print the medians of each peer, and return them."""
    found: dict[str, object] = {}
    for name, figures in rows.items():
        rate, p50, cpu = figures.median("rate"), figures.median("p50") * 1e6, figures.median("cpu") * 1e6
        print(f"    {name:<44} {rate:10.0f} req/s   p50 {p50:8.0f} µs   cpu {cpu:8.0f} µs/req")
        found[name] = {"rate": rate, "p50_us": p50, "cpu_us": cpu}
    return found
