"""The dice that policies roll, handed in by the runtime so that tests can seed them."""

from __future__ import annotations

from typing import Protocol


class Rng(Protocol):
    """What ``random.Random`` offers and policies use."""

    def random(self) -> float:
        """A float in [0, 1)."""
        ...

    def randrange(self, stop: int, /) -> int:
        """An int in [0, stop)."""
        ...
