"""The load: a process that asks for the product page at a steady rate and writes what it got, one JSON line a moment.

A line is a list of samples: [started, seconds, version of reviews, retries on all hops, error or ""].  `started` is the
system's monotonic clock, which all processes share, so the demo can tell which step a request belongs to.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time

import httpx

from meshlib import Mesh
from meshlib_integrations.httpx import AsyncMeshTransport

PAGE = "http://productpage/productpage/7"
FLUSH = 0.1  # seconds between lines

Sample = tuple[float, float, str, int, str]


async def request_page(client: httpx.AsyncClient) -> Sample:
    """One request, as a sample; a failure is a sample too."""
    started = time.monotonic()
    try:
        response = await client.get(PAGE)
        page = response.json()
        if response.is_error:
            return started, time.monotonic() - started, "", 0, str(page.get("error", response.status_code))
        retries = page["retries"] + response.extensions["meshlib"].attempts - 1
        return started, time.monotonic() - started, page["reviews"]["version"], retries, ""
    except (httpx.HTTPError, ValueError, KeyError) as error:
        return started, time.monotonic() - started, "", 0, f"{type(error).__name__}: {error}"


async def visit(client: httpx.AsyncClient, samples: list[Sample], *, first: float, period: float) -> None:
    """Ask every `period` seconds from `first` on; late after a slow answer, never with a burst to catch up."""
    due = first
    while True:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        samples.append(await request_page(client))
        due = max(due + period, time.monotonic())


async def report(samples: list[Sample]) -> None:
    """Write what has come in, until nobody reads any more."""
    with contextlib.suppress(BrokenPipeError):
        while True:
            await asyncio.sleep(FLUSH)
            print(json.dumps(samples), flush=True)  # noqa: T201 - the protocol
            samples.clear()


async def run(rate: float, visitors: int) -> None:
    samples: list[Sample] = []
    async with Mesh.from_env() as mesh, httpx.AsyncClient(transport=AsyncMeshTransport(mesh), timeout=10.0) as client:
        await mesh.await_ready()
        now, period = time.monotonic(), visitors / rate
        tasks = [
            asyncio.create_task(visit(client, samples, first=now + number / rate, period=period)) for number in range(visitors)
        ]
        try:
            await report(samples)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rate", type=float, default=80.0, help="requests a second, over all visitors")
    options.add_argument("--visitors", type=int, default=4, help="requests at the same time, at most")
    chosen = options.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(chosen.rate, chosen.visitors))
    sys.stderr.close()  # the reader may be gone: nothing left to say


if __name__ == "__main__":
    main()
