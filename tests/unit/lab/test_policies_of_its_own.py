"""Policies beyond Istio's, and how they are seen."""

from __future__ import annotations

import asyncio

import pytest

from meshlib.testing import Delay, Status
from meshlib_control.lab import MeshLab

BREAKER = """
apiVersion: meshlib.io/v1
kind: ResiliencePolicy
metadata: {name: ratings}
spec:
  host: ratings
  circuitBreaker: {failurePercent: 50, minRequests: 4, window: 10s, openDuration: 5s}
"""

HEDGING = """
apiVersion: meshlib.io/v1
kind: ResiliencePolicy
metadata: {name: ratings}
spec:
  host: ratings
  hedging: {delay: 100ms, maxRequests: 2, budgetPercent: 100}
"""

LIMIT = """
apiVersion: meshlib.io/v1
kind: RateLimitPolicy
metadata: {name: ratings}
spec:
  selector: {matchLabels: {app: ratings}}
  limits:
  - {name: each, tokens: 2, interval: 60s}
"""


def test_a_breaker_opens_and_closes_again(mesh_lab: MeshLab) -> None:
    mesh_lab.service("ratings")
    mesh_lab.apply(BREAKER)
    client = mesh_lab.client("reviews")
    with mesh_lab.inject("ratings", Status(500)):
        while not mesh_lab.events:
            client.get("http://ratings/")
    before = mesh_lab.attempts("ratings")
    with pytest.raises(Exception, match="breaker"):
        client.get("http://ratings/")
    assert mesh_lab.attempts("ratings") == before
    mesh_lab.sleep(10.0)
    assert client.get("http://ratings/").status_code == 200
    assert next(event.name.rpartition(".")[2] for event in mesh_lab.events) == "opened"


def test_a_slow_answer_is_hedged_in_the_labs_time(mesh_lab: MeshLab) -> None:
    """Blocking and not: both kinds of callers race in virtual time."""
    mesh_lab.service("ratings", instances=2)
    mesh_lab.apply(HEDGING)
    client = mesh_lab.client("reviews")
    for _ in range(30):
        client.get("http://ratings/")
    before = mesh_lab.attempts("ratings")
    mesh_lab.inject("ratings", Delay(3.0), times=1)
    began = mesh_lab.clock.now
    assert client.get("http://ratings/").status_code == 200
    assert mesh_lab.attempts("ratings") == before + 2
    assert mesh_lab.clock.now == pytest.approx(began + 0.1)

    async def main() -> int:
        async with mesh_lab.async_client("reviews") as calling:
            return (await calling.get("http://ratings/")).status_code

    mesh_lab.inject("ratings", Delay(3.0), times=1)
    assert mesh_lab.run(main()) == 200
    assert mesh_lab.clock.now == pytest.approx(began + 0.2)


def test_a_limit_fills_up_with_the_labs_time(mesh_lab: MeshLab) -> None:
    mesh_lab.service("ratings")
    mesh_lab.apply(LIMIT)
    client = mesh_lab.client("reviews")
    assert [client.get("http://ratings/").status_code for _ in range(3)] == [200, 200, 429]
    mesh_lab.sleep(60.0)
    assert client.get("http://ratings/").status_code == 200


def test_many_calls_at_once_are_the_same_in_every_run() -> None:
    def run() -> list[tuple[str, int]]:
        with MeshLab(seed=5) as lab:
            lab.service("ratings", instances=3)
            lab.inject("ratings", Delay(0.5), instance=1)
            lab.inject("ratings", Status(503), instance=2, times=7)

            async def main() -> None:
                async with lab.async_client("reviews") as client:
                    await asyncio.gather(*(client.get(f"http://ratings/{number}") for number in range(40)))

            lab.run(main())
            return [(attempted.instance + attempted.path, attempted.status) for attempted in lab.attempted]

    assert run() == run()
