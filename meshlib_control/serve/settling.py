"""After a start: do not take from clients what this process merely does not know yet.

A control service that comes back with an empty catalog (a lost database, Consul not answering, workloads that have not
registered again) would tell every client that its endpoints are gone.  Until the settle period is over, and for as long
as the catalog has been empty ever since the start, whatever a reconnecting client says that it has is left alone unless
there is real content to replace it.  What lists many services at once is left alone to the end, as it may be incomplete.
"""

from __future__ import annotations

from meshlib_control.compile.node import Flavour
from meshlib_control.serve.cache import Packed

DEFAULT_PERIOD = 10.0
"""Seconds; more than workloads need to notice (NOT_FOUND on renewal) and register again."""


class Settling:
    """Pure; the clock is an argument."""

    def __init__(self, started: float, *, period: float = DEFAULT_PERIOD, empty: bool = False) -> None:
        self._until = started + period
        self._period = period
        self.suspicious_empty = empty  # nothing has ever been known since the start
        self.active = period > 0 or empty
        self._began_empty = empty

    def observe(self, now: float, *, empty: bool) -> None:
        """A new world was taken; `empty`: it has no service at all."""
        if self.suspicious_empty and not empty:
            self.suspicious_empty = False
            # The first registrations are in; the others follow within the same time.
            self._until = max(self._until, now + self._period)

    def tick(self, now: float) -> bool:
        """True once: the moment it is over, and what was held back can go out."""
        if not self.active or self.suspicious_empty or now < self._until:
            return False
        self.active = False
        return True

    @property
    def ends_at(self) -> float | None:
        """When to `tick`; None: not before something is known."""
        return self._until if self.active and not self.suspicious_empty else None

    def holds_back_listings(self, flavour: Flavour) -> bool:
        """Should whatever speaks of many services at once be kept from clients that have a version of it?

        It takes away what it leaves out.  Listings are the complete responses of state-of-the-world CDS and LDS, and
        Envoy's route configurations, which hold the routes to every host.
        """
        return self.active and (self.suspicious_empty or (self._began_empty and flavour == "envoy"))

    def holds_back(self, packed: Packed | None, flavour: Flavour) -> bool:
        """Should `packed` (None: does not exist) be kept from a client that has some version of it?"""
        return self.active and (packed is None or packed.empty or self.holds_back_listings(flavour))
