"""What callers have found out about those that they call, in memory: the newest report of each process, until it is old.

Whoever may report is not to be trusted with more than that: a reporter is the identity in its certificate, reports of one
identity share a bounded amount of memory, and what does not fit puts out older ones of the same identity only.  Reports are
kept as the bytes that came, so that their size is what they cost.  Words in them end up on an operator's screen: only such that
are plain are taken.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from meshlib.xds.proto.registry_pb2 import ClusterReport, LimitReport, ReportRequest
from meshlib_control.errors import ControlServiceError

TTL: Final = 30.0
"""Seconds: three times of what processes repeat themselves in."""

MAX_REPORT: Final = 128 * 1024
"""Bytes of one report; what processes send stays below."""

MAX_PROCESSES: Final = 1000
MAX_BYTES: Final = 4 * 1024 * 1024
"""Of one identity.  Without identities all processes together are one."""

MAX_TOTAL: Final = 64 * 1024 * 1024
"""Bytes of all reports."""

ENDPOINT_STATES: Final = frozenset({"ejected", "failed check", "refusing"})
BREAKER_STATES: Final = frozenset({"", "closed", "open", "half-open"})
_MOST: Final = 10**12  # of whatever is counted
_LONGEST: Final = 1e9  # seconds
_SIDES: Final = frozenset({"client", "server"})
_NAME: Final = re.compile(r"[!-~]{1,400}")
_WORDS: Final = re.compile(r"[A-Za-z0-9 _.,:-]{0,80}")


class InvalidReport(ControlServiceError):
    """It is not what a process of the mesh would say."""


class TooMuch(ControlServiceError):
    """There is no room for it."""


class Reporter(NamedTuple):
    """`identity`: the SPIFFE ID, empty in a service without identities; `instance`: which of its processes, as they say."""

    identity: str
    instance: str


class _Kept(NamedTuple):
    at: float
    data: bytes


class _Reports:
    """Of one identity, the oldest first."""

    def __init__(self) -> None:
        self.by_instance: OrderedDict[str, _Kept] = OrderedDict()
        self.size = 0

    def drop(self, instance: str) -> None:
        kept = self.by_instance.pop(instance, None)
        if kept is not None:
            self.size -= len(kept.data)

    def drop_oldest(self) -> None:
        self.drop(next(iter(self.by_instance)))

    def expire(self, since: float) -> None:
        while self.by_instance and next(iter(self.by_instance.values())).at < since:
            self.drop_oldest()

    def keep(self, instance: str, kept: _Kept) -> None:
        self.drop(instance)
        self.by_instance[instance] = kept
        self.size += len(kept.data)
        while self.size > MAX_BYTES or len(self.by_instance) > MAX_PROCESSES:
            self.drop_oldest()


class Reports:
    """All that is known by now."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_identity: dict[str, _Reports] = {}

    def take(self, identity: str, data: bytes) -> None:
        """A `ReportRequest` of a process of `identity`.  Raises `InvalidReport` and `TooMuch`."""
        if len(data) > MAX_REPORT:
            raise TooMuch(f"a report may have {MAX_REPORT} bytes, this one has {len(data)}")
        try:
            report = ReportRequest.FromString(data)
        except DecodeError as error:
            raise InvalidReport("not a ReportRequest") from error
        _check(report)
        now = self._clock()
        self._expire(now)
        known = self._by_identity.get(identity)
        if not report.clusters and not report.limits:
            if known is not None:
                known.drop(report.instance_id)
            return
        if self.size + len(data) > MAX_TOTAL:
            raise TooMuch("all reports together take as much memory as they may")
        if known is None:
            known = self._by_identity[identity] = _Reports()
        known.keep(report.instance_id, _Kept(now, data))

    @property
    def size(self) -> int:
        """Bytes of all reports."""
        return sum(reports.size for reports in self._by_identity.values())

    @property
    def current(self) -> list[tuple[Reporter, ReportRequest]]:
        """What is not too old, by reporter."""
        self._expire(self._clock())
        return [
            (Reporter(identity, instance), ReportRequest.FromString(kept.data))
            for identity, reports in sorted(self._by_identity.items())
            for instance, kept in sorted(reports.by_instance.items())
        ]

    def _expire(self, now: float) -> None:
        for identity, reports in list(self._by_identity.items()):
            reports.expire(now - TTL)
            if not reports.by_instance:
                del self._by_identity[identity]


def _check(report: ReportRequest) -> None:
    """Raises `InvalidReport`."""
    _expect("instance_id", _NAME.fullmatch(report.instance_id))
    for cluster in report.clusters:
        _check_cluster(cluster)
    for limit in report.limits:
        _check_limit(limit)


def _check_cluster(cluster: ClusterReport) -> None:
    _expect("clusters.name", _NAME.fullmatch(cluster.name))
    _expect("clusters.circuit_breaker", cluster.circuit_breaker in BREAKER_STATES)
    _expect("clusters.circuit_breaker_left", _is_duration(cluster.circuit_breaker_left))
    _check_counts(cluster)
    for endpoint in cluster.endpoints:
        _expect("endpoints.address", _NAME.fullmatch(endpoint.address))
        _expect("endpoints.state", endpoint.state in ENDPOINT_STATES)
        _expect("endpoints.reason", _WORDS.fullmatch(endpoint.reason))
        _expect("endpoints.left", _is_duration(endpoint.left))


def _check_limit(limit: LimitReport) -> None:
    _expect("limits.id", _NAME.fullmatch(limit.id))
    _check_counts(limit)
    _expect("limits.side", limit.side in _SIDES)


def _check_counts(part: ClusterReport | LimitReport) -> None:
    """Sums over all reporters have to fit into 64 bits, or nobody would see anything."""
    for field, value in part.ListFields():
        if isinstance(value, int):
            _expect(field.name, value <= _MOST)


def _is_duration(seconds: float) -> bool:
    return 0.0 <= seconds <= _LONGEST  # False for no number, too


def _expect(field: str, fine: object) -> None:
    if not fine:
        raise InvalidReport(f"{field}: not what a process of the mesh would say")
