"""What the load measured, counted by window of time.  Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil, sqrt


@dataclass(frozen=True, slots=True)
class Sample:
    """One request of the load.  Seconds on the monotonic clock; `version` is "" when `error` is not."""

    started: float
    seconds: float
    version: str
    retries: int
    error: str


@dataclass(frozen=True, slots=True)
class Figures:
    """A window's requests.  Latencies in seconds, 0 without requests; `errors` are distinct texts with their counts."""

    requests: int = 0
    retries: int = 0
    p50: float = 0.0
    p99: float = 0.0
    versions: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    @property
    def split(self) -> dict[str, float]:
        """The share of each version in the requests that were answered."""
        answered = sum(self.versions.values())
        return {version: count / answered for version, count in sorted(self.versions.items())}


class Tally:
    """The samples, newest last, as long as they are needed; and totals since the start."""

    def __init__(self) -> None:
        self.requests = 0
        self.failed = 0
        self.retries = 0
        self._samples: deque[Sample] = deque()

    def add(self, samples: Iterable[Sample]) -> None:
        for sample in samples:
            self.requests += 1
            self.failed += bool(sample.error)
            self.retries += sample.retries
            self._samples.append(sample)

    def forget(self, before: float) -> None:
        """Drop the samples of requests that started before that."""
        self._samples = deque(sample for sample in self._samples if sample.started >= before)

    def between(self, start: float, end: float, *, version: str = "") -> Figures:
        """Figures of the requests that started in [start, end); with `version`, of those that it answered."""
        return figures([s for s in self._samples if start <= s.started < end and (not version or s.version == version)])


def figures(samples: list[Sample]) -> Figures:
    if not samples:
        return Figures()
    latencies = sorted(sample.seconds for sample in samples)
    return Figures(
        requests=len(samples),
        retries=sum(sample.retries for sample in samples),
        p50=percentile(latencies, 50),
        p99=percentile(latencies, 99),
        versions=Counter(sample.version for sample in samples if not sample.error),
        errors=Counter(sample.error for sample in samples if sample.error),
    )


def percentile(ordered: list[float], percent: int) -> float:
    """Nearest rank of sorted, non-empty values: the smallest that at least `percent` of them do not exceed."""
    return ordered[ceil(len(ordered) * percent / 100) - 1]


def off_target(found: Figures, expected: Mapping[str, float]) -> str:
    """In words, how far a split is from the expected shares beyond what chance explains; "" if it is not.

    Chance: three standard deviations of a draw with that share.  On top of it 2 %, because balancing is not a coin toss.
    """
    answered = sum(found.versions.values())
    if expected and not answered:
        return "no request was answered"
    for version in sorted({*expected, *found.versions} if expected else ()):
        share, got = expected.get(version, 0.0), found.split.get(version, 0.0)
        if abs(got - share) > 0.02 + 3 * sqrt(share * (1 - share) / answered):
            return f"{version} has {got:.1%} of {answered} requests, expected {share:.0%}"
    return ""
