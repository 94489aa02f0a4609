"""Snapshot -> what calls look up: compiled once per update, published by one assignment."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from meshlib.flow.destination import Destination
from meshlib.flow.limiting import CallLimits, Limiting
from meshlib.flow.upstream import Upstream
from meshlib.model.route import Forward
from meshlib.model.snapshot import Snapshot, Target
from meshlib.policy.balancing import Host
from meshlib.policy.rng import Rng
from meshlib.runtime.dns import Resolver, is_dns
from meshlib.runtime.drive import Lock
from meshlib.runtime.whereabouts import Whereabouts
from meshlib.telemetry.events import Emit

logger = logging.getLogger("meshlib")


class Destinations:
    """Keeps upstreams alive across snapshots, and recompiles only what changed.

    `gone` is called, outside of the lock, with the hosts that left an upstream.
    """

    def __init__(
        self,
        lock: Lock,
        rng: Rng,
        gone: Callable[[list[Host]], None],
        limiting: Limiting | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`limiting`: of calls; None: the state of rate limits is this object's own."""
        self.whereabouts = Whereabouts()
        self.limiting = limiting or Limiting(lock, time.monotonic)
        self.current: Mapping[str, Destination] = {}
        self.upstreams: dict[str, Upstream] = {}
        self.emit: Emit | None = None  # told what policies do by themselves
        self.follow_upstreams: Callable[[Iterable[Upstream]], None] | None = None  # hears of all after each change
        self._lock = lock
        self._rng = rng
        self._clock = clock
        self._gone = gone
        self._snapshot = Snapshot()
        self._resolver = Resolver(self._resolved)
        self._publishing = threading.Lock()  # the control stream's thread and the resolver's

    def publish(self, snapshot: Snapshot) -> None:
        """Take a snapshot over."""
        with self._publishing:
            self._snapshot = snapshot
            self._take_over(snapshot)
        self.whereabouts.look_around(snapshot)

    def close(self) -> None:
        """Resolve no more names."""
        self._resolver.close()

    def _resolved(self) -> None:
        """Some host name has other addresses than before."""
        with self._publishing:
            self._take_over(self._snapshot)

    def _take_over(self, snapshot: Snapshot) -> None:
        gone: list[Host] = []
        raw = {name: config for target in snapshot.targets.values() for name, config in target.clusters.items()}
        configs = {name: self._resolver.expand(config) for name, config in raw.items()}
        self._resolver.keep({endpoint.address for config in raw.values() for endpoint in config.endpoints if is_dns(config)})
        place, now = self.whereabouts.place(snapshot), self._clock()
        upstreams = {name: self.upstreams.get(name) or self._new_upstream(name) for name in configs}
        for name, config in configs.items():
            upstreams[name].prepare(config, place)
        with self._lock:
            self.upstreams.update(upstreams)
            for name, config in configs.items():
                upstream = upstreams[name]
                upstream.move(place, self._rng, now)
                gone += upstream.update(config, self._rng, now)
            for name in self.upstreams.keys() - configs.keys():
                gone += self.upstreams.pop(name).hosts.values()
        if self.follow_upstreams is not None:
            self.follow_upstreams(self.upstreams.values())
        self.current = {
            authority: destination
            for authority, target in snapshot.targets.items()
            if (destination := self._destination(authority, target)) is not None
        }
        if gone:
            self._gone(gone)

    def _new_upstream(self, name: str) -> Upstream:
        upstream = Upstream(name)
        upstream.emit = self.emit
        return upstream

    def _destination(self, authority: str, target: Target) -> Destination | None:
        before = self.current.get(authority)
        if before is not None and before.target.virtual_host is target.virtual_host:
            names = target.clusters.keys()
            if before.target.clusters.keys() == names and all(self.upstreams[n] is before.upstreams[n] for n in names):
                return before
        try:
            limits = target.virtual_host.limits
            checks = CallLimits(limits, self.limiting) if limits is not None else None
            upstreams = {name: self.upstreams[name] for name in target.clusters}
            return Destination(target, upstreams, checks, address=self._address(target))
        except ValueError as error:
            # The decoder refuses what cannot be compiled; should one slip through, the last good routes stay.
            logger.error("routes of %s cannot be compiled, keeping the ones before: %s", authority, error)
            return before

    def _address(self, target: Target) -> str:
        """This process's own, if calls are placed by it."""
        actions = [route.action for route in target.virtual_host.routes]
        by_source = any(
            policy.kind == "source_ip" for action in actions if isinstance(action, Forward) for policy in action.hash_policies
        )
        return self.whereabouts.address if by_source else ""
