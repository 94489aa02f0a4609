"""Envoy's scheduler for what is weighted: earliest deadline first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace
from typing import Generic, Protocol, TypeVar

from meshlib.policy.balancing.balancer import PickContext
from meshlib.policy.rng import Rng


class Weighted(Protocol):
    """What can be scheduled."""

    @property
    def weight(self) -> float: ...


W = TypeVar("W", bound=Weighted)


class EarliestDeadlineFirst(Generic[W]):
    """Each pick puts its item 1/weight further into the future.

    `weigh`: the weight of an item at a time, read whenever the item is put back; None: it stays what it is.
    """

    __slots__ = ("_heap", "_sequence", "_weigh")

    def __init__(self, items: Sequence[W], weigh: Callable[[W, float], float] | None, rng: Rng, now: float = 0.0) -> None:
        self._weigh = weigh
        self._sequence = len(items)
        self._heap = [(1.0 / (item.weight if weigh is None else weigh(item, now)), at, item) for at, item in enumerate(items)]
        heapify(self._heap)
        for _ in range(rng.randrange(len(items))):  # many clients must not march in step
            self.pick(rng, now)

    def pick(self, rng: Rng, now: float = 0.0, context: PickContext | None = None) -> W:
        deadline, _, item = self._heap[0]
        weigh = self._weigh
        self._sequence += 1
        heapreplace(self._heap, (deadline + 1.0 / (item.weight if weigh is None else weigh(item, now)), self._sequence, item))
        return item
