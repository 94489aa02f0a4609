"""A limit of requests at the same time that follows the latency: Envoy's gradient controller, with four differences.

Now and then the latency of the requests that ended since (a percentile) is compared with the one that there is without a queue:
``gradient = minRTT * (1 + buffer) / latency``, between 0.5 and 2; the new limit is ``limit * gradient`` with its square root on
top, which is the room to find out whether more would go.  What Envoy does differently, and why not here (docs/decisions/035
has the measurements):

1. **minRTT comes from quiet moments.**  Envoy cuts the limit to `min_concurrency` for every measurement, the first of them at
   the start, so that a process with hardly anything to do refuses a page's eight requests at once.  Requests that begin in the
   company of no more than `min_concurrency` say the same without that.  Only if an interval brings too few of them is the limit
   cut: to half of what is in use, which is enough to empty the queue of a server at its limit.  The very first measurement goes
   on cutting as long as that makes the latency fall: nobody knows yet what queue there is.
2. **Of a measurement the first to begin count**, not the first to end, among which short requests are too many.
3. **The limit waits for its effect.**  It changes when two latencies have passed since the last change, and when there are
   enough samples for a percentile that is not noise (or after ten intervals with fewer).
4. **It does not grow beyond four times of what is in use.**  Envoy's is at its maximum after a quiet night, and in the first
   second of an overload fills the queue before it has come down.

Failures that come fast are no samples, or a service that refuses everything at once would look like a very fast one.

Pure: the time comes in with each event, and what is due is done with the next one.
"""

from __future__ import annotations

from math import ceil, inf, sqrt
from typing import ClassVar

from meshlib import errors
from meshlib.model.outcome import Outcome, Reset
from meshlib.model.resilience import AdaptiveConcurrency
from meshlib.policy.failures import is_failure
from meshlib.policy.rng import Rng

_FIRST_LIMIT = 10
"""Until anything is known."""

_FIRST_INTERVAL = 1.0
"""Seconds after the first request until minRTT is measured by force, if it is not known by then."""

_HEADROOM = 4
"""How many times of what is in use the limit may be."""

_FALLING = 0.8
"""A latency that a cut has brought below this share of the one before was a queue's."""

_LAG = 2.0
"""Latencies to wait from one change to the next."""

_ENOUGH_SAMPLES = 100
"""The median of so many is within 15 % of the truth, even of exponentially distributed latencies."""

_PATIENCE = 10
"""Intervals after which fewer samples have to do."""

_MOST_SAMPLES = 1000
"""Of one window: more change nothing in a percentile."""

_COMPLETE = 0.9
"""Share of a measurement's requests that have to end: those that are still under way are known to be the longest."""

_TIMEOUTS = frozenset({Reset.TIMEOUT, Reset.PER_TRY_TIMEOUT})


class GradientController:
    """`enter` and `leave` around each request; `limit` is how many there may be.

    ``active``: requests under way.  ``min_rtt``: seconds, 0 while unknown.  ``measuring``: the limit is cut for that.
    """

    __slots__ = (
        "_before",
        "_began",
        "_company",
        "_due",
        "_enough",
        "_kept",
        "_latest",
        "_measure_at",
        "_measured",
        "_peak",
        "_samples",
        "_watched",
        "active",
        "limit",
        "measuring",
        "min_rtt",
        "policy",
    )

    def __init__(self, policy: AdaptiveConcurrency) -> None:
        self.policy = policy
        self.active = 0
        self.limit = max(min(_FIRST_LIMIT, policy.max_limit), policy.min_concurrency)
        self.min_rtt = policy.fixed_min_rtt
        self.measuring = False
        self._peak = 0  # most requests at the same time since the last interval
        self._samples: list[float] = []
        self._due = 0.0  # when the limit is looked at again
        self._latest = 0.0  # when it is, however few samples there are
        # A measurement of minRTT:
        self._measure_at = inf if policy.fixed_min_rtt else 0.0  # by force; 0: nothing has come yet
        self._company = policy.min_concurrency  # of requests that count for it
        self._enough = _COMPLETE * policy.min_rtt_requests
        self._watched: set[float] = set()  # when those began that are still under way
        self._began = 0  # how many there were
        self._measured: list[float] = []  # latencies of those that have ended
        self._kept = self.limit  # what the limit was before it was cut
        self._before = inf  # latency before the last cut

    def enter(self, now: float) -> None:
        """A request begins; whoever calls has compared `active` with `limit`."""
        if now >= self._due:
            self._update(now)
        if now >= self._measure_at and not self.measuring:
            if self._measure_at == 0.0:
                self._measure_at = now + _FIRST_INTERVAL
            else:
                self.measuring, self._kept, self._before = True, self.limit, inf
                self._cut(self._peak)
        self.active += 1
        if self.active > self._peak:
            self._peak = self.active
        if (
            self.active <= self._company
            and self._began < self.policy.min_rtt_requests
            and self._measure_at != inf
            and now not in self._watched  # a clock may stand still
        ):
            self._watched.add(now)
            self._began += 1

    def leave(self, now: float, began: float, rng: Rng, *, sampled: bool = True) -> None:
        """A request that began at `began` has ended; not `sampled`: how long it took says nothing."""
        self.active -= 1
        if sampled and len(self._samples) < _MOST_SAMPLES:
            self._samples.append(now - began)
        if began in self._watched:
            self._watched.discard(began)
            if sampled:
                self._measured.append(now - began)
            else:
                self._began -= 1  # another one takes its place
            if len(self._measured) >= self._enough:
                self._conclude(now, rng)
        if now >= self._due:
            self._update(now)

    def _cut(self, used: int) -> None:
        """Let in half of what was in use, so that there is less of a queue, and measure."""
        self.limit = self._company = max(used // 2, self.policy.min_concurrency)
        self._restart()

    def _restart(self) -> None:
        self._watched.clear()
        self._measured.clear()
        self._began = 0

    def _conclude(self, now: float, rng: Rng) -> None:
        """Enough requests of the measurement have ended."""
        policy = self.policy
        latency = percentile([*self._measured, *[inf] * len(self._watched)], policy.percentile)
        if latency == inf:
            return  # a high percentile: it takes the longest, too
        self._restart()
        if self.measuring:
            if not self.min_rtt and latency < _FALLING * self._before and self.limit > policy.min_concurrency:
                self._before = latency
                self._cut(self.limit)
                return
            self.measuring = False
            self.limit, self._company = self._kept, policy.min_concurrency
            self._samples.clear()  # of the cut: they say nothing about what the limit should be
        self.min_rtt = latency
        self._measure_at = now + policy.min_rtt_interval * (1.0 + rng.random() * policy.min_rtt_jitter / 100.0)

    def _update(self, now: float) -> None:
        policy, samples = self.policy, self._samples
        self._due = now + policy.update_interval
        peak, self._peak = self._peak, self.active
        if self.measuring or not self.min_rtt:
            samples.clear()
            return
        if not samples or (len(samples) < _ENOUGH_SAMPLES and now < self._latest):
            return
        latency = percentile(samples, policy.percentile)
        samples.clear()
        self._latest = now + _PATIENCE * policy.update_interval
        self._due = now + max(policy.update_interval, _LAG * latency)
        self.limit = self._adjusted(latency, peak)

    def _adjusted(self, latency: float, peak: int) -> int:
        """The limit that a latency and what was in use ask for."""
        policy, limit = self.policy, self.limit
        fine = self.min_rtt * (1.0 + policy.buffer / 100.0)
        wanted = limit * (2.0 if latency <= 0.0 else min(max(fine / latency, 0.5), 2.0))
        wanted += sqrt(wanted)
        if wanted > limit:
            wanted = max(min(wanted, _HEADROOM * peak), limit)
        return max(min(int(wanted), policy.max_limit), policy.min_concurrency)


def percentile(samples: list[float], percent: float) -> float:
    """The smallest sample that at least `percent` of them do not exceed."""
    ordered = sorted(samples)
    return ordered[max(ceil(percent / 100.0 * len(ordered)) - 1, 0)]


class ConcurrencyGuard:
    """A `Guard` of one cluster: no more attempts at the same time than the controller finds good.

    An attempt is under way until the response's head is there; how fast a caller reads the body is not the destination's.
    ``rejected`` counts those that were kept away.
    """

    __slots__ = ("_rng", "controller", "rejected")

    error: ClassVar[type[errors.CallError]] = errors.ConcurrencyLimited

    def __init__(self, policy: AdaptiveConcurrency, rng: Rng) -> None:
        self.controller = GradientController(policy)
        self.rejected = 0
        self._rng = rng

    def admit(self, now: float, rng: Rng) -> str:
        """As `Guard.admit`."""
        controller = self.controller
        if controller.active >= controller.limit:
            self.rejected += 1
            return f"{controller.active} requests are under way, as many as are answered in good time"
        controller.enter(now)
        return ""

    def settle(self, outcome: Outcome | None, began: float) -> None:
        """As `Guard.settle`."""
        if outcome is None:
            self.controller.leave(began, began, self._rng, sampled=False)
        else:
            self.controller.leave(outcome.at, began, self._rng, sampled=_is_sample(outcome))

    def retry_after(self, now: float) -> float:
        """As `Guard.retry_after`."""
        return 0.0


def _is_sample(outcome: Outcome) -> bool:
    """Answers, and waiting in vain for one; what fails at once has no latency."""
    if outcome.reset is not None:
        return outcome.reset in _TIMEOUTS and outcome.sent
    return not is_failure(outcome)
