"""What a process does next about its certificate.  Pure: times and dice are arguments."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from meshlib.policy.rng import Rng

HALF: Final = 0.5
SPREAD: Final = 0.1
"""Renewal at half of the lifetime, give or take a tenth of that: a fleet that was started at once does not renew at once."""

LOOK: Final = 60.0
"""Seconds after which the wall clock is looked at again at the latest, should it have been set meanwhile."""


class Step(Enum):
    """What to do now."""

    WAIT = "wait"
    ENROL = "enrol"  # prove by a credential (or by what another worker of this service has) who we are
    RENEW = "renew"  # prove it by the current certificate


@dataclass(frozen=True, slots=True)
class Holding:
    """A certificate from the point of view of its renewal.  Times in Unix seconds."""

    not_after: float
    due: float  # for renewal


@dataclass(frozen=True, slots=True)
class Pause:
    """After failures: nothing is tried before `until`, on the monotonic clock."""

    until: float = 0.0
    refused: bool = False  # the CA does not take our certificate as a proof: a credential is needed again


def due(not_before: float, not_after: float, rng: Rng, *, now: float) -> float:
    """When a certificate that was given out just now is to be renewed (Unix seconds).

    Not before a tenth of its life has passed here, however wrong our clock is: renewals must not follow one another at once.
    """
    life = not_after - not_before
    half = not_before + life * HALF * (1.0 + SPREAD * (2.0 * rng.random() - 1.0))
    return max(half, now + life * HALF * SPREAD * 2.0)


def next_step(holding: Holding | None, pause: Pause, *, wall: float, monotonic: float) -> tuple[Step, float]:
    """The step, and for WAIT for how many seconds at most."""
    left = holding.not_after - wall if holding is not None else 0.0
    if pause.until > monotonic:
        # Not past the end, which others want to be told of.
        return Step.WAIT, min(pause.until - monotonic, LOOK, left if left > 0 else LOOK)
    if holding is None or left <= 0:
        return Step.ENROL, 0.0
    if holding.due <= wall:
        return (Step.ENROL if pause.refused else Step.RENEW), 0.0
    return Step.WAIT, min(holding.due - wall, left, LOOK)
