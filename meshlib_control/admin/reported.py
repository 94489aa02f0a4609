"""Reports of many callers as one view: how many say what of an endpoint, and how breakers, budgets and limits stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from meshlib.xds.proto.registry_pb2 import ClusterReport, LimitReport, ReportRequest
from meshlib_control.admin import views
from meshlib_control.compile.names import parse_cluster_name
from meshlib_control.reports import Reporter

MAX_PORT: Final = 65535

SHOWN: Final = 20
"""Reporters that are named."""


def callers_of_hosts(subscribed: Mapping[frozenset[str], int]) -> Counter[str]:
    """How many processes call a host.  `subscribed`: how many of them have asked for which clusters."""
    callers: Counter[str] = Counter()
    for clusters, count in subscribed.items():
        for host in {parsed.host for name in clusters if (parsed := parse_cluster_name(name)) is not None}:
            callers[host] += count
    return callers


class Reported:
    """What is known of the services that `hosts` names; of all, if it is None."""

    def __init__(
        self, reports: Iterable[tuple[Reporter, ReportRequest]], callers: Mapping[str, int], hosts: frozenset[str] | None = None
    ) -> None:
        """`callers`: how many processes call a host, as far as it is known."""
        self._connected = callers
        self._reporters: Counter[str] = Counter()  # by host
        self._states: dict[tuple[str, str], dict[tuple[str, str], list[tuple[str, float]]]] = {}
        self._clusters: dict[str, list[ClusterReport]] = {}
        self._limits: dict[tuple[str, str], list[LimitReport]] = {}
        self.truncated = False
        for reporter, report in reports:
            self._add(reporter, report, hosts)

    def callers(self, host: str) -> int:
        """Processes that call a host: those that have asked for it, or have told something of it."""
        return max(self._connected.get(host, 0), self._reporters[host])

    def of_endpoint(self, host: str, address: str) -> list[views.EndpointStateView]:
        """What callers say of an endpoint (``10.0.0.7:9080``), what most of them say first."""
        found = [
            views.EndpointStateView(
                state=state,
                reason=reason,
                callers=len(said),
                left=round(max(left for _, left in said), 1),
                by=[name for name, _ in said[:SHOWN]],
            )
            for (state, reason), said in self._states.get((host, address), {}).items()
        ]
        return sorted(found, key=lambda view: (-view.callers, view.state, view.reason))

    @property
    def clusters(self) -> list[views.ClusterStateView]:
        """Of each cluster that something is known of."""
        return [self._cluster(name, reports) for name, reports in sorted(self._clusters.items())]

    def limits(self, policies: frozenset[str] | None = None) -> list[views.LimitStateView]:
        """Rate limits; of these policies only (``namespace/name``), if they are given."""
        return [
            views.LimitStateView(
                id=identity,
                side=side,
                processes=len(reports),
                allowed=sum(report.allowed for report in reports),
                limited=sum(report.limited for report in reports),
                would_limit=sum(report.would_limit for report in reports),
            )
            for (identity, side), reports in sorted(self._limits.items())
            if policies is None or identity.rpartition("/")[0] in policies
        ]

    def _add(self, reporter: Reporter, report: ReportRequest, hosts: frozenset[str] | None) -> None:
        self.truncated = self.truncated or report.truncated
        told: dict[tuple[str, str], tuple[tuple[str, str], float]] = {}
        known: set[str] = set()
        for cluster in report.clusters:
            name = parse_cluster_name(cluster.name)
            if name is None or name.port > MAX_PORT or (hosts is not None and name.host not in hosts):
                continue
            known.add(name.host)
            self._clusters.setdefault(cluster.name, []).append(cluster)
            for endpoint in cluster.endpoints:  # one in several subsets is told of once
                told.setdefault((name.host, endpoint.address), ((endpoint.state, endpoint.reason), endpoint.left))
        self._reporters.update(known)
        for where, (state, left) in told.items():
            self._states.setdefault(where, {}).setdefault(state, []).append((_name(reporter), left))
        for limit in report.limits:
            self._limits.setdefault((limit.id, limit.side), []).append(limit)

    def _cluster(self, name: str, reports: Sequence[ClusterReport]) -> views.ClusterStateView:
        parsed = parse_cluster_name(name)
        assert parsed is not None
        limits = [report.concurrency_limit for report in reports if report.concurrency_limit]
        return views.ClusterStateView(
            name=name,
            host=parsed.host,
            port=parsed.port,
            subset=parsed.subset,
            callers=self.callers(parsed.host),
            reporters=len(reports),
            circuit_breaker=dict(Counter(report.circuit_breaker for report in reports if report.circuit_breaker)),
            circuit_breaker_left=round(max(report.circuit_breaker_left for report in reports), 1),
            concurrency_limits=[min(limits), max(limits)] if limits else [],
            **dict(_sums(reports)),
        )


_SUMMED: Final = (
    "circuit_breaker_rejected", "concurrency_rejected", "active_requests", "active_retries", "allowed_retries", "retries",
    "retry_overflow", "pending_overflow", "hedges", "hedges_refused",
)  # fmt: skip


def _sums(reports: Sequence[ClusterReport]) -> Iterator[tuple[str, int]]:
    return ((field, sum(getattr(report, field) for report in reports)) for field in _SUMMED)


def _name(reporter: Reporter) -> str:
    """``cluster.local/ns/default/sa/web web-7f3a``; the instance alone where nobody has an identity."""
    return f"{reporter.identity.removeprefix('spiffe://')} {reporter.instance}".strip()
