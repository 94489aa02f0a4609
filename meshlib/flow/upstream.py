"""The mutable state of one cluster: its hosts, its balancer, what is in flight.  It outlives snapshots.

Steps of a flow never wait, and the driver holds one short lock around each: nothing here needs a lock of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.flow.counting import RequestCounts
from meshlib.flow.guarding import guards_of
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Endpoint
from meshlib.model.outcome import UNREACHED, Outcome, Reset
from meshlib.model.route import RetryPolicy
from meshlib.model.snapshot import ClusterConfig
from meshlib.policy.balancing import HASHING, UNPLACED, Balanced, Balancer, Host, PickContext, Place, balance, fill_tables
from meshlib.policy.budget import FloorCredit, allowed_retries, may_retry, within_share
from meshlib.policy.guard import Guard
from meshlib.policy.health_checking import HealthCounts
from meshlib.policy.hedging import Hedger, hedger_for
from meshlib.policy.outlier_detection import NEVER, OutlierDetector, detector_for
from meshlib.policy.reachability import Reachability
from meshlib.policy.retrying import excludes
from meshlib.policy.rng import Rng
from meshlib.telemetry.events import Emit

_REDRAWS = 4
"""Picks again before the hosts are gone through one by one, when the balancer keeps giving ones that refuse connections."""


_LIMITS = {
    Reset.OVERFLOW: "connections or pending requests",
    Reset.POOL_TIMEOUT: "waited too long for a connection",
}
"""What this process refuses itself."""


class Upstream:
    """One cluster at work."""

    __slots__ = (
        "_balanced",
        "_balancer",
        "_endpoints",
        "_overprovisioning",
        "_place",
        "_plain",
        "active",
        "active_retries",
        "attentive",
        "checks",
        "cluster",
        "counts",
        "detector",
        "due",
        "emit",
        "error",
        "floor",
        "guards",
        "hashes",
        "hedger",
        "hosts",
        "name",
        "plain",
        "reachability",
    )

    def __init__(self, name: str, place: Place = UNPLACED) -> None:
        """`place`: where this process is."""
        self.name = name
        self.cluster: Cluster = Cluster(name)
        self.error = ""  # why the cluster cannot be used; empty: it can
        self.hosts: dict[str, Host] = {}
        self.active = 0  # calls in flight, waiting for a retry included
        self.active_retries = 0
        self.reachability = Reachability()
        self.guards: tuple[Guard, ...] = ()
        self.hedger: Hedger | None = None
        self.emit: Emit | None = None  # None: nobody wants to hear of events
        self.floor = FloorCredit(self.cluster.circuit_breakers, 0.0)
        self.checks = HealthCounts()
        self.counts = RequestCounts()
        self.detector: OutlierDetector | None = None
        self.due = NEVER  # when the detector has to look at its hosts
        self.hashes = False  # calls are placed by a hash of theirs
        self.plain = True  # neither that, nor are calls hedged
        self.attentive = False  # attempts that went well have to be learned from, too
        self._endpoints: Sequence[Endpoint] = ()
        self._overprovisioning = 0
        self._place = place
        self._balanced = Balanced(None, ())
        self._balancer: Balancer | None = None  # of `_balanced`, at hand
        self._plain: Balancer | None = None  # the same, while nothing but the dice has a say in it

    def prepare(self, config: ClusterConfig, place: Place) -> None:
        """Do what takes long of a coming `move` and `update`.  By the same thread, but without the lock."""
        factor = config.overprovisioning_factor
        if config.cluster is not None and config.endpoints is not self._endpoints:
            fill_tables(config.cluster, config.endpoints, self.hosts, overprovisioning=factor, place=place)

    def update(self, config: ClusterConfig, rng: Rng, now: float = 0.0) -> list[Host]:
        """Take over a new configuration.  Returns the hosts that are gone: their pools are the caller's to drain."""
        self.error = config.error
        cluster = config.cluster or self.cluster
        factor = config.overprovisioning_factor
        if cluster.circuit_breakers != self.cluster.circuit_breakers:
            self.floor = FloorCredit(cluster.circuit_breakers, now)
        if config.endpoints is self._endpoints and factor == self._overprovisioning and cluster == self.cluster:
            return []
        self.cluster = cluster
        self.hashes = cluster.lb_policy in HASHING
        self._endpoints = config.endpoints
        self._overprovisioning = factor
        before = self.hosts
        hosts: dict[str, Host] = {}
        for endpoint in config.endpoints:
            host = before.get(endpoint.key) or Host(endpoint, now)
            host.endpoint = endpoint
            host.weight = max(endpoint.weight, 1)
            hosts[endpoint.key] = host
        self.hosts = hosts
        self.detector = detector_for(self.detector, self, cluster.outlier_detection, now)
        self.due = self.detector.due if self.detector is not None else NEVER
        self.guards = guards_of(self, rng)
        self.hedger = hedger_for(self.hedger, cluster.resilience, now)
        self.plain = not self.hashes and self.hedger is None
        self.reachability.keep(hosts.values())
        self.health_changed(rng, now)
        return [host for key, host in before.items() if key not in hosts]

    def health_changed(self, rng: Rng, now: float) -> None:
        """Build anew what depends on who is healthy.  Called when a host was ejected, failed its health checks, or is back."""
        self._balanced = balance(
            self.cluster, self.hosts.values(), rng, now, overprovisioning=self._overprovisioning, place=self._place
        )
        self._balancer = self._balanced.balancer
        self._attend()

    @property
    def usable(self) -> bool:
        """There is somebody to pick."""
        return self._balancer is not None

    def move(self, place: Place, rng: Rng, now: float) -> None:
        """The process's own surroundings are others than before."""
        if place != self._place:
            self._place = place
            if self.cluster.balancing.zone_aware is not None or self.cluster.balancing.locality_weighted:
                self.health_changed(rng, now)

    def pick(
        self,
        tried: Sequence[Host],
        attempts: int,
        rng: Rng,
        now: float,
        hash: int | None = None,  # noqa: A002  # Envoy's word
    ) -> Host | None:
        """A host, avoiding those already tried for up to `attempts` further picks; None: there is none to pick from.

        One that refused a connection a moment ago is left alone as long as there is another.  `hash`: of the call, where
        `hashes` holds.
        """
        if now >= self.due:
            self._look_at_outliers(rng, now)
        plain = self._plain
        if plain is not None and not tried:  # nearly all calls
            return plain.pick(rng, now)
        balancer = self._balancer
        return self._choose(balancer, PickContext(hash, tried, attempts), rng, now) if balancer is not None else None

    def pick_again(
        self,
        tried: Sequence[Host],
        policy: RetryPolicy,
        rng: Rng,
        now: float,
        hash: int | None = None,  # noqa: A002  # Envoy's word
    ) -> Host | None:
        """A host for a retry, after attempts on these."""
        if now >= self.due:
            self._look_at_outliers(rng, now)
        avoided = tried if policy.previous_hosts else ()
        priorities = self._balanced.priorities
        if priorities is None or not policy.previous_priorities:
            return self.pick(avoided, policy.host_selection_attempts, rng, now, hash)
        left_out = priorities.left_out(tried, policy.previous_priorities)
        context = PickContext(hash, avoided, policy.host_selection_attempts, left_out)
        return self._choose(priorities, context, rng, now)

    def _choose(self, balancer: Balancer, context: PickContext, rng: Rng, now: float) -> Host | None:
        host = balancer.pick(rng, now, context)
        for _ in range(context.redraws):
            if host is None or not excludes(context.tried, host):
                break
            context.attempt += 1
            host = balancer.pick(rng, now, context)
        if host is not None and self.reachability.refused_by:
            host = self._reachable(host, balancer, context, rng, now)
        return host

    def _reachable(self, host: Host, balancer: Balancer, context: PickContext, rng: Rng, now: float) -> Host:
        """`host`, or another in its place if it refuses connections; the same if all do."""
        avoids = self.reachability.avoids
        chosen = host
        for _ in range(_REDRAWS):
            if not avoids(chosen, now):
                break
            context.attempt += 1
            chosen = balancer.pick(rng, now, context) or host
        if avoids(chosen, now):
            hosts, tried = self._balanced.hosts, context.tried
            start = rng.randrange(len(hosts))
            rest = (*hosts[start:], *hosts[:start])
            fallback = next((each for each in rest if not avoids(each, now)), host)
            chosen = next((each for each in rest if not avoids(each, now) and not excludes(tried, each)), fallback)
        self.reachability.chosen(chosen, now, rng)
        return chosen

    def _attend(self) -> None:
        refused = bool(self.reachability.refused_by)
        self.attentive = self.detector is not None or refused
        self._plain = None if refused or self.hashes else self._balancer

    def catch_up(self, rng: Rng, now: float) -> None:
        """Make up for what is due though nobody calls, for those who want to know how hosts are."""
        if now >= self.due:
            self._look_at_outliers(rng, now)

    def _look_at_outliers(self, rng: Rng, now: float) -> None:
        assert self.detector is not None
        if self.detector.tick(now, rng):
            self.health_changed(rng, now)
        self.due = self.detector.due

    def learn(self, host: Host, outcome: Outcome, rng: Rng) -> None:
        """What an attempt on `host` came to: the next calls profit from it."""
        if outcome.reset is not None or self.reachability.refused_by:
            self._learn_reachability(host, outcome, rng)
        if self.detector is not None and self.detector.learn(host, outcome, rng):
            self.health_changed(rng, outcome.at)

    def _learn_reachability(self, host: Host, outcome: Outcome, rng: Rng) -> None:
        if outcome.reset is None:
            self.reachability.answered(host)
        elif outcome.reset in UNREACHED:
            self.reachability.refused(host, outcome.at, rng)
        elif outcome.reset in _LIMITS:
            self.counts.overflow(self, outcome.at, _LIMITS[outcome.reset], host.key)
        self._attend()

    @property
    def allowed_retries(self) -> int:
        """How many the budget lets be under way now, as far as there is credit for its floor."""
        return allowed_retries(self.cluster.circuit_breakers, self.active - self.active_retries)

    def may_retry(self, now: float) -> bool:
        """Asks the budget, whose share is one of first tries; the caller counts `active_retries`."""
        breakers, first_tries = self.cluster.circuit_breakers, self.active - self.active_retries
        if within_share(breakers, first_tries, self.active_retries):
            return True
        if not may_retry(breakers, first_tries, self.active_retries):
            return False
        return self.floor.spend(breakers, sum(host.total for host in self.hosts.values()), now)
