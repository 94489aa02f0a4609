"""When an endpoint counts as healthy, by active checks: the state machine of Envoy's ``ActiveHealthCheckSession``.

The runtime makes the probes; here is what their results mean, and when the next one is due.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from meshlib.model.cluster import HealthCheck
from meshlib.policy.balancing.host import Host
from meshlib.policy.rng import Rng

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
        """A probe failed.  `network`: it brought no answer in time, which may be chance; an answer that says no is believed."""
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
        self.failure = 0  # those that timed out or did not connect included
        self.network_failure = 0


def begin(host: Host, others: Iterable[Host]) -> bool:
    """`host` is to be checked from now on.  True: it is not used before its first probe.

    That is so if some other endpoint is known to be healthy.  Envoy holds the whole cluster back until its first probes have
    ended; a library cannot make its caller wait for a probe, so as long as nothing is known of any, all are used.
    """
    host.checking = CheckState()
    host.failed_check = any(is_known_healthy(other) for other in others)
    return host.failed_check


def is_known_healthy(host: Host) -> bool:
    state: CheckState | None = host.checking
    return state is not None and not state.failed
