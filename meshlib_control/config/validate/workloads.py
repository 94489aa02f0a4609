"""Which workloads a policy is for: its selector, or the resources that it is attached to."""

from __future__ import annotations

import re
from collections.abc import Iterator

from meshlib_control.config.kinds import PolicyTargetReference, WorkloadSelector
from meshlib_control.config.problems import Problem, under

_KIND = re.compile(r"[A-Z][A-Za-z0-9]*\Z")
_GROUP = re.compile(r"(?:[A-Za-z0-9]*|[a-z0-9-]+(?:\.[a-z0-9-]+)+)\Z")  # Kubernetes' own are a word, all others DNS names


def check_workload_selector(selector: WorkloadSelector | None) -> Iterator[Problem]:
    """Labels are compared as they are; no labels at all select everything, which may not be what was meant."""
    if selector is None:
        return
    if not selector.match_labels:
        yield Problem((), "MSH0151", "a selector without labels selects every workload of the namespace")
    for key, value in selector.match_labels.items():
        if not key or "*" in key or "*" in value:
            message = "labels are compared as they are; wildcards and empty keys are not allowed"
            yield Problem(("matchLabels", key), "MSH0142", message)


def check_target_references(one: PolicyTargetReference | None, several: tuple[PolicyTargetReference, ...]) -> Iterator[Problem]:
    """`targetRef` and `targetRefs` of a policy, which is then for no workload."""
    if one is not None:
        yield from under(("targetRef",), _check_reference(one))
        yield _for_nobody("targetRef", one)
    for index, reference in enumerate(several):
        yield from under(("targetRefs", index), _check_reference(reference))
    if several:
        yield _for_nobody("targetRefs", *several)


def _for_nobody(field: str, *targets: PolicyTargetReference) -> Problem:
    names = ", ".join(f"{target.kind}/{target.name}" for target in targets)
    message = f"it is for the gateway or waypoint of {names}, and no workload enforces it; to protect workloads use a selector"
    return Problem((field,), "MSH0331", message)


def _check_reference(reference: PolicyTargetReference) -> Iterator[Problem]:
    if not reference.name:
        yield Problem(("name",), "MSH0143", "the name of the target is empty")
    if not _KIND.match(reference.kind):
        yield Problem(("kind",), "MSH0142", f"{reference.kind!r} is not a kind; write it as in Gateway or Service")
    if not _GROUP.match(reference.group):
        message = f"{reference.group!r} is not an API group; write it as in networking.istio.io, or leave it out for core"
        yield Problem(("group",), "MSH0142", message)
    if reference.namespace:
        yield Problem(("namespace",), "MSH0142", "a policy is attached to resources of its own namespace; leave it out")
