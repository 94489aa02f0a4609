"""What may keep attempts away from a cluster, and learns from those that were made: circuit breakers, adaptive concurrency."""

from __future__ import annotations

from typing import Protocol

from meshlib.errors import CallError
from meshlib.model.outcome import Outcome
from meshlib.policy.rng import Rng


class Guard(Protocol):
    """Asked before each attempt; told exactly once what each attempt that it let through came to."""

    @property
    def error(self) -> type[CallError]:
        """What a caller gets whose first attempt is refused."""
        ...

    def admit(self, now: float, rng: Rng) -> str:
        """Empty: the attempt may be made, and counts as under way.  Otherwise why not, for the caller's error."""
        ...

    def settle(self, outcome: Outcome | None, began: float) -> None:
        """An admitted attempt, made at `began`, has come to `outcome` (None: it was given up, or never made)."""
        ...

    def retry_after(self, now: float) -> float:
        """Seconds until it makes sense to ask again; 0: nobody knows."""
        ...
