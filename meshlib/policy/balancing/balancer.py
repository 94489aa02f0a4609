"""What every balancer is: hosts, and a way to pick one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from meshlib.policy.balancing.host import Host
from meshlib.policy.rng import Rng


class PickContext:
    """What some picks depend on besides the dice (Envoy ``LoadBalancerContext``); most have none.

    `hash`: of the call, 64 bits; None: the route hashes nothing of it, so any host may be meant.  `tried`: hosts to keep away
    from, for up to `redraws` further draws.  `left_out`: priorities to keep away from.  `attempt` counts the redraws.
    """

    __slots__ = ("attempt", "hash", "left_out", "redraws", "tried")

    def __init__(
        self,
        hash: int | None = None,  # noqa: A002  # Envoy's word
        tried: Sequence[Host] = (),
        redraws: int = 0,
        left_out: frozenset[int] = frozenset(),
    ) -> None:
        self.hash = hash
        self.tried = tried
        self.redraws = redraws
        self.left_out = left_out
        self.attempt = 0


class Balancer(Protocol):
    """Picks one of its hosts.  `now` is the flow's clock, in seconds."""

    def pick(self, rng: Rng, now: float = 0.0, context: PickContext | None = None) -> Host | None:
        """Never waits, never fails; None: there is nobody to pick where this call has to go."""
        ...
