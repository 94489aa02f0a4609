"""Places in the application are given back exactly once, in whatever way a request ends: thousands of random histories."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass
from random import Random

import pytest

from meshlib.model.inbound import Connection, ServerRequest
from meshlib.model.inbound_limits import InboundLimits
from meshlib.model.listener import InboundListener
from meshlib.model.resilience import AdaptiveConcurrency, LoadShedding, ServerResilience
from meshlib.model.snapshot import Snapshot
from meshlib.runtime.enforcement import Enforcement
from meshlib.runtime.serving import Inbound, Serving

PORT = 8080
ENDINGS = (None, None, ValueError("the application failed"), asyncio.CancelledError(), GeneratorExit(), KeyboardInterrupt())


@dataclass(eq=False)
class Request:
    """`task`: it waits for its place."""

    serving: Serving
    task: asyncio.Task[None] | None = None
    inside: bool = False


class History:
    """What may happen to a process that serves one port, drawn at random."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.inbound = Inbound(clock=lambda: self.now)
        self.enforcement = Enforcement(self.inbound)
        self.requests: list[Request] = []
        self.configure()

    def configure(self) -> None:
        """Limits lowered, raised, removed and made again."""
        draw = self.random
        limits = InboundLimits(draw.choice([None, 1, 3, 8]), draw.choice([None, 1, 2, 5]), draw.choice([None, 0, 2]))
        adaptive = draw.choice([None, AdaptiveConcurrency(), AdaptiveConcurrency(min_rtt_requests=2)])
        resilience = ServerResilience("default/p", LoadShedding(draw.choice([0, 2, 6])), adaptive)
        listener = InboundListener(
            "inbound", PORT, limits=draw.choice([None, limits, limits]), resilience=draw.choice([None, resilience, resilience])
        )
        self.enforcement.publish(Snapshot(inbound={PORT: listener}))

    async def step(self) -> None:
        self.now += self.random.random()
        kind = self.random.random()
        if kind < 0.05:
            self.configure()
        elif kind < 0.5:
            self.arrive()
        elif self.requests:
            self.go_on(self.random.choice(self.requests))
        await asyncio.sleep(0)

    def arrive(self) -> None:
        priority = (b"priority", b"u=%d" % self.random.randrange(8))
        grpc = self.random.random() < 0.2
        request = ServerRequest(
            "POST", b"/a.B/C", [(b"host", b"orders"), priority], connection=Connection(local_port=PORT), grpc=grpc
        )
        serving = self.inbound.serve(request)
        if serving.refusal is None:
            self.requests.append(Request(serving, asyncio.create_task(serving.acheck()) if serving.pending else None))

    def go_on(self, request: Request) -> None:
        """The next thing that happens to a request."""
        serving = request.serving
        if request.task is not None:
            if not request.task.done():
                if self.random.random() < 0.3:
                    request.task.cancel()
                    self.requests.remove(request)
                return
            request.task = None
        if serving.refusal is not None or (not request.inside and self.random.random() < 0.05):
            self.requests.remove(request)  # refused, or the server fails before the application
        elif not request.inside:
            serving.__enter__()
            request.inside = True
        elif self.random.random() < 0.4:
            if serving.stay is not None:
                serving.stay.end(sampled=self.random.random() < 0.5)
        else:
            error = self.random.choice(ENDINGS)
            serving.__exit__(type(error) if error is not None else None, error, None)
            self.requests.remove(request)

    async def end(self) -> None:
        for request in self.requests:
            if request.task is not None:
                request.task.cancel()
                await asyncio.gather(request.task, return_exceptions=True)
            if request.inside:
                request.serving.__exit__(None, None, None)
        self.requests.clear()
        await asyncio.sleep(0)


@pytest.mark.parametrize("seeds", [range(150), pytest.param(range(150, 5000), marks=pytest.mark.soak)])
async def test_every_place_is_given_back_exactly_once(seeds: range) -> None:
    """Requests that are answered, fail, are cancelled, wait, give up waiting or are forgotten, under limits that change."""
    for seed in seeds:
        history = History(seed)
        for _ in range(60):
            await history.step()
            for shedding in history.enforcement.shedding.values():
                assert shedding.shedder.active >= 0
        await history.end()
        gc.collect(0)  # what was forgotten in a cycle
        assert (history.inbound.active, history.inbound.waiting) == (0, 0), seed
        for limits in history.enforcement.limits.values():
            assert (limits.active, limits.streams, limits.pending) == (0, 0, 0), seed
        for shedding in history.enforcement.shedding.values():
            assert shedding.shedder.active == 0, seed
            controller = shedding.shedder.controller
            assert controller is None or controller.active == 0, seed


def flooded(given_up: bool) -> int:
    """The limit after requests that take 50 ms; `given_up`: among nine times as many that their sender ends after 1 ms."""
    now = 0.0
    inbound = Inbound(clock=lambda: now)
    enforcement = Enforcement(inbound)
    resilience = ServerResilience("default/p", adaptive_concurrency=AdaptiveConcurrency())
    enforcement.publish(Snapshot(inbound={PORT: InboundListener("inbound", PORT, resilience=resilience)}))
    for number in range(3000):
        cancelled = given_up and number % 10 != 0
        serving = inbound.serve(ServerRequest("GET", b"/", [(b"host", b"orders")], connection=Connection(local_port=PORT)))
        assert serving.refusal is None
        serving.__enter__()
        now += 0.001 if cancelled else 0.05
        error = asyncio.CancelledError() if cancelled else None
        serving.__exit__(type(error) if error is not None else None, error, None)
    controller = enforcement.shedding[PORT].shedder.controller
    assert controller is not None
    assert controller.min_rtt == pytest.approx(0.05)
    return controller.limit


def test_who_gives_up_at_once_does_not_lower_the_limit_for_others() -> None:
    """A sender who cancels his calls right away would say that they take no time, and all others that they take long."""
    assert flooded(given_up=True) == flooded(given_up=False)
