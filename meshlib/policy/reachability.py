"""Which endpoints take connections, as calls find out: gRPC's subchannel state TRANSIENT_FAILURE, kept per endpoint.

An endpoint that refuses a connection stays in the configuration until its lease or health check says otherwise, and since
a process that was killed has no requests in flight, LEAST_REQUEST would even prefer it.  Retries alone would pay for each of
these picks, out of a budget that is meant for failures nobody could foresee.  So an endpoint that refused is avoided for a
backoff; after it one call, and no more than one, finds out whether it is back.  This is no health check: where every endpoint
refuses, all are used.
"""

from __future__ import annotations

from collections.abc import Collection

from meshlib.policy.backoff import Backoff
from meshlib.policy.balancing import Host
from meshlib.policy.rng import Rng

PROBE_BACKOFF = Backoff(initial=1.0, cap=10.0)
"""Shorter at its end than gRPC's 120 s: the next call is at hand, and costs no more than one refused connection."""


class Reachability:
    """Of one cluster's hosts.  `refused_by` is empty while none has refused, so that asking is free where all is well."""

    __slots__ = ("refused_by",)

    def __init__(self) -> None:
        self.refused_by: dict[Host, tuple[int, float]] = {}  # refusals in a row, and until when the host is avoided

    def avoids(self, host: Host, now: float) -> bool:
        refused = self.refused_by.get(host)
        return refused is not None and now < refused[1]

    def chosen(self, host: Host, now: float, rng: Rng) -> None:
        """A call is about to use it.  If it has refused before, the others wait for what this one finds."""
        refused = self.refused_by.get(host)
        if refused is not None:
            self.refused_by[host] = refused[0], now + PROBE_BACKOFF.delay(refused[0], rng)

    def refused(self, host: Host, now: float, rng: Rng) -> None:
        """No connection was made."""
        count = self.refused_by.get(host, (0, 0.0))[0] + 1
        self.refused_by[host] = count, now + PROBE_BACKOFF.delay(count, rng)

    def answered(self, host: Host) -> None:
        """It takes connections."""
        self.refused_by.pop(host, None)

    def is_known_down(self, hosts: int, attempts: int) -> bool:
        """All of so many hosts refuse, and more calls have found that out than one with `attempts` of its own."""
        refused_by = self.refused_by
        return len(refused_by) >= hosts and sum(count for count, _ in refused_by.values()) > attempts

    def keep(self, hosts: Collection[Host]) -> None:
        """Forget the others: they are gone from the configuration."""
        if self.refused_by:
            kept = set(hosts)
            self.refused_by = {host: refused for host, refused in self.refused_by.items() if host in kept}
