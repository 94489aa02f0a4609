"""Endpoints as people read them, with what their callers have found out about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from meshlib_control.admin import views
from meshlib_control.cli.render import authority, table


def endpoints(document: views.Endpoints) -> RenderableType:
    """One table of endpoints, and one each of clusters and limits that there is something to say about."""
    if not document.endpoints:
        return Text("No endpoints.")
    parts: list[RenderableType] = [_endpoints(document.endpoints)]
    for found in (_clusters(document.clusters), _limits(document.limits)):
        if found is not None:
            parts += [Text(), found]
    parts += [Text(note, style="dim") for note in document.notes]
    return Group(*parts)


def _endpoints(found: Sequence[views.EndpointView]) -> RenderableType:
    rows = [
        (
            endpoint.host,
            authority(endpoint),
            endpoint.health,
            "; ".join(_state(each, endpoint.callers) for each in endpoint.reported),
            ",".join(f"{name}={value}" for name, value in sorted(endpoint.labels.items())),
            endpoint.locality,
            endpoint.weight,
        )
        for endpoint in found
    ]
    return table(("SERVICE", "ENDPOINT", "HEALTH", "STATE", "LABELS", "LOCALITY", "WEIGHT"), rows)


def _state(said: views.EndpointStateView, callers: int) -> str:
    """``ejected by 2 of 5: consecutive_5xx, 12s left``."""
    rest = ", ".join(part for part in (said.reason, f"{said.left:.0f}s left" if said.left else "") if part)
    return f"{said.state} by {said.callers} of {callers}" + (f": {rest}" if rest else "")


def _clusters(found: Sequence[views.ClusterStateView]) -> RenderableType | None:
    if not found:
        return None
    rows = [
        (
            f"{cluster.host}:{cluster.port}",
            cluster.subset,
            f"{cluster.reporters} of {cluster.callers}",
            _breaker(cluster),
            _concurrency(cluster),
            f"{cluster.active_retries}/{cluster.allowed_retries}",
            cluster.retries,
            cluster.retry_overflow,
            cluster.pending_overflow,
            cluster.hedges,
        )
        for cluster in found
    ]
    columns = (
        "CALLS TO", "SUBSET", "CALLERS", "CIRCUIT BREAKER", "CONCURRENCY LIMIT", "RETRY BUDGET", "RETRIES", "REFUSED",
        "OVERFLOW", "HEDGES",
    )  # fmt: skip
    return table(columns, rows)


def _breaker(cluster: views.ClusterStateView) -> str:
    """``open at 2, closed at 1 (31 refused)``; the worst first."""
    states = ", ".join(f"{state} at {cluster.circuit_breaker[state]}" for state in _worst_first(cluster.circuit_breaker))
    return f"{states} ({cluster.circuit_breaker_rejected} refused)" if cluster.circuit_breaker_rejected else states


def _worst_first(states: dict[str, int]) -> Iterator[str]:
    return (state for state in ("open", "half-open", "closed") if state in states)


def _concurrency(cluster: views.ClusterStateView) -> str:
    """``8``; ``3 to 8`` where callers differ."""
    limits = sorted(set(cluster.concurrency_limits))
    text = " to ".join(map(str, limits))
    return f"{text} ({cluster.concurrency_rejected} refused)" if cluster.concurrency_rejected else text


def _limits(found: Sequence[views.LimitStateView]) -> RenderableType | None:
    if not found:
        return None
    rows = [(each.id, each.side, each.processes, each.allowed, each.limited, each.would_limit) for each in found]
    return table(("RATE LIMIT", "SIDE", "PROCESSES", "ALLOWED", "REFUSED", "WOULD REFUSE"), rows)
