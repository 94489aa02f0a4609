"""Documents of the API as people read them: tables, a diff, a trace.  Nothing here asks, decides or prints."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from meshlib_control.admin import views

STYLES = {
    "SYNCED": "green",
    "STALE": "yellow",
    "NACK": "bold red",
    "NOT SENT": "dim",
    "error": "bold red",
    "warning": "yellow",
    "info": "cyan",
    "created": "green",
    "configured": "yellow",
    "deleted": "red",
    "unchanged": "dim",
    "healthy": "green",
    "unhealthy": "bold red",
    "draining": "yellow",
}
TYPES = ("LDS", "RDS", "CDS", "EDS", "SDS")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> RenderableType:
    """Columns without lines, as kubectl's; a word that has a style is coloured, and never says less without it."""
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row))
    return drawn


def _cell(value: object) -> Text:
    text = "-" if value in ("", None) else str(value)
    return Text(text, style=STYLES.get(text.partition(":")[0], ""))


def listing(items: views.Listing) -> RenderableType:
    if not items.items:
        return Text("No resources.")
    rows = []
    for item in items.items:
        kind, namespace, name = item.resource.split("/", 2)
        hosts = (item.document.get("spec") or {}).get("hosts") or [(item.document.get("spec") or {}).get("host", "")]
        rows.append((kind, namespace, name, ", ".join(map(str, hosts)), item.file or "store"))
    return table(("KIND", "NAMESPACE", "NAME", "HOSTS", "SOURCE"), rows)


def changes(applied: views.Applied) -> RenderableType:
    lines: list[RenderableType] = [Text.assemble(f"{change.resource} ", _cell(change.action)) for change in applied.changes]
    if not lines:
        lines.append(Text("Nothing to do."))
    return Group(*lines, Text(f"revision {applied.revision}" + (" (dry run: nothing stored)" if applied.dry_run else "")))


def history(log: views.History, *, now: datetime) -> RenderableType:
    if not log.items:
        return Text("No revisions yet.")
    rows = [
        (
            f"{entry.revision}{' *' if entry.revision == log.head else ''}",
            age(entry.time, now=now),
            entry.author,
            f"+{entry.added} ~{entry.changed} -{entry.removed}",
            entry.message or (f"rollback to {entry.rolled_back_to}" if entry.rolled_back_to else ""),
        )
        for entry in log.items
    ]
    return table(("REVISION", "AGE", "AUTHOR", "CHANGES", "MESSAGE"), rows)


def unified(change: views.Change) -> str:
    """One resource's change as a unified diff of YAML."""
    from meshlib_control.config import dump_document

    before = dump_document(change.before).splitlines(keepends=True) if change.before is not None else []
    after = dump_document(change.after).splitlines(keepends=True) if change.after is not None else []
    return "".join(
        difflib.unified_diff(
            before,
            after,
            fromfile=f"a/{change.resource}" if before else "/dev/null",
            tofile=f"b/{change.resource}" if after else "/dev/null",
        )
    )


def difference(changes: Sequence[views.Change]) -> RenderableType:
    styles = {"+": "green", "-": "red", "@": "cyan"}
    text = Text()
    for change in changes:
        for line in unified(change).splitlines():
            text.append(line + "\n", style="bold" if line.startswith(("+++", "---")) else styles.get(line[:1], ""))
    text.rstrip()
    return text


def findings(found: Sequence[views.FindingView]) -> RenderableType:
    lines = []
    for finding in found:
        where = f"{finding.file}:{finding.line}: " if finding.file else ""
        resource = f" ({finding.resource})" if finding.resource else ""
        field = f" {finding.field}" if finding.field else ""
        lines.append(
            Text.assemble(
                where,
                (finding.severity, STYLES.get(finding.severity, "")),
                f" {finding.code}{resource}{field}: {finding.message}",
            )
        )
    return Group(*lines)


def summary(found: Sequence[views.FindingView]) -> str:
    """As in ``2 errors, 1 warning``."""
    counts = [(name, sum(1 for finding in found if finding.severity == name)) for name in ("error", "warning", "info")]
    return ", ".join(f"{count} {name}{'s' if count != 1 and name != 'info' else ''}" for name, count in counts if count)


def status(document: views.Status, *, now: datetime) -> RenderableType:
    control = document.control
    head = Text(
        f"control service {control.version}, up {age(control.started, now=now)}, "
        f"revision {control.revision}, store {control.store}\n"
        f"xDS {control.xds}, admin {control.admin}, mesh domain {control.mesh_domain}\n"
        + (f"CA {control.ca}, trust domain {control.trust_domain}" if control.ca else "NO IDENTITIES: --insecure-dev")
    )
    rows = [
        (
            client.id,
            client.flavour,
            client.namespace,
            client.service,
            *(client.types[kind].state if kind in client.types else "NOT SENT" for kind in TYPES),
            age(client.connected_since, now=now),
        )
        for client in document.clients
    ]
    body = (
        table(("CLIENT", "FLAVOUR", "NAMESPACE", "SERVICE", *TYPES, "CONNECTED"), rows)
        if rows
        else Text("No clients are connected.")
    )
    return Group(head, Text(), body, *_shared_limits(document), *_problems(document))


def _shared_limits(document: views.Status) -> list[RenderableType]:
    rows = [(item.policy, item.limit, str(item.buckets), str(item.processes)) for item in document.shared_limits]
    return [Text(), table(("RATE LIMIT POLICY", "LIMIT", "BUCKETS", "PROCESSES"), rows)] if rows else []


def _problems(document: views.Status) -> list[RenderableType]:
    if not document.problems:
        return [Text(), Text("No problems.", style="green")]
    return [Text(), Text("Problems:", style="bold red"), *(Text(f"  - {problem}") for problem in document.problems)]


def services(document: views.Services) -> RenderableType:
    rows = [
        (
            service.host,
            service.namespace,
            ", ".join(f"{port.number}/{port.protocol}" for port in service.ports),
            service.source,
            f"{service.healthy}/{service.instances}",
            service.suspicious,
        )
        for service in document.services
    ]
    return table(("SERVICE", "NAMESPACE", "PORTS", "SOURCE", "HEALTHY", "NOTE"), rows) if rows else Text("No services.")


def routes(document: views.Routes) -> RenderableType:
    rows = [
        (route.service, route.virtual_host, route.name, route.match, route.action, route.timeout, route.retries)
        for route in document.routes
    ]
    columns = ("SERVICE", "VIRTUAL HOST", "ROUTE", "MATCH", "ACTION", "TIMEOUT", "RETRIES")
    return table(columns, rows) if rows else Text("No routes.")


def explanation(request: str, trace: views.ExplanationView) -> RenderableType:
    """The way of one request, step by step."""
    lines: list[RenderableType] = [Text(request, style="bold"), Text(f"authority      {trace.authority}")]
    if trace.virtual_host:
        lines.append(Text(f"virtual host   {trace.virtual_host}"))
    if trace.routes:
        lines.append(Text("routes, in order"))
        for route in trace.routes:
            mark, style = ("->", "green") if route.matched else ("  ", "dim")
            lines.append(Text(f"  {mark} {route.name or '(no name)'}: {route.reason}", style=style))
    detail = f" ({trace.detail})" if trace.detail else ""
    lines.append(Text(f"outcome        {_OUTCOMES.get(trace.outcome, trace.outcome)}{detail}", style="bold"))
    lines.extend(_limits(trace))
    for cluster in trace.clusters:
        lines.append(Text(f"{cluster.percent:g} % to {cluster.name}"))
        lines.extend(_endpoint_line(endpoint) for endpoint in cluster.endpoints)
        if cluster.placed:
            lines.append(Text(f"     {cluster.placed} is where the hash of this request leads", style="bold"))
        if cluster.error:
            lines.append(Text(f"     {cluster.error}: a call would fail with UH (no healthy upstream)", style="bold red"))
    return Group(*lines)


_OUTCOMES = {
    "forward": "forwarded",
    "direct_response": "answered by the mesh itself",
    "no_route": "fails with 404, flag NR",
    "outside": "left to the client library",
    "blocked": "refused, flag BH",
    "unknown": "cannot be told",
}


def _limits(trace: views.ExplanationView) -> list[RenderableType]:
    """Status of an answer; timeout and retries of a call."""
    if trace.outcome == "direct_response":
        return [Text(f"status         {trace.status}")]
    if trace.outcome != "forward":
        return []
    each = f", {trace.per_try_timeout:g}s each" if trace.per_try_timeout else ""
    retries = f"{trace.retries} on {', '.join(trace.retry_on)}{each}" if trace.retries else "none"
    return [Text(f"timeout        {f'{trace.timeout:g}s' if trace.timeout else 'none'}"), Text(f"retries        {retries}")]


def _endpoint_line(endpoint: views.EndpointView) -> Text:
    labels = " ".join(f"{name}={value}" for name, value in sorted(endpoint.labels.items()))
    text = Text(f"     {authority(endpoint)} ")
    text.append(endpoint.health, style=STYLES.get(endpoint.health, ""))
    if endpoint.priority:
        text.append(f" priority {endpoint.priority}", style="dim")
    return text.append(f" {labels}" if labels else "")


def codes(found: Sequence[views.CodeView]) -> RenderableType:
    return table(("CODE", "SEVERITY", "MEANING"), [(entry.code, entry.severity, entry.title) for entry in found])


def code(entry: views.CodeView) -> RenderableType:
    return Group(
        Text(f"{entry.code} ({entry.severity}): {entry.title}", style="bold"),
        Text(entry.meaning),
        Text(f"What to do: {entry.action}"),
    )


def authority(endpoint: views.EndpointView) -> str:
    """``10.0.0.1:9080``, ``[::1]:9080``."""
    return f"[{endpoint.address}]:{endpoint.port}" if ":" in endpoint.address else f"{endpoint.address}:{endpoint.port}"


def age(time: str, *, now: datetime) -> str:
    """How long ago an RFC 3339 time was: ``7s``, ``12m``, ``3h``, ``5d``; "" for none."""
    if not time:
        return ""
    seconds = max(0, int((now - datetime.fromisoformat(time)).total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size or (unit == "d" and seconds >= size):
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def utc_now() -> datetime:
    return datetime.now(UTC)
