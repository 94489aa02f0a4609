"""How long to wait before the next try to connect (gRPC "connection backoff", gRFC A57)."""

from __future__ import annotations

from dataclasses import dataclass

from meshlib.policy.rng import Rng


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential with jitter.  Times in seconds; the defaults are gRPC's for ADS streams and subchannels."""

    initial: float = 1.0
    multiplier: float = 1.6
    jitter: float = 0.2
    cap: float = 120.0

    def delay(self, failures: int, rng: Rng) -> float:
        """After `failures` in a row (1 is the first): initial * multiplier^(failures-1), at most the cap, +- jitter.

        The jitter goes on top of the cap: a thousand clients that all reached it must not meet again.
        """
        exponent = max(failures - 1, 0)
        # 1.6 ** 200 is still a float; a count that has grown for weeks might not be.
        base = min(self.cap, self.initial * self.multiplier ** min(exponent, 200))
        return base * (1.0 + self.jitter * (2.0 * rng.random() - 1.0))


CONTROL_BACKOFF = Backoff()
"""Of the ADS stream and of everything else that talks to the control service."""
