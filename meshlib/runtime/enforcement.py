"""From snapshots to what holds for each served port: listeners compiled once per change, plans swapped as one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from random import Random

from meshlib.flow.inbound import NO_POLICY, InboundPlan, compile_listener
from meshlib.flow.limiting import Limiting
from meshlib.flow.shedding import Shedding
from meshlib.model.authentication import JwtAuthentication
from meshlib.model.inbound_limits import InboundLimits
from meshlib.model.listener import InboundListener
from meshlib.model.resilience import ServerResilience
from meshlib.model.snapshot import Snapshot
from meshlib.policy.jwt_keys import KeySource
from meshlib.runtime.admission import RequestLimits
from meshlib.runtime.fork import forget_in_child
from meshlib.runtime.serving import Inbound

logger = logging.getLogger("meshlib")


class Enforcement:
    """Feeds one `Inbound`, which knows what holds until something is said."""

    def __init__(
        self,
        inbound: Inbound,
        *,
        keys: KeySource | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.limiting = Limiting(threading.Lock(), inbound.clock)
        forget_in_child(self)
        self._inbound = inbound
        self._keys = keys
        self._wall = wall
        self.limits: dict[int, RequestLimits] = {}  # of ports that ever had some
        self.shedding: dict[int, Shedding] = {}  # the same
        self._compiled: dict[int, tuple[InboundListener, InboundPlan]] = {}
        inbound.publish({})

    def publish(self, snapshot: Snapshot) -> None:
        """Take what a snapshot says.  A listener that cannot be compiled leaves the one before it in force."""
        listeners: Mapping[int, InboundListener] = snapshot.inbound
        changed = False
        for port, listener in listeners.items():
            known = self._compiled.get(port)
            if known is not None and known[0] is listener:
                continue
            try:
                plan = compile_listener(
                    listener,
                    now=self._wall,
                    keys=self._keys,
                    limiting=self.limiting,
                    admission=self._admission,
                    shedding=self._shedding,
                )
            except ValueError:
                logger.exception("the policies of port %d cannot be compiled; what held before still does", port)
                continue
            self._compiled[port] = (listener, plan)
            changed = True
        if changed:
            self._inbound.publish({port: plan for port, (_, plan) in self._compiled.items()})

    def _admission(self, port: int, limits: InboundLimits) -> RequestLimits:
        """One for each port, whatever is said of it later: it knows who is in."""
        known = self.limits.get(port)
        if known is None:
            known = self.limits[port] = RequestLimits(limits)
        else:
            known.apply(limits)
        return known

    def _shedding(self, port: int, policy: ServerResilience) -> Shedding:
        """One for each port, whatever is said of it later: it knows who is in, and how long that takes."""
        known = self.shedding.get(port)
        if known is None:
            known = self.shedding[port] = Shedding(
                port, lock=threading.RLock(), clock=self._inbound.clock, rng=Random(), emit=self.limiting.emit
            )
        known.apply(policy)
        return known

    @property
    def key_sets(self) -> frozenset[str]:
        """Where the providers of what is in force have their keys (``jwks_uri``)."""
        filters = [each for listener, _ in self._compiled.values() for each in listener.filters]
        providers = [known for each in filters if isinstance(each, JwtAuthentication) for known in each.providers.values()]
        return frozenset(provider.jwks_uri for provider in providers if provider.jwks_uri)

    def forget(self) -> None:
        """In a forked child: somebody may have held the lock."""
        self.limiting.lock = threading.Lock()
        for shedding in self.shedding.values():
            shedding.forget(threading.RLock())

    def knows(self, port: int) -> bool:
        """Whether it is known what holds for a port."""
        return port in self._compiled or self._inbound.unlisted is NO_POLICY
