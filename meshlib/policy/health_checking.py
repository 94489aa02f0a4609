"""When an endpoint counts as healthy, by active checks: the state machine of Envoy's ``ActiveHealthCheckSession``.

The runtime makes the probes; here is what their results mean, and when the next one is due.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import NamedTuple, Protocol

from meshlib.model.cluster import HealthCheck
from meshlib.policy.balancing.host import Host
from meshlib.policy.outlier_detection import OutlierDetector
from meshlib.policy.rng import Rng
from meshlib.telemetry.events import Emit, Event

SHORTEST = 0.001
"""Seconds between two probes, at least."""


class Change(Enum):
    """What a result does to the state of an endpoint."""

    NONE = "none"
    PENDING = "pending"  # it is the other way round than the state, and more of its kind will change that
    CHANGED = "changed"


class CheckState:
    """What the checks of one endpoint have come to.  It begins as failed; its first success or failure decides at once."""

    __slots__ = ("failed", "failures", "first", "passes")

    def __init__(self) -> None:
        self.failed = True
        self.first = True  # no probe has ended yet
        self.passes = 0  # in a row, while failed
        self.failures = 0  # in a row, while healthy

    def passed(self, check: HealthCheck) -> Change:
        """A probe went well."""
        first, self.first, self.failures = self.first, False, 0
        if not self.failed:
            return Change.NONE
        self.passes += 1
        if not first and self.passes < check.healthy_threshold:
            return Change.PENDING
        self.failed, self.passes = False, 0
        return Change.CHANGED

    def went_wrong(self, check: HealthCheck, *, network: bool) -> Change:
        """A probe failed; `network` as in `Failure`."""
        first, self.first, self.passes = self.first, False, 0
        if self.failed:
            return Change.CHANGED if first else Change.NONE
        self.failures += 1
        if network and self.failures < check.unhealthy_threshold:
            return Change.PENDING
        self.failed, self.failures = True, 0
        return Change.CHANGED


def pause(check: HealthCheck, change: Change, rng: Rng, *, passed: bool, used: bool) -> float:
    """Seconds to the next probe, from the end of one that `passed`, or not.  `used`: the cluster has been called."""
    pending = change is Change.PENDING
    if not used:
        steady = passed and not pending
        seconds = check.no_traffic_healthy_interval or check.no_traffic_interval if steady else check.no_traffic_interval
    elif passed:
        seconds = check.healthy_edge_interval or check.interval if pending else check.interval
    else:
        seconds = check.unhealthy_interval or check.interval
        if pending:
            seconds = check.unhealthy_edge_interval or seconds
    return max(seconds + _jitter(seconds, check, rng), SHORTEST)


def initial_pause(check: HealthCheck, rng: Rng) -> float:
    """Seconds to the first probe."""
    return rng.random() * check.initial_jitter


def _jitter(seconds: float, check: HealthCheck, rng: Rng) -> float:
    jitter = rng.random() * seconds * check.interval_jitter_percent / 100 if check.interval_jitter_percent else 0.0
    return jitter + rng.random() * check.interval_jitter if check.interval_jitter else jitter


class HealthCounts:
    """Of one cluster, under the names of Envoy's statistics (``cluster.NAME.health_check.*``)."""

    __slots__ = ("attempt", "failure", "network_failure", "success")

    def __init__(self) -> None:
        self.attempt = 0
        self.success = 0
        self.failure = 0  # those without an answer in time included
        self.network_failure = 0  # those only


class Failure(NamedTuple):
    """Why a probe failed.  `network`: there was no answer in time, which may be chance; an answer that says no is believed."""

    reason: str
    network: bool


class CheckedCluster(Protocol):
    """The cluster whose hosts are checked."""

    checks: HealthCounts

    @property
    def name(self) -> str: ...

    @property
    def hosts(self) -> Mapping[str, Host]: ...

    @property
    def emit(self) -> Emit | None: ...

    @property
    def detector(self) -> OutlierDetector | None: ...

    def health_changed(self, rng: Rng, now: float) -> None: ...


def begin(host: Host, others: Iterable[Host]) -> bool:
    """`host` is checked from now on.  True: it is left out until its first probe, since another one is known to be healthy.

    Envoy holds the whole cluster back until its first probes have ended.  A library's caller cannot be made to wait for them,
    so as long as nothing is known of any host, all are used.
    """
    host.checking = CheckState()
    host.failed_check = any(is_known_healthy(other) for other in others)
    return host.failed_check


def end(host: Host) -> bool:
    """`host` is checked no more, and in use.  True: it was not."""
    failed, host.failed_check, host.checking = host.failed_check, False, None
    return failed


def settle(cluster: CheckedCluster, host: Host, check: HealthCheck, failure: Failure | None, *, now: float, rng: Rng) -> float:
    """A probe of `host` has ended, well if there is no `failure`.  Returns the seconds to the next one."""
    state: CheckState = host.checking
    first = state.first
    change = state.passed(check) if failure is None else state.went_wrong(check, network=failure.network)
    _count(cluster.checks, failure)
    changed = host.failed_check is not state.failed
    if changed:
        host.failed_check = state.failed
        if not state.failed:
            host.recovered = now
    if failure is None and cluster.detector is not None and cluster.detector.passed_check(host, now):
        changed = True
    if changed:
        cluster.health_changed(rng, now)
    if failure is not None:
        _tell(cluster, host, "health_check.failed", now, failure.reason)
    elif first or change is not Change.NONE:
        _tell(cluster, host, "health_check.passed", now, "")
    if change is Change.CHANGED:
        _tell(cluster, host, "health_check.unhealthy" if state.failed else "health_check.healthy", now, "")
    return pause(check, change, rng, passed=failure is None, used=is_used(cluster.hosts.values()))


def is_used(hosts: Iterable[Host]) -> bool:
    """Whether calls have gone to a cluster with these hosts."""
    return any(host.total for host in hosts)


def is_known_healthy(host: Host) -> bool:
    state: CheckState | None = host.checking
    return state is not None and not state.failed


def _count(counts: HealthCounts, failure: Failure | None) -> None:
    counts.attempt += 1
    if failure is None:
        counts.success += 1
        return
    counts.failure += 1
    if failure.network:
        counts.network_failure += 1


def _tell(cluster: CheckedCluster, host: Host, name: str, at: float, reason: str) -> None:
    emit = cluster.emit
    if emit is not None:
        emit(Event(name, at, cluster.name, host.key, reason))
