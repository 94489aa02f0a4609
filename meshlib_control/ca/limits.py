"""How often an address may try to prove who it is, and an identity may ask for certificates."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_second` on average, `burst` at once."""

    per_second: float
    burst: float


@dataclass(frozen=True, slots=True)
class CaLimits:
    """An address is that of a machine (IPv6: its network, /64), which may run many workloads that start together."""

    address: Rate = Rate(1.0, 20.0)
    identity: Rate = Rate(10.0, 100.0)


class RateLimiter:
    """One bucket a key.  The longest unused of more than `capacity` is forgotten, so that made-up keys cost no memory."""

    def __init__(self, rate: Rate, *, capacity: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._capacity = capacity
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens left, and when

    def allow(self, key: str) -> bool:
        """Take one, if there is one."""
        now = self._clock()
        left, at = self._buckets.pop(key, (self._rate.burst, now))
        left = min(self._rate.burst, left + max(0.0, now - at) * self._rate.per_second)
        allowed = left >= 1.0
        self._buckets[key] = (left - 1.0 if allowed else left, now)
        while len(self._buckets) > self._capacity:
            self._buckets.popitem(last=False)
        return allowed


def origin_of(address: str) -> str:
    """What counts as one caller: an IPv4 address, or the /64 of an IPv6 one, all of which one machine may have."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
