"""How a whole is divided among those who want parts of it.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

K = TypeVar("K")


def divide(whole: float, wants: Mapping[K, float], heads: Mapping[K, int] | None = None) -> dict[K, float]:
    """Shares whose sum is `whole` at most.  `heads`: for how many each of them wants something; None: for itself.

    Max-min fairness: nobody gets less than an equal part, unless he wants less; what those leave goes to the others.  If all
    have what they want, the rest is divided equally, so that whoever suddenly wants more has some.
    """
    counts = {key: max(heads.get(key, 1), 1) if heads is not None else 1 for key in wants}
    shares: dict[K, float] = {}
    left = max(whole, 0.0)
    waiting = everybody = sum(counts.values())
    for key, want in sorted(wants.items(), key=lambda item: item[1] / counts[item[0]]):
        shares[key] = part = min(max(want, 0.0), left * counts[key] / waiting)
        left = max(left - part, 0.0)
        waiting -= counts[key]
    spare = left / everybody if shares else 0.0
    return {key: share + spare * counts[key] for key, share in shares.items()} if spare else shares
