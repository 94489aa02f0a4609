"""Which host of those that are eligible: ROUND_ROBIN, LEAST_REQUEST and RANDOM, as in Envoy.

The unweighted picks cost the same for ten hosts and for ten thousand.  With differing weights, or while some host is warming
up, ROUND_ROBIN and LEAST_REQUEST go by earliest deadline first, which is logarithmic; RANDOM ignores weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from meshlib.model.cluster import Balancing, Cluster, LbPolicy
from meshlib.policy.balancing.balancer import Balancer, PickContext
from meshlib.policy.balancing.edf import EarliestDeadlineFirst
from meshlib.policy.balancing.host import Host
from meshlib.policy.balancing.slow_start import SlowStart
from meshlib.policy.rng import Rng


class RoundRobin:
    """In turn, starting at a random place so that many clients do not march in step."""

    __slots__ = ("_hosts", "_next")

    def __init__(self, hosts: Sequence[Host], rng: Rng) -> None:
        self._hosts = tuple(hosts)
        self._next = rng.randrange(len(self._hosts))

    def pick(self, rng: Rng, now: float = 0.0, context: PickContext | None = None) -> Host:
        index = self._next
        self._next = index + 1 if index + 1 < len(self._hosts) else 0
        return self._hosts[index]


class Random:
    """Uniform."""

    __slots__ = ("_count", "_hosts")

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = tuple(hosts)
        self._count = len(self._hosts)

    def pick(self, rng: Rng, now: float = 0.0, context: PickContext | None = None) -> Host:
        return self._hosts[int(rng.random() * self._count)]


class LeastRequest:
    """Power of `choices` draws, with replacement; the first draw wins ties (Envoy N_CHOICES)."""

    __slots__ = ("_count", "_hosts", "_more")

    def __init__(self, hosts: Sequence[Host], choices: int = 2) -> None:
        self._hosts = tuple(hosts)
        self._count = len(self._hosts)
        self._more = range(max(choices, 2) - 1)

    def pick(self, rng: Rng, now: float = 0.0, context: PickContext | None = None) -> Host:
        hosts, count = self._hosts, self._count
        if count == 1:
            return hosts[0]
        best = hosts[int(rng.random() * count)]
        for _ in self._more:
            other = hosts[int(rng.random() * count)]
            if other.active < best.active:
                best = other
        return best


class WarmingUp:
    """By earliest deadline while some host is in its slow start; what equal weights deserve from then on."""

    __slots__ = ("_balancer", "_settled", "_until")

    def __init__(self, balancer: Balancer, until: float, settled: Callable[[Rng], Balancer]) -> None:
        self._balancer = balancer
        self._until = until
        self._settled: Callable[[Rng], Balancer] | None = settled

    def pick(self, rng: Rng, now: float = 0.0, context: PickContext | None = None) -> Host | None:
        if self._settled is not None and now >= self._until:
            self._balancer = self._settled(rng)
            self._settled = None
        return self._balancer.pick(rng, now)


def balance_within(cluster: Cluster, hosts: Sequence[Host], rng: Rng, now: float) -> Balancer:
    """The balancer that the cluster asks for over these hosts; there is at least one."""
    if cluster.lb_policy is LbPolicy.RANDOM:
        return Random(hosts)
    settings, by_load = cluster.balancing, cluster.lb_policy is not LbPolicy.ROUND_ROBIN
    slow = SlowStart(settings.slow_start) if settings.slow_start is not None else None
    weighted = len({host.weight for host in hosts}) > 1
    warm_at = slow.over_at(hosts) if slow is not None else now
    if not weighted and warm_at <= now:
        return _unweighted(settings, hosts, rng, by_load=by_load)
    bias = settings.active_request_bias if by_load else 0.0
    scheduler = EarliestDeadlineFirst(hosts, _weigher(bias, slow if warm_at > now else None), rng, now)
    if weighted:
        return scheduler
    return WarmingUp(scheduler, warm_at, lambda dice: _unweighted(settings, hosts, dice, by_load=by_load))


def _unweighted(settings: Balancing, hosts: Sequence[Host], rng: Rng, *, by_load: bool) -> Balancer:
    return LeastRequest(hosts, settings.choice_count) if by_load else RoundRobin(hosts, rng)


def _weigher(bias: float, slow: SlowStart | None) -> Callable[[Host, float], float] | None:
    """A host's weight at a time, by what it has in flight and how long it has been there; None: as configured."""
    if slow is None:
        if bias == 0.0:
            return None
        if bias == 1.0:
            return lambda host, now: host.weight / (host.active + 1)
        return lambda host, now: host.weight / (host.active + 1) ** bias
    factor = slow.factor
    return lambda host, now: host.weight / (host.active + 1) ** bias * factor(host, now)
