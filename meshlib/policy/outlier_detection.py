"""Outlier detection as Envoy does it: endpoints that fail are left out for a while, longer each time.

There is no timer.  Envoy looks at its endpoints once per interval; here the looks that have become due are made up for by the
next call, at the times at which they were due: nobody can tell the difference, since between two calls nobody is balanced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import ceil, inf, sqrt
from typing import Final, NamedTuple, Protocol

from meshlib.model.cluster import OutlierDetection
from meshlib.model.outcome import Outcome
from meshlib.policy.balancing.host import Host
from meshlib.policy.outlier_tally import Detection, Tally, count
from meshlib.policy.rng import Rng
from meshlib.telemetry.events import Emit, Event

NEVER: Final = inf

_SLACK: Final = 1e-6
"""Seconds: what sums of floats may be off by."""


class Watched(Protocol):
    """The cluster whose hosts are looked after."""

    @property
    def name(self) -> str: ...

    @property
    def hosts(self) -> Mapping[str, Host]:
        """By key; all priorities and localities."""
        ...

    @property
    def emit(self) -> Emit | None: ...


class _Rated(NamedTuple):
    host: Host
    rate: float  # percent of successes
    volume: int


class OutlierDetector:
    """Of one cluster in one process.

    `learn` and `tick` say whether some host's `ejected` has changed: then what is derived from it has to be built anew.

    Counted, under the names of Envoy's statistics (``cluster.NAME.outlier_detection.*``): `ejections_active`, a gauge;
    `ejections_enforced_total`; `ejections_overflow`, detections that max_ejection_percent kept from ejecting;
    `ejections_detected` and `ejections_enforced` by kind of detection.
    """

    __slots__ = (
        "_watched",
        "config",
        "due",
        "ejections_active",
        "ejections_detected",
        "ejections_enforced",
        "ejections_enforced_total",
        "ejections_overflow",
    )

    def __init__(self, watched: Watched, config: OutlierDetection) -> None:
        self._watched = watched
        self.config = config
        self.due = -inf  # when `tick` is to be called; the first call begins the first interval
        self.ejections_active = 0
        self.ejections_enforced_total = 0
        self.ejections_overflow = 0
        self.ejections_detected: Counter[Detection] = Counter()
        self.ejections_enforced: Counter[Detection] = Counter()

    def follow(self, config: OutlierDetection) -> None:
        """The cluster's configuration or hosts have changed: what was learned of those that stay holds."""
        if config.interval < self.config.interval and self.due > -inf:
            self.due += config.interval - self.config.interval
        self.config = config
        self.ejections_active = sum(host.ejected for host in self._watched.hosts.values())

    def learn(self, host: Host, outcome: Outcome, rng: Rng) -> bool:
        """What an attempt came to.  True: the host was ejected for it."""
        tally: Tally | None = host.detection
        if tally is None:
            tally = host.detection = Tally()
        ejected = False
        for detection in count(tally, outcome, self.config):
            # An ejected host's count goes on beyond the threshold, so it is not detected again before a success.
            if not host.ejected and self._watched.hosts.get(host.key) is host:
                ejected |= self._detected(host, detection, outcome.at, rng)
                tally.reset(detection)
        return ejected

    def tick(self, now: float, rng: Rng) -> bool:
        """Make up for the looks that are due.  True: some host was ejected, or is back."""
        first, interval = self.due, self.config.interval
        if first == -inf:
            self.due = now + interval
            return False
        missed = int((now - first) // interval)
        self.due = first + (missed + 1) * interval
        changed = self._bring_back(first)
        changed |= self._judge(first, rng)
        self._forgive(first)
        return self._skip(first, missed) or changed

    def passed_check(self, host: Host, now: float) -> bool:
        """An active health check of `host` went well.  True: it was ejected, and is back because of that."""
        if not host.ejected or host.failed_check or not self.config.successful_active_health_check_uneject_host:
            return False
        self._uneject(host, host.detection, now, "health check")
        return True

    def release(self, now: float) -> bool:
        """Detection is over: all are back."""
        ejected = [host for host in self._watched.hosts.values() if host.ejected]
        for host in ejected:
            self._uneject(host, host.detection, now, "detection switched off")
        return bool(ejected)

    def remaining(self, host: Host, now: float) -> float:
        """Seconds until an ejected host may come back."""
        return max(self._until(host.detection) - now, 0.0)

    @property
    def stats(self) -> dict[str, int]:
        """The counters by the names of Envoy's statistics."""
        return {
            "ejections_active": self.ejections_active,
            "ejections_enforced_total": self.ejections_enforced_total,
            "ejections_overflow": self.ejections_overflow,
            **{f"ejections_detected_{kind.value}": self.ejections_detected[kind] for kind in Detection},
            **{f"ejections_enforced_{kind.value}": self.ejections_enforced[kind] for kind in Detection},
        }

    # --- ejecting

    def _detected(self, host: Host, detection: Detection, at: float, rng: Rng) -> bool:
        """Eject an outlier, if so many may be ejected and its kind is enforced."""
        config = self.config
        self.ejections_detected[detection] += 1
        if host.ejected:
            return False  # two detectors agreed on it
        share = 100.0 * (self.ejections_active + 1) / max(len(self._watched.hosts), 1)
        allowed = share <= min(config.max_ejection_percent, 100)
        if not allowed and not (config.always_eject_one_host and self.ejections_active == 0):
            self.ejections_overflow += 1
            return False
        enforcing = _enforcing(config, detection)
        if enforcing < 100 and rng.randrange(100) >= enforcing:
            self._tell("outlier_detection.detected", host, at, detection.value)
            return False
        self._eject(host, at, rng)
        host.detection.cause = detection
        self.ejections_enforced_total += 1
        self.ejections_enforced[detection] += 1
        self._tell("outlier_detection.ejected", host, at, detection.value)
        return True

    def _eject(self, host: Host, at: float, rng: Rng) -> None:
        config, tally = self.config, host.detection
        host.ejected = True
        self.ejections_active += 1
        tally.ejections += 1
        tally.ejected_at = at
        spread = round(config.max_ejection_time_jitter * 1000)  # whole milliseconds, as in Envoy
        tally.jitter = rng.randrange(spread + 1) / 1000 if spread else 0.0
        if tally.backoff * config.base_ejection_time < config.max_ejection_time + config.base_ejection_time:
            tally.backoff += 1

    def _uneject(self, host: Host, tally: Tally, at: float, reason: str) -> None:
        host.ejected = False
        self.ejections_active -= 1
        tally.consecutive_5xx = tally.consecutive_gateway = tally.consecutive_local = 0
        tally.unejected_at = at
        self._tell("outlier_detection.unejected", host, at, reason)

    def _tell(self, name: str, host: Host, at: float, reason: str) -> None:
        emit = self._watched.emit
        if emit is not None:
            emit(Event(name, at, self._watched.name, host.key, reason))

    # --- once per interval

    def _tallies(self) -> Iterator[tuple[Host, Tally]]:
        return ((host, host.detection) for host in self._watched.hosts.values() if host.detection is not None)

    def _until(self, tally: Tally) -> float:
        """When an ejected host may come back."""
        config = self.config
        return tally.ejected_at + min(config.base_ejection_time * tally.backoff, config.max_ejection_time) + tally.jitter

    def _bring_back(self, at: float) -> bool:
        over = [(host, tally) for host, tally in self._tallies() if host.ejected and self._until(tally) <= at + _SLACK]
        for host, tally in over:
            self._uneject(host, tally, at, "ejection time over")
        return bool(over)

    def _judge(self, at: float, rng: Rng) -> bool:
        """Compare the hosts' rates in the interval that ends; the next one counts from zero."""
        config = self.config
        responses: list[_Rated] = []
        connections: list[_Rated] = []
        for host, tally in self._tallies():
            if not host.ejected:
                if tally.total:
                    responses.append(_Rated(host, 100.0 * tally.ok / tally.total, tally.total))
                if tally.local_total:
                    connections.append(_Rated(host, 100.0 * tally.local_ok / tally.local_total, tally.local_total))
            tally.total = tally.ok = tally.local_total = tally.local_ok = 0
        if len(self._watched.hosts) < min(config.success_rate_minimum_hosts, config.failure_percentage_minimum_hosts):
            return False
        changed = self._judge_rates(responses, (Detection.SUCCESS_RATE, Detection.FAILURE_PERCENTAGE), at, rng)
        local = (Detection.LOCAL_ORIGIN_SUCCESS_RATE, Detection.LOCAL_ORIGIN_FAILURE_PERCENTAGE)
        return self._judge_rates(connections, local, at, rng) or changed

    def _judge_rates(self, rated: Sequence[_Rated], kinds: tuple[Detection, Detection], at: float, rng: Rng) -> bool:
        config, changed = self.config, False
        by_success, by_failure = kinds
        valid = [each for each in rated if each.volume >= config.success_rate_request_volume]
        if valid and len(valid) >= config.success_rate_minimum_hosts:
            threshold = success_rate_threshold([each.rate for each in valid], config.success_rate_stdev_factor / 1000)
            for each in valid:
                if each.rate < threshold:
                    changed |= self._detected(each.host, by_success, at, rng)
        valid = [each for each in rated if each.volume >= config.failure_percentage_request_volume]
        if valid and len(valid) >= config.failure_percentage_minimum_hosts:
            for each in valid:
                if 100.0 - each.rate >= config.failure_percentage_threshold:
                    changed |= self._detected(each.host, by_failure, at, rng)
        return changed

    def _forgive(self, at: float) -> None:
        """A host that has been back for a whole interval is ejected for less long the next time."""
        back_since = at - self.config.interval + _SLACK
        for host, tally in self._tallies():
            if not host.ejected and tally.backoff and tally.unejected_at is not None and tally.unejected_at <= back_since:
                tally.backoff -= 1

    def _skip(self, first: float, missed: int) -> bool:
        """The looks after `first`, one per interval, in which there was no call: nothing to judge, but time has passed."""
        changed, interval = False, self.config.interval
        for host, tally in self._tallies() if missed else ():
            if host.ejected:
                number = max(ceil((self._until(tally) - first - _SLACK) / interval), 1)
                if number > missed:
                    continue
                self._uneject(host, tally, first + number * interval, "ejection time over")
                changed = True
            if tally.backoff and tally.unejected_at is not None:
                number = max(ceil((tally.unejected_at + interval - first - _SLACK) / interval), 1)
                tally.backoff = max(tally.backoff - max(missed - number + 1, 0), 0)
        return changed


def success_rate_threshold(rates: Sequence[float], factor: float) -> float:
    """Hosts below this percentage stand out: the mean less `factor` times the population's standard deviation."""
    mean = sum(rates) / len(rates)
    return mean - factor * sqrt(sum((rate - mean) ** 2 for rate in rates) / len(rates))


def _enforcing(config: OutlierDetection, detection: Detection) -> int:
    """Percent."""
    value: int = getattr(config, _ENFORCING[detection])
    return value


_ENFORCING: Final = {
    Detection.CONSECUTIVE_5XX: "enforcing_consecutive_5xx",
    Detection.CONSECUTIVE_GATEWAY_FAILURE: "enforcing_consecutive_gateway_failure",
    Detection.CONSECUTIVE_LOCAL_ORIGIN_FAILURE: "enforcing_consecutive_local_origin_failure",
    Detection.SUCCESS_RATE: "enforcing_success_rate",
    Detection.FAILURE_PERCENTAGE: "enforcing_failure_percentage",
    Detection.LOCAL_ORIGIN_SUCCESS_RATE: "enforcing_local_origin_success_rate",
    Detection.LOCAL_ORIGIN_FAILURE_PERCENTAGE: "enforcing_failure_percentage_local_origin",
}


def detector_for(
    before: OutlierDetector | None, watched: Watched, config: OutlierDetection | None, now: float
) -> OutlierDetector | None:
    """The detector of a cluster whose configuration or hosts have changed; None: it has none, and all its hosts are in use."""
    if config is None:
        if before is not None:
            before.release(now)
        return None
    detector = before or OutlierDetector(watched, config)
    detector.follow(config)
    return detector
