"""The mutable state of one cluster: its hosts, its balancer, what is in flight.  It outlives snapshots.

Steps of a flow never wait, and the driver holds one short lock around each: nothing here needs a lock of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Endpoint
from meshlib.model.outcome import UNREACHED, Outcome
from meshlib.model.snapshot import ClusterConfig
from meshlib.policy.balancing import Balancer, Host, build_balancer, usable
from meshlib.policy.budget import may_retry
from meshlib.policy.guard import Guard
from meshlib.policy.reachability import Reachability
from meshlib.policy.retrying import excludes
from meshlib.policy.rng import Rng
from meshlib.telemetry.events import Emit

_REDRAWS = 4
"""Picks again before the hosts are gone through one by one, when the balancer keeps giving ones that refuse connections."""


class Upstream:
    """One cluster at work."""

    __slots__ = (
        "_balancer",
        "_endpoints",
        "_usable",
        "active",
        "active_retries",
        "cluster",
        "emit",
        "error",
        "guards",
        "hosts",
        "name",
        "reachability",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.cluster: Cluster = Cluster(name)
        self.error = ""  # why the cluster cannot be used; empty: it can
        self.hosts: dict[str, Host] = {}
        self.active = 0  # calls in flight, waiting for a retry included
        self.active_retries = 0
        self.reachability = Reachability()
        self.guards: tuple[Guard, ...] = ()
        self.emit: Emit | None = None  # None: nobody wants to hear of events
        self._endpoints: Sequence[Endpoint] = ()
        self._usable: Sequence[Host] = ()
        self._balancer: Balancer | None = None

    def update(self, config: ClusterConfig, rng: Rng) -> list[Host]:
        """Take over a new configuration.  Returns the hosts that are gone: their pools are the caller's to drain."""
        self.error = config.error
        cluster = config.cluster or self.cluster
        if config.endpoints is self._endpoints and cluster == self.cluster:
            return []
        self.cluster = cluster
        self._endpoints = config.endpoints
        before = self.hosts
        hosts: dict[str, Host] = {}
        for endpoint in config.endpoints:
            host = before.get(endpoint.key) or Host(endpoint)
            host.endpoint = endpoint
            host.weight = max(endpoint.weight, 1)
            hosts[endpoint.key] = host
        self.hosts = hosts
        self._usable = usable(hosts.values())
        self._balancer = build_balancer(cluster, self._usable, rng)
        self.reachability.keep(self._usable)
        return [host for key, host in before.items() if key not in hosts]

    def pick(self, tried: Sequence[Host], attempts: int, rng: Rng, now: float) -> Host | None:
        """A host, avoiding those already tried for up to `attempts` further picks; None: there is none to pick from.

        One that refused a connection a moment ago is left alone as long as there is another.
        """
        balancer = self._balancer
        if balancer is None:
            return None
        host = balancer.pick(rng)
        if tried:
            for _ in range(attempts):
                if not excludes(tried, host):
                    break
                host = balancer.pick(rng)
        if self.reachability.refused_by:
            host = self._reachable(host, balancer, tried, rng, now)
        return host

    def _reachable(self, host: Host, balancer: Balancer, tried: Sequence[Host], rng: Rng, now: float) -> Host:
        """`host`, or another in its place if it refuses connections; the same if all do."""
        avoids = self.reachability.avoids
        chosen = host
        for _ in range(_REDRAWS):
            if not avoids(chosen, now):
                break
            chosen = balancer.pick(rng)
        if avoids(chosen, now):
            start = rng.randrange(len(self._usable))
            rest = (*self._usable[start:], *self._usable[:start])
            fallback = next((each for each in rest if not avoids(each, now)), host)
            chosen = next((each for each in rest if not avoids(each, now) and not excludes(tried, each)), fallback)
        self.reachability.chosen(chosen, now, rng)
        return chosen

    @property
    def attentive(self) -> bool:
        """Whether attempts that went well have to be learned from, too."""
        return bool(self.reachability.refused_by)

    def learn(self, host: Host, outcome: Outcome, rng: Rng) -> None:
        """What an attempt on `host` came to: the next calls profit from it."""
        if outcome.reset is None:
            self.reachability.answered(host)
        elif outcome.reset in UNREACHED:
            self.reachability.refused(host, outcome.at, rng)

    def may_retry(self) -> bool:
        """Asks the budget; the caller counts `active_retries`."""
        return may_retry(self.cluster.circuit_breakers, self.active, self.active_retries)
