"""A caller that is cancelled at any of its waits leaves nothing behind: no slot, no admitted attempt, no open response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from meshlib.lowlevel import Request
from meshlib.model.cluster import OutlierDetection
from meshlib.model.resilience import AdaptiveConcurrency, CircuitBreaker, Hedging, Resilience
from meshlib.model.snapshot import Target
from meshlib.policy.adaptive_concurrency import ConcurrencyGuard
from meshlib.runtime.client import Client
from meshlib.runtime.surroundings import Surroundings
from meshlib.testing import DEFAULT_RETRY, StaticControl, service, snapshot
from meshlib.wire.errors import CannotConnect

Script = Callable[[int], tuple[int, int]]
"""Number of the attempt -> loop turns until its head, and its status; 0: no connection."""


class OpenResponse:
    """An engine's response whose body never comes."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        self.reason = b""
        self.http_version = b"HTTP/1.1"
        self.closed = False
        self.on_close: Callable[[], None] | None = None

    def abandon(self) -> None:
        if not self.closed:
            self.closed = True
            if self.on_close is not None:
                self.on_close()

    def limit(self, deadline: float | None, name: str) -> None:
        """It has all the time there is."""

    async def aclose(self) -> None:
        self.abandon()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(3):
            await asyncio.sleep(0)
            yield b"x"


class Network:
    """In the place of connection pools."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.attempts = 0
        self.responses: list[OpenResponse] = []

    def for_loop(self, host: object, cluster: object, loop: object) -> Network:
        return self

    async def send(self, head: bytes, body: object = None, **options: Any) -> OpenResponse:
        self.attempts += 1
        turns, status = self.script(self.attempts)
        for _ in range(turns):
            await asyncio.sleep(0)
        if not status:
            raise CannotConnect("nobody is there")
        response = OpenResponse(status)
        self.responses.append(response)
        return response

    def drain(self, hosts: object) -> None:
        """There are no connections."""

    close_loop = drain


def target(hedging: Hedging | None) -> Target:
    made = service("reviews", [f"10.0.0.{number}:80" for number in range(1, 5)], retry=RETRY)
    ((name, config),) = made.clusters.items()
    assert config.cluster is not None
    resilience = Resilience(CircuitBreaker(min_requests=1000), AdaptiveConcurrency(), hedging)
    cluster = replace(config.cluster, resilience=resilience, outlier_detection=OutlierDetection())
    return replace(made, clusters={name: replace(config, cluster=cluster)})


RETRY = replace(DEFAULT_RETRY, attempts=3, retry_on=frozenset({"5xx"}), base_interval=0.0, max_interval=0.0)
SCRIPTS: dict[str, Script] = {
    "answered": lambda attempt: (3, 200),
    "failing first": lambda attempt: (2, 503 if attempt < 3 else 200),
    "refused first": lambda attempt: (1, 0 if attempt < 3 else 200),
    "failing always": lambda attempt: (1, 503),
    "slow first": lambda attempt: (20 if attempt == 1 else 2, 200),
}
HEDGES = {"alone": None, "hedged": Hedging(delay=0.0, max_requests=3, budget_percent=200.0)}


async def call(client: Client) -> None:
    exchange = await client.aexchange(Request("GET", "http", "reviews:80", "/", [], b""))
    assert exchange is not None
    try:
        async for _ in exchange:
            pass
    finally:
        await exchange.aclose()


async def cancelled_after(turns: int, network: Network, hedging: Hedging | None) -> bool:
    """Make a call, cancel it after so many turns of the loop, and see what is left.  False: it was over by then."""
    surroundings = Surroundings(network=lambda tls: network, rng=lambda: Random(1))  # type: ignore[arg-type,return-value]
    control = StaticControl(snapshot(target(hedging)))
    client = Client(control, surroundings=surroundings)
    client.destinations.publish(control.current)
    task = asyncio.ensure_future(call(client))
    for _ in range(turns):
        await asyncio.sleep(0)
    was_under_way = task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for _ in range(3):  # whatever was cut off hears of it
        await asyncio.sleep(0)
    (upstream,) = client.destinations.upstreams.values()
    assert (upstream.active, upstream.active_retries) == (0, 0), turns
    assert not any(host.active for host in upstream.hosts.values()), turns
    (limit,) = (guard for guard in upstream.guards if isinstance(guard, ConcurrencyGuard))
    assert limit.controller.active == 0, turns
    assert all(response.closed for response in network.responses), turns
    client.close()
    return was_under_way


@pytest.mark.parametrize("hedging", HEDGES)
@pytest.mark.parametrize("script", SCRIPTS)
def test_nothing_is_left_behind(script: str, hedging: str) -> None:
    async def run() -> tuple[int, int]:
        for turns in range(200):
            network = Network(SCRIPTS[script])
            if not await cancelled_after(turns, network, HEDGES[hedging]):
                return turns, network.attempts
        raise AssertionError("the call never ends")

    turns, attempts = asyncio.run(run())
    assert turns > 4
    assert (attempts > 1) is ((script, hedging) not in {("answered", "alone"), ("answered", "hedged"), ("slow first", "alone")})
