"""The answer of `meshctl authz check`, as people read it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from meshlib_control.admin import views

_STYLES = {"allowed": "bold green", "denied": "bold red", "asked": "bold yellow"}
_WORDS = {"allowed": "ALLOWED", "denied": "DENIED", "asked": "DEPENDS ON THE AUTHORIZER"}


def authorization(line: str, request: views.AuthorizeRequest, found: views.AuthorizationView) -> RenderableType:
    """The request, then a verdict for each kind of workload."""
    caller = request.source or "a caller without identity"
    head = [Text(f"{line} to {found.service}", style="bold"), Text(f"from       {caller}")]
    if found.path and found.path != request.path.partition("?")[0]:
        head.append(Text(f"path       {found.path}, as policies see it"))
    lines: list[RenderableType] = [*head]
    for workload in found.workloads:
        lines.extend(_workload(workload, several=len(found.workloads) > 1))
    return Group(*lines)


def _workload(found: views.WorkloadVerdict, *, several: bool) -> Iterator[Text]:
    labels = ", ".join(f"{name}={value}" for name, value in sorted(found.labels.items()))
    if several:
        yield Text()
    if found.instances or labels:
        shown = ", ".join(found.instances[:4]) + (f" and {len(found.instances) - 4} more" if len(found.instances) > 4 else "")
        yield Text(f"workload   {' with '.join(part for part in (shown, labels) if part)}")
    yield Text(f"mTLS       {found.mtls} on port {found.port}")
    rule = f" by {found.policy}" + (f" rule {found.rule}" if found.rule >= 0 else "") if found.policy else ""
    verdict = Text(f"{_WORDS[found.outcome]}{rule}", style=_STYLES[found.outcome])
    yield verdict.append(f": {found.reason}", style="default")
    for step in found.steps:
        yield Text(f"  {step.action:<8} {step.outcome}{f': {step.detail}' if step.detail else ''}")
        for rule_tried in step.rules:
            yield _rule(rule_tried)
    for policy in found.not_for_it:
        yield Text(f"  not for this workload: {policy}", style="dim")
    for note in found.notes:
        yield Text(f"  note: {note}", style="yellow")


def _rule(found: views.RuleTried) -> Text:
    mark, style = ("->", "default") if found.matched else ("  ", "dim")
    name = found.policy.removeprefix("AuthorizationPolicy/")
    dry_run = " (dry run)" if found.dry_run else ""
    return Text(f"    {mark} {name} rule {found.rule}{dry_run}: {found.reason}", style=style)
