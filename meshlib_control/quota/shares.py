"""How a whole is divided among those who want parts of it.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

K = TypeVar("K")


def divide(whole: float, wants: Mapping[K, float]) -> dict[K, float]:
    """Shares whose sum is `whole` at most.

    Max-min fairness: nobody gets less than an equal part, unless he wants less; what those leave goes to the others.  If all
    have what they want, the rest is divided equally, so that whoever suddenly wants more has some.
    """
    shares: dict[K, float] = {}
    left = max(whole, 0.0)
    waiting = len(wants)
    for key, want in sorted(wants.items(), key=lambda item: item[1]):
        shares[key] = part = min(max(want, 0.0), left / waiting)
        left = max(left - part, 0.0)
        waiting -= 1
    spare = left / len(shares) if shares else 0.0
    return {key: share + spare for key, share in shares.items()} if spare else shares
