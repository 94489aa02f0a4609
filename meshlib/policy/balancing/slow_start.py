"""A host that has just joined, or come back, gets its share little by little (Envoy ``SlowStartConfig``)."""

from __future__ import annotations

from collections.abc import Iterable

from meshlib.model import cluster as model
from meshlib.policy.balancing.host import Host

_SHORTEST = 0.001
"""Seconds: Envoy counts in milliseconds, and from one."""


class SlowStart:
    """Of one cluster."""

    __slots__ = ("_exponent", "_floor", "_window")

    def __init__(self, settings: model.SlowStart) -> None:
        self._window = settings.window
        self._floor = settings.min_weight_percent / 100.0
        self._exponent = 1.0 / settings.aggression

    def factor(self, host: Host, now: float) -> float:
        """What the host's weight is multiplied by."""
        elapsed = now - host.recovered
        if elapsed >= self._window:
            return 1.0
        share: float = (max(elapsed, _SHORTEST) / self._window) ** self._exponent
        return max(self._floor, share)

    def over_at(self, hosts: Iterable[Host]) -> float:
        """When the last of them has its full share."""
        return max(host.recovered for host in hosts) + self._window
