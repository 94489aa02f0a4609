"""A service under load, event by event: what a limit of concurrency does to its goodput.  No clock, no threads, no sleeps.

An open-loop client (Poisson arrivals, as of many independent callers) calls a server with a fixed number of workers and one
queue.  A response is good if it comes before its caller has given up; the server works off the others all the same, as
servers do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import Protocol


class Limit(Protocol):
    """Who may come in."""

    def admit(self, now: float) -> bool: ...

    def done(self, now: float, began: float) -> None: ...


class NoLimit:
    """The control: everybody."""

    def admit(self, now: float) -> bool:
        return True

    def done(self, now: float, began: float) -> None:
        pass


@dataclass(frozen=True)
class Phase:
    """Seconds of a constant load, as a multiple of the server's capacity."""

    seconds: float
    load: float


@dataclass
class Result:
    """By second of arrival: what was asked, refused, and answered in time; latencies of the latter."""

    arrived: list[int]
    refused: list[int]
    good: list[int]
    latencies: list[list[float]] = field(default_factory=list)

    def goodput(self, since: int, until: int) -> float:
        """Good answers a second."""
        return sum(self.good[since:until]) / (until - since)


@dataclass
class Server:
    """`mean`: seconds of work for one request, exponentially distributed; `patience`: of callers."""

    workers: int = 10
    mean: float = 0.05
    patience: float = 1.0

    @property
    def capacity(self) -> float:
        return self.workers / self.mean

    def run(self, phases: Sequence[Phase], limit: Limit, rng: Random) -> Result:
        total = int(sum(phase.seconds for phase in phases))
        result = Result([0] * total, [0] * total, [0] * total, [[] for _ in range(total)])
        waiting: deque[float] = deque()
        ends: list[tuple[float, float]] = []  # when, began

        def finish_until(now: float) -> None:
            while ends and ends[0][0] <= now:
                end, began = heappop(ends)
                limit.done(end, began)
                if end - began <= self.patience:
                    result.good[int(began)] += 1
                    result.latencies[int(began)].append(end - began)
                if waiting:
                    heappush(ends, (end + rng.expovariate(1.0 / self.mean), waiting.popleft()))

        for arrival in _arrivals(phases, self.capacity, rng):
            finish_until(arrival)
            result.arrived[int(arrival)] += 1
            if not limit.admit(arrival):
                result.refused[int(arrival)] += 1
            elif len(ends) < self.workers:
                heappush(ends, (arrival + rng.expovariate(1.0 / self.mean), arrival))
            else:
                waiting.append(arrival)
        finish_until(float("inf"))
        return result


def _arrivals(phases: Sequence[Phase], capacity: float, rng: Random) -> list[float]:
    times: list[float] = []
    begin = 0.0
    for phase in phases:
        now = begin
        while phase.load:
            now += rng.expovariate(phase.load * capacity)
            if now >= begin + phase.seconds:
                break
            times.append(now)
        begin += phase.seconds
    return times


Make = Callable[[], Limit]
